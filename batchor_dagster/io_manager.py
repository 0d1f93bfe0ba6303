"""Reads the rows of a result asset in the form that the consumer's annotation asks for.

Law: nothing is written here; the rows are durable in the engine's store before Dagster hears of them.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import dagster as dg

from batchor_dagster.engine_runs import Slot, answers_by_partition, asset_label, is_lost, newest_run
from batchor_dagster.failures import reasons
from batchor_dagster.forms import InputForm, form_of, read_failures, read_rows
from batchor_dagster.lost_store import elsewhere
from batchor_dagster.metadata import FAILURES_OF_KEY, RESULTS_OF_KEY
from batchor_dagster.partitions import ByPartition
from batchor_dagster.resources import RESOURCE, BatchorResource
from batchor_engine import BatchRunner

ALLOW_MISSING = "allow_missing_partitions"


class BatchorIOManager(dg.IOManager):
    """Loads `list[Model]`, `pandas.DataFrame`, `pyarrow.Table`, a `BatchorResults` that iterates, or a dict of these.

    A list holds the answers of the rows that have one, in row order. The frame and the table hold every row with its
    id, status and error, failed ones too. The dict has an entry for each partition that the consumer depends on. Each
    partition is read from its latest run that ended with an answer.
    """

    def __init__(self, batchor: BatchorResource) -> None:
        self.batchor = batchor

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:  # noqa: ARG002 - the signature is Dagster's
        """Refuse to store anything."""
        raise dg.Failure(
            f"{context.asset_key.to_user_string()} uses batchor's IO manager, which only reads results of batch jobs: "
            "choose another io_manager_key for this asset",
            allow_retries=False,
        )

    def load_input(self, context: dg.InputContext) -> Any:
        """Read the partitions that the consumer depends on."""
        form = form_of(context.dagster_type.typing_type)
        upstream = _Upstream(context)
        if isinstance(context.dagster_type, ByPartition) and upstream.is_range:
            form = replace(form, by_partition=True)
        # A handle reads after this returns; its runner lets go of the store when it is forgotten.
        runner = self.batchor.runner()
        try:
            return upstream.read(runner, form)
        finally:
            if not form.is_lazy:
                runner.close()


class _Upstream:
    """What an input depends on: an asset, and its partitions where it has some."""

    def __init__(self, context: dg.InputContext) -> None:
        metadata = context.upstream_output.definition_metadata if context.upstream_output else {}
        self._failures_of = metadata.get(FAILURES_OF_KEY)
        self._asset = str(self._failures_of or asset_label(context.asset_key))
        self._read = read_failures if self._failures_of else read_rows
        self._submitted_by = str(metadata.get(RESULTS_OF_KEY) or f"{self._asset}_batch")
        self._context = context
        self._is_partitioned = context.has_asset_partitions
        self._keys = list(context.asset_partition_keys) if self._is_partitioned else [""]
        self._is_lenient = bool(context.definition_metadata.get(ALLOW_MISSING))

    @property
    def is_range(self) -> bool:
        return len(self._keys) > 1

    def read(self, runner: BatchRunner, form: InputForm) -> Any:
        self._check(form)
        found = answers_by_partition(runner, self._asset, self._keys, lost_too=bool(self._failures_of))
        if not self._is_lenient and (missing := [key for key in self._keys if key not in found]):
            raise dg.Failure(self._why_missing(runner, missing), allow_retries=False)
        if form.by_partition:
            return {key: self._read(run, form, self._place(key)) for key, run in found.items()}
        if not found:
            raise dg.Failure(self._why_missing(runner, self._keys), allow_retries=False)
        key, run = next(iter(found.items()))
        return self._read(run, form, self._place(key))

    def _check(self, form: InputForm) -> None:
        if form.by_partition and not self._is_partitioned:
            raise dg.Failure(
                f"{self._asset} has no partitions: annotate it with what the dict would hold", allow_retries=False
            )
        if not form.by_partition and len(self._keys) != 1:
            raise dg.Failure(
                f"This input covers {len(self._keys)} partitions of {self._asset}: annotate it dict[str, …] to get one "
                "entry for each",
                allow_retries=False,
            )

    def _why_missing(self, runner: BatchRunner, missing: Sequence[str]) -> str:
        """What the first missing partition waits for, and what to do about it."""
        newest = newest_run(runner, Slot(self._asset, missing[0]))
        if newest is None:
            if known := self._elsewhere(runner, missing[0]):
                return known
            why = f"was never submitted: materialize {self._submitted_by} for it"
        elif is_lost(newest):
            failures = runner.get_run(newest.run_id).failure_counts()
            why = (
                f"has no answer ({reasons(failures)}): retry its failed rows, or materialize {self._submitted_by} again"
            )
        else:
            done = newest.summary.completed_items + newest.summary.failed_items
            why = (
                f"is not finished, {done} of {newest.summary.total_items} rows have an end: the sensor materializes "
                "it when the provider is done"
            )
        text = f"{self._place(missing[0])} {why}"
        if len(missing) > 1:
            text += f"; {len(missing) - 1} more partitions have no results either"
        if self._is_partitioned and len(self._keys) > 1:
            text += f". To read those that are there: dg.AssetIn(metadata={{{ALLOW_MISSING!r}: True}})"
        return text

    def _elsewhere(self, runner: BatchRunner, partition: str) -> str:
        try:
            instance = self._context.instance
        except dg.DagsterInvariantViolationError:
            # A context that was built by hand may have none.
            return ""
        return elsewhere(instance, runner, dg.AssetKey.from_user_string(self._submitted_by), partition)

    def _place(self, key: str) -> str:
        return f"{self._asset}[{key}]" if key else self._asset


def build_batchor_io_manager(*, resource_key: str = RESOURCE) -> dg.IOManagerDefinition:
    """The IO manager of the store behind a `BatchorResource`.

    Example:
        >>> dg.Definitions(assets=[*triage], resources={"batchor": batchor, "batchor_io_manager":
        ...     build_batchor_io_manager()})
    """

    @dg.io_manager(required_resource_keys={resource_key}, description="Reads the rows of finished batch jobs.")
    def batchor_io_manager(context: dg.InitResourceContext) -> BatchorIOManager:
        return BatchorIOManager(getattr(context.resources, resource_key))

    return batchor_io_manager
