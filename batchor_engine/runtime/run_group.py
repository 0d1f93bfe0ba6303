"""One group of a run's rows, read as if it were a run of its own.

Law: reads are limited to the group; control (pause, cancel, retry) and what concerns files (batches, export_artifacts,
prune_artifacts) are the whole run's, which has only one life and shares its files among the groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchor_engine.core.costs import Cost
from batchor_engine.core.summary import summarize
from batchor_engine.models import (
    BatchResultItem,
    RunSummary,
    RunTally,
    RunUsage,
    TerminalResultsExportResult,
    TerminalResultsPage,
    TextItemResult,
)
from batchor_engine.runtime.costs import RunEstimate, cost_of_rows, group_usages, run_estimate
from batchor_engine.runtime.export import export_terminal, failures_table, write_parquet
from batchor_engine.runtime.readback import failure_counts, iter_failed_results, iter_results, read_page
from batchor_engine.runtime.run import Run
from batchor_engine.states import ItemStatus, RunLifecycleStatus

if TYPE_CHECKING:
    from batchor_engine.runtime.runner import BatchRunner


class RunGroup(Run):
    """The rows of one group, with the ids and the metadata that they have in it."""

    def __init__(self, *, runner: BatchRunner, run_id: str, whole: RunSummary, group: int, tally: RunTally) -> None:
        super().__init__(runner=runner, run_id=run_id, summary=_of_group(whole, tally))
        self.number = group
        self._tally = tally

    def __repr__(self) -> str:
        return f"RunGroup({self.run_id!r}, {self.number}, {self.status.value})"

    def summary(self) -> RunSummary:
        """The run's summary with the counts of the group; costs a pass over the run's rows in the database."""
        whole = summarize(self._record(), self._runner.host.clock)
        self._tally = super().tallies().get(self.number, RunTally())
        self._summary = _of_group(whole, self._tally)
        return self._summary

    def tallies(self) -> dict[int, RunTally]:
        """The group's own tally, as of the last summary()."""
        return {self.number: self._tally}

    def read_terminal_results(self, *, after_sequence: int = 0, limit: int | None = None) -> TerminalResultsPage:
        """The group's results after a cursor, which counts the rows of the whole run."""
        host, run, form = self._runner.host, self._record(), self._model()
        return read_page(host, run, form, after_sequence=after_sequence, limit=limit, group=self.number)

    def export_terminal_results(
        self, destination: str | Path, *, after_sequence: int = 0, append: bool = True, limit: int | None = None
    ) -> TerminalResultsExportResult:
        return export_terminal(
            self._runner.host,
            self._record(),
            Path(destination),
            after_sequence=after_sequence,
            append=append,
            limit=limit,
            group=self.number,
        )

    def iter_failures(self) -> Iterator[TextItemResult]:
        return iter_failed_results(self._runner.host, self._record(), group=self.number)

    def failures(self) -> Any:
        return failures_table(self._runner.host, self._record(), group=self.number)

    def failure_counts(self) -> dict[str, int]:
        return failure_counts(self._runner.host, self._record(), group=self.number)

    def write_parquet(self, path: str | Path, *, rows_per_file: int | None = None) -> Path:
        host, run = self._runner.host, self._record()
        return write_parquet(host, run, self._model(), path, rows_per_file=rows_per_file, group=self.number)

    def usage(self) -> RunUsage:
        return sum(group_usages(self._runner.host, self._record(), self.number), RunUsage())

    def cost(self) -> Cost:
        host, run = self._runner.host, self._record()
        return cost_of_rows(host, run, group_usages(host, run, self.number))

    def estimate(self) -> RunEstimate:
        return run_estimate(self._runner.host, self._record(), group=self.number)

    def _results(self, *, raw: bool) -> Iterator[BatchResultItem]:
        return iter_results(self._runner.host, self._record(), self._model(), raw=raw, group=self.number)


def _of_group(whole: RunSummary, tally: RunTally) -> RunSummary:
    """The group has ended when its run has; it completed without failures if none of its own rows failed."""
    status = whole.status
    if status is not RunLifecycleStatus.RUNNING:
        status = RunLifecycleStatus.COMPLETED_WITH_FAILURES if tally.failed else RunLifecycleStatus.COMPLETED
    ended = {ItemStatus.COMPLETED: tally.completed, ItemStatus.FAILED_PERMANENT: tally.failed}
    return replace(
        whole,
        status=status,
        total_items=tally.rows,
        completed_items=tally.completed,
        failed_items=tally.failed,
        # A tally tells ended rows apart and no others.
        status_counts={status: count for status, count in ended.items() if count},
    )
