"""Runs that Dagster has seen go out and that the store of this process does not have."""

from __future__ import annotations

import dagster as dg

from batchor_dagster.latest import Latest
from batchor_dagster.metadata import BatchorMetadataSet
from batchor_engine import BatchRunner, UnknownRunError


def elsewhere(instance: dg.DagsterInstance, runner: BatchRunner, submitted_by: dg.AssetKey, partition: str) -> str:
    """What to say about a submission that Dagster shows and the store lacks; empty where there is none."""
    seen = Latest(instance, dg.DagsterEventType.ASSET_MATERIALIZATION).of(submitted_by, partition)
    run_id = BatchorMetadataSet.extract(seen).run_id
    return lacks(runner, run_id) if run_id else ""


def lacks(runner: BatchRunner, run_id: str) -> str:
    """What to say about a run that Dagster names; empty where the store has it."""
    try:
        runner.info(run_id)
    except UnknownRunError:
        return (
            f"Dagster shows that run {run_id} was submitted, but this store, {runner.storage.location}, does not have "
            "it: is store_url the same? A relative path is relative to the folder that Dagster was started in. If the "
            "run was deleted, materialize its batch again, which pays again."
        )
    return ""
