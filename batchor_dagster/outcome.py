"""How a finished run is delivered: the materialization of one partition with what is said about it, and its checks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import dagster as dg

from batchor_dagster.checks import BatchorChecks, check_results
from batchor_dagster.engine_runs import is_lost
from batchor_dagster.reports import result_metadata, row_counts
from batchor_engine import Run, RunInfo


@dataclass(frozen=True)
class Ended:
    """A run that has ended, and the partition that its rows are for; the empty one means that the asset has none."""

    run: Run
    info: RunInfo
    partition: str = ""


def outcome(context: dg.AssetExecutionContext, ended: Ended, key: dg.AssetKey, checks: BatchorChecks) -> Iterator[Any]:
    """The materialization and its checks, or a failure when not one row has an answer."""
    run, info = ended.run, ended.info
    metadata = {**result_metadata(run, info), **row_counts(info)}
    failures = run.failure_counts()
    if is_lost(info):
        reasons = ", ".join(f"{name} × {count}" for name, count in failures.items())
        raise dg.Failure(f"All {info.summary.failed_items} rows of {info.run_id} failed: {reasons}", metadata, False)
    selected = {one.name for one in context.selected_asset_check_keys}
    wanted = [result for result in check_results(key, info.summary, failures, checks) if result.check_name in selected]
    if key in context.selected_asset_keys:
        # Reading the same outcome again leaves what is downstream in step.
        version = dg.DataVersion(f"{info.run_id}:{info.summary.completed_items}:{info.summary.failed_items}")
        yield dg.MaterializeResult(asset_key=key, metadata=metadata, check_results=wanted, data_version=version)
    else:
        yield from wanted
