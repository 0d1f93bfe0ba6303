"""Reads the rows of a result asset in the form that the consumer's annotation asks for.

Law: nothing is written here; the rows are durable in the engine's store before Dagster hears of them.
"""

import typing
from collections.abc import Callable
from typing import Any

import dagster as dg

from batchor_dagster.engine_runs import answers_by_partition, asset_label
from batchor_dagster.resources import RESOURCE, BatchorResource
from batchor_engine import (
    BatchRunner,
    EmbeddingItemResult,
    ItemStatus,
    Run,
    RunInfo,
    StructuredItemResult,
    TextItemResult,
)

Decoder = Callable[[Run], Any]
FORMS = "list[Model], pandas.DataFrame, pyarrow.Table, batchor_engine.Run, or dict[str, …] of these over partitions"


class BatchorIOManager(dg.IOManager):
    """Loads `list[Model]`, `pandas.DataFrame`, `pyarrow.Table`, a `Run` that iterates, or a dict of these by partition.

    A list holds the answers of the rows that have one, in row order. The frame and the table hold every row with its
    id, status and error, failed ones too. Each partition is read from its latest run that ended with an answer.
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
        asset, annotation = asset_label(context.asset_key), context.dagster_type.typing_type
        by_partition = typing.get_origin(annotation) is dict
        decode = decoder(typing.get_args(annotation)[1] if by_partition else annotation)
        runner = self.batchor.runner()
        try:
            found = self._wanted(context, runner, asset)
            if by_partition:
                return {key: decode(runner.get_run(info.run_id)) for key, info in found.items()}
            return decode(_only(runner, asset, found))
        finally:
            if decode is not _as_it_is:
                runner.close()

    def _wanted(self, context: dg.InputContext, runner: BatchRunner, asset: str) -> dict[str, RunInfo]:
        ended = answers_by_partition(runner, asset)
        keys = list(context.asset_partition_keys) if context.has_asset_partitions else [""]
        lenient = bool(context.definition_metadata.get("allow_missing_partitions"))
        return {key: _require(ended, asset, key) for key in keys if key in ended or not lenient}


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


def decoder(annotation: Any) -> Decoder:
    """How to read a run as this type; a consumer without annotation gets the list."""
    import pandas as pd
    import pyarrow as pa

    if annotation is Any or typing.get_origin(annotation) is list or annotation is list:
        return answers
    forms: dict[Any, Decoder] = {pd.DataFrame: Run.to_pandas, pa.Table: Run.to_arrow, Run: _as_it_is}
    if annotation not in forms:
        raise dg.Failure(f"Rows of a batch job cannot be read as {annotation}: use {FORMS}", allow_retries=False)
    return forms[annotation]


def answers(run: Run) -> list[Any]:
    """The model instances, vectors or texts of the rows that have an answer."""
    return [_answer(result) for result in run.iter_results() if result.status is ItemStatus.COMPLETED]


def _answer(result: TextItemResult | StructuredItemResult[Any] | EmbeddingItemResult) -> Any:
    match result:
        case StructuredItemResult():
            return result.output
        case EmbeddingItemResult():
            return result.embedding
        case TextItemResult():
            return result.output_text


def _as_it_is(run: Run) -> Run:
    return run


def _require(ended: dict[str, RunInfo], asset: str, partition: str) -> RunInfo:
    if partition not in ended:
        place = f"{asset}[{partition}]" if partition else asset
        raise dg.Failure(f"{place} has no finished run: materialize it first", allow_retries=False)
    return ended[partition]


def _only(runner: BatchRunner, asset: str, found: dict[str, RunInfo]) -> Run:
    if len(found) != 1:
        raise dg.Failure(
            f"This input covers {len(found)} partitions of {asset}: annotate it dict[str, …] to get one entry for each",
            allow_retries=False,
        )
    return runner.get_run(next(iter(found.values())).run_id)
