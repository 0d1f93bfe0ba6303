"""A handle on one run. It holds nothing that the store does not know, but for the job its process may have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchor_engine.config import ProviderConfig
from batchor_engine.core.costs import Cost
from batchor_engine.core.records import RunRecord
from batchor_engine.core.summary import batch_info, sentence, summarize, summary_html
from batchor_engine.errors import RunNotFinishedError
from batchor_engine.models import (
    ArtifactExportResult,
    ArtifactPruneResult,
    BatchInfo,
    BatchResultItem,
    Form,
    RunSnapshot,
    RunSummary,
    RunTally,
    RunUsage,
    TerminalResultsExportResult,
    TerminalResultsPage,
    TextItemResult,
)
from batchor_engine.runtime import control, steps
from batchor_engine.runtime.advance import read_run
from batchor_engine.runtime.costs import RunEstimate, run_cost, run_estimate, server_of
from batchor_engine.runtime.export import export_artifacts, export_terminal, failures_table, write_parquet
from batchor_engine.runtime.garbage import seldom_collected
from batchor_engine.runtime.host import Host
from batchor_engine.runtime.prune import prune_artifacts
from batchor_engine.runtime.readback import failure_counts, iter_failed_results, iter_results, read_page
from batchor_engine.states import RUN_TERMINAL, RunControlState, RunLifecycleStatus

if TYPE_CHECKING:
    import pandas as pd  # pyright: ignore[reportMissingTypeStubs] - pandas ships none

    from batchor_engine.runtime.runner import BatchRunner


class Run:
    """One run of a runner's store. `status`, `control_state` and `is_finished` are as of the last call that read."""

    # Whose rows are read; None for those of all groups.
    _of_group: int | None = None

    def __init__(self, *, runner: BatchRunner, run_id: str, summary: RunSummary) -> None:
        self.run_id = run_id
        self._runner = runner
        self._summary = summary

    def __repr__(self) -> str:
        return f"<Run {self.status.value}, {sentence(self._summary)}>"

    def _repr_html_(self) -> str:
        """What a notebook shows; as of the last call that read, so that showing a run reads nothing."""
        return summary_html(self._summary)

    @property
    def status(self) -> RunLifecycleStatus:
        return self._summary.status

    @property
    def control_state(self) -> RunControlState:
        return self._summary.control_state

    @property
    def control_reason(self) -> str | None:
        return self._summary.control_reason

    @property
    def is_finished(self) -> bool:
        return self.status in RUN_TERMINAL

    @property
    def known_summary(self) -> RunSummary:
        """The summary as of the last call that read; costs nothing."""
        return self._summary

    # --- going on

    def refresh(self, deadline: float | None = None) -> RunSummary:
        """One cycle: look at the provider, collect what ended, submit what can go. Nothing while paused.

        `deadline` bounds the cycle in seconds from now; what is cut short goes on in the next one.
        """
        return self._told(steps.refresh(self._runner.host, self.run_id, deadline))

    def advance(self, *, deadline: float | None = None) -> RunSummary:
        """The submission side alone: recover, ingest, submit."""
        steps.advance_only(self._runner.host, self.run_id, deadline)
        return self.summary()

    def collect(self) -> RunSummary:
        """Bring in what the provider has finished, also while the run is paused; submits nothing."""
        steps.collect_only(self._runner.host, self.run_id)
        return self.summary()

    def wait(self, *, timeout: float | None = None, poll_interval: float | None = None) -> Run:
        """Go on until the run is over. TimeoutError after `timeout` seconds harms nothing: call it again."""
        steps.wait(self._runner.host, self.run_id, timeout, poll_interval)
        self.summary()
        return self

    # --- control

    def pause(self) -> RunSummary:
        """No ingestion, submission or polling until resume()."""
        return self._controlled(control.pause)

    def resume(self) -> RunSummary:
        """Go on from where the run was paused; ValueError once it is cancelled."""
        return self._controlled(control.resume)

    def cancel(self, *, drain: bool = False) -> RunSummary:
        """End the run for good: live batches are cancelled at the provider, or with `drain` left to finish."""
        return self._controlled(partial(control.cancel, drain=drain))

    def retry_failed(self) -> RunSummary:
        """Give every permanently failed row a new allowance of attempts; the run goes on. ValueError after a cancel.

        Their old results are superseded: they leave the pages, and the new ones get new sequences.
        """
        return self._controlled(control.retry_failed)

    def resolve_indeterminate_submission_as_created(
        self, *, provider_batch_id: str, status: str = "submitted", intent_id: str | None = None
    ) -> RunSummary:
        """The operator found the batch at the provider: it is adopted, and its answers will be collected."""
        settle = partial(control.resolve_as_created, provider_batch_id=provider_batch_id, status=status)
        return self._controlled(partial(settle, intent_id=intent_id))

    def resolve_indeterminate_submission_as_not_created(self, *, intent_id: str | None = None) -> RunSummary:
        """The operator is sure that the provider never had the batch: its rows will be sent again."""
        return self._controlled(partial(control.resolve_as_not_created, intent_id=intent_id))

    def _controlled(self, act: Callable[[Host, str], None]) -> RunSummary:
        act(self._runner.host, self.run_id)
        return self.summary()

    # --- reading

    def summary(self) -> RunSummary:
        """Counts as stored now; costs the same at any size."""
        return self._told(self._record())

    def _told(self, record: RunRecord) -> RunSummary:
        self._summary = summarize(record, self._runner.host.clock)
        return self._summary

    def snapshot(self) -> RunSnapshot:
        """The summary and every item that is terminal so far, in item order."""
        summary = self.summary()
        with seldom_collected():
            fields: Mapping[str, Any] = {**vars(summary), "items": list(self._results(raw=True))}
        return RunSnapshot(**fields)

    def results(self) -> list[BatchResultItem]:
        """All results in item order; RunNotFinishedError before the end."""
        self._require_finished()
        with seldom_collected():
            return list(self._results(raw=True))

    def iter_results(self, *, raw: bool = False) -> Iterator[BatchResultItem]:
        """Results in item order, a few in memory at a time, of the items that are terminal so far.

        With `raw` each result carries the provider's record where it is kept.
        """
        return self._results(raw=raw)

    def read_terminal_results(self, *, after_sequence: int = 0, limit: int | None = None) -> TerminalResultsPage:
        """Results in the order in which they became terminal, any time; the cursor before them counts the whole run."""
        host, run, form = self._runner.host, self._record(), self._model()
        return read_page(host, run, form, after_sequence=after_sequence, limit=limit, group=self._of_group)

    def export_terminal_results(
        self, destination: str | Path, *, after_sequence: int = 0, append: bool = True, limit: int | None = None
    ) -> TerminalResultsExportResult:
        """Write results after a cursor as JSONL; needs neither key nor model."""
        return export_terminal(
            self._runner.host,
            self._record(),
            Path(destination),
            after_sequence=after_sequence,
            append=append,
            limit=limit,
            group=self._of_group,
        )

    def export_artifacts(self, destination_dir: str | Path) -> ArtifactExportResult:
        """Copy everything the run consists of to `destination_dir`/<run_id>, with results.jsonl and a manifest.

        RunNotFinishedError before the end; a recorded file that is gone is a FileNotFoundError.
        """
        return export_artifacts(self._runner.host, self._record(), destination_dir)

    def prune_artifacts(self, *, include_raw_output_artifacts: bool = False) -> ArtifactPruneResult:
        """Delete request files, and with the flag raw answers that an export holds; results stay readable.

        RunNotFinishedError before the end; ValueError where raw answers are not safe in an export. A pruned run cannot
        retry_failed() any more.
        """
        return prune_artifacts(
            self._runner.host, self._record(), include_raw_output_artifacts=include_raw_output_artifacts
        )

    def write_parquet(self, path: str | Path, *, rows_per_file: int | None = None) -> Path:
        """Write to_arrow()'s columns to a Parquet file, or with `rows_per_file` to a directory of them; a few rows in
        memory at a time, and nothing half-written at `path`."""
        host, run = self._runner.host, self._record()
        return write_parquet(host, run, self._model(), path, rows_per_file=rows_per_file, group=self._of_group)

    def iter_failures(self) -> Iterator[TextItemResult]:
        """The items that failed for good, in item order, a few in memory at a time; needs no model."""
        return iter_failed_results(self._runner.host, self._record(), group=self._of_group)

    def failures(self) -> Any:
        """A pyarrow.Table of the items that failed for good: id, class, message, attempts, raw error, metadata."""
        return failures_table(self._runner.host, self._record(), group=self._of_group)

    def to_arrow(self) -> Any:
        """A pyarrow.Table with one row per terminal item: item_id, status, attempts, error, then the answer:

        the model's fields, `output_text`, or `embedding` (list<float32>).
        """
        from batchor_engine.results.frames import to_arrow

        with seldom_collected():
            return to_arrow(self._results(raw=False), self._model())

    def to_pandas(self) -> pd.DataFrame:
        """to_arrow() as a DataFrame."""
        from batchor_engine.results.frames import to_pandas

        return to_pandas(self.to_arrow())

    def usage(self) -> RunUsage:
        """Tokens of every collected line so far, retried ones included."""
        segments = self._runner.host.store.segments(self._record().pk)
        return sum((segment.totals.usage for segment in segments), RunUsage())

    def cost(self) -> Cost:
        """What the collected lines cost, retried ones included, by a kept price list; an unknown price is said."""
        return run_cost(self._runner.host, self._record())

    def attempts(self) -> int:
        """Counted attempts of all items so far, added up in the database."""
        return sum(tally.attempts for tally in self.tallies().values())

    def estimate(self) -> RunEstimate:
        """Request files, tokens and cost of the input, as counted when the rows were read; renders nothing again."""
        return run_estimate(self._runner.host, self._record(), group=self._of_group)

    def tallies(self) -> dict[int, RunTally]:
        """Rows, attempts and tokens by group of rows, without a group under 0; one query, and no file is opened."""
        return self._runner.host.store.tallies(self._record().pk)

    def by_group(self) -> dict[int, Run]:
        """Each group of rows as a handle that reads these alone, under their own ids; control is the whole run's.

        Counts are as of this call, which makes one pass over the rows in the database for all groups together.
        """
        self.summary()
        return {group: self._group(group, tally) for group, tally in sorted(self.tallies().items())}

    def group(self, number: int) -> Run:
        """One group as by_group() gives it; a number without rows is an empty group."""
        self.summary()
        return self._group(number, self.tallies().get(number, RunTally()))

    def _group(self, number: int, tally: RunTally) -> Run:
        from batchor_engine.runtime.run_group import RunGroup

        return RunGroup(runner=self._runner, run_id=self.run_id, whole=self._summary, group=number, tally=tally)

    def failure_counts(self) -> dict[str, int]:
        """Items that failed for good, by error class."""
        return failure_counts(self._runner.host, self._record(), group=self._of_group)

    def batches(self) -> list[BatchInfo]:
        """Every batch of the run as last seen, oldest first."""
        return [batch_info(batch) for batch in self._runner.host.store.batches(run_pk=self._record().pk)]

    @property
    def provider_config(self) -> ProviderConfig:
        """The provider's settings that the run was started with; no secrets."""
        return self._runner.host.config_of(self._record())

    @property
    def server(self) -> str:
        """Host, and port where it is given, that this process sends the run's requests to."""
        return server_of(self._runner.host, self._record())

    @property
    def artifact_root(self) -> str:
        """Where the run's files are."""
        return self._runner.host.place_of(self._record())

    @property
    def model(self) -> Form:
        """What the rows are read as: a model, imported again where needed, or EmbeddingItemResult; None is text."""
        return self._model()

    def _record(self) -> RunRecord:
        return read_run(self._runner.host, self.run_id)

    def _results(self, *, raw: bool) -> Iterator[BatchResultItem]:
        return iter_results(self._runner.host, self._record(), self._model(), raw=raw, group=self._of_group)

    def _model(self) -> Form:
        return self._runner.host.model_to_read(self._record())

    def _require_finished(self) -> None:
        self.summary()
        if not self.is_finished:
            raise RunNotFinishedError(self.run_id)
