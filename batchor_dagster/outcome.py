"""How a finished run is delivered: the materialization of one partition with what is said about it, and its checks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import dagster as dg

from batchor_dagster.checks import BatchorChecks, check_results
from batchor_dagster.engine_runs import is_cancelled, is_lost
from batchor_dagster.facts import Facts, facts_of
from batchor_dagster.failures import reasons
from batchor_dagster.forms import InputForm, ValueForm, read_failures, read_rows
from batchor_dagster.io_manager import BatchorIOManager
from batchor_dagster.metadata import URI_KEY, BatchorMetadataSet
from batchor_dagster.reports import failure_metadata, result_metadata, row_counts, usage_metadata
from batchor_dagster.resources import RESOURCE, job_name
from batchor_engine import Run, RunInfo


@dataclass(frozen=True)
class Ended:
    """A run that has ended, or a group of its rows, and the partition that these are for.

    The empty partition means that the asset has none.
    """

    run: Run
    info: RunInfo
    partition: str = ""


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where outcomes go: the result asset and its checks, the asset of its failed rows, and who stores their rows.

    `submitted_by` is the asset that sent the rows, with `resource_key`. An IO manager that is not ours gets `value` of
    them.
    """

    key: dg.AssetKey
    checks: BatchorChecks
    submitted_by: dg.AssetKey
    failures: dg.AssetKey | None = None
    io_manager_key: str
    value: ValueForm = "pandas"
    resource_key: str = RESOURCE

    def hands_over(self, context: dg.AssetExecutionContext) -> bool:
        """True when another IO manager than ours stores the rows once more."""
        return not isinstance(getattr(context.resources, self.io_manager_key), BatchorIOManager)

    def rows(self, context: dg.AssetExecutionContext, run: Run) -> dict[str, Any]:
        """The `value=` of a materialization of all rows, where one is wanted."""
        return {"value": read_rows(run, InputForm(self.value), str(self.key))} if self.hands_over(context) else {}

    def failed_rows(self, context: dg.AssetExecutionContext, run: Run) -> dict[str, Any]:
        """The `value=` of a materialization of the failed rows, where one is wanted."""
        return {"value": read_failures(run, InputForm(self.value), str(self.key))} if self.hands_over(context) else {}


def outcome(context: dg.AssetExecutionContext, ended: Ended, target: Target) -> Iterator[Any]:
    """The materialization and its checks, or a failure when not one row has an answer; failed rows come first."""
    facts = facts_of(ended.run)
    if target.failures in context.selected_asset_keys:
        yield _failed_rows(context, ended, target, facts)
    metadata = outcome_metadata(context, ended, facts, target)
    checks = check_results(target.key, facts, target.checks, partition=ended.partition)
    if is_lost(ended.info):
        # A cancel is for good: nobody wants to know how well the rest of the rows did.
        yield from () if is_cancelled(ended.info) else checks
        raise dg.Failure(_why_lost(ended.info, facts, target), metadata, allow_retries=False)
    if target.key in context.selected_asset_keys:
        yield dg.MaterializeResult(
            asset_key=target.key,
            metadata=metadata,
            data_version=_version(ended, facts),
            **target.rows(context, ended.run),
        )
    yield from checks


def _version(ended: Ended, facts: Facts) -> dg.DataVersion:
    """Reading the same outcome again leaves what is downstream in step."""
    return dg.DataVersion(f"{ended.info.run_id}:{facts.completed}:{facts.failed}")


def _failed_rows(
    context: dg.AssetExecutionContext, ended: Ended, target: Target, facts: Facts
) -> dg.MaterializeResult[Any]:
    return dg.MaterializeResult(
        asset_key=target.failures,
        metadata={**failure_metadata(ended.run, facts), **row_counts(facts.failed, ended.partition)},
        data_version=_version(ended, facts),
        **target.failed_rows(context, ended.run),
    )


def outcome_metadata(
    context: dg.AssetExecutionContext,
    ended: Ended,
    facts: Facts,
    target: Target,
) -> dict[str, Any]:
    """All that is said about the outcome: our keys, usage in dagster-openai's, and Dagster's own."""
    shown = _latest(context, target.key, ended.partition)
    event = shown.asset_materialization if shown else None
    earlier = BatchorMetadataSet.extract(event.metadata if event else {})
    sent = _latest(context, target.submitted_by, ended.partition)
    said = replace(
        result_metadata(ended.run, ended.info, facts),
        submission=dg.MetadataValue.asset(target.submitted_by),
        submission_run=dg.MetadataValue.dagster_run(sent.run_id) if sent else None,
    )
    return {
        **said,
        **usage_metadata(ended.run, facts, earlier),
        **row_counts(facts.rows, ended.partition),
        URI_KEY: f"{ended.run.artifact_root.rstrip('/')}/{ended.info.run_id}",
    }


def _latest(context: dg.AssetExecutionContext, key: dg.AssetKey, partition: str) -> dg.EventLogRecord | None:
    wanted = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[partition] if partition else None)
    return next(iter(context.instance.fetch_materializations(wanted, limit=1).records), None)


def _why_lost(info: RunInfo, facts: Facts, target: Target) -> str:
    why = reasons(facts.failures) or "no row was open"
    if not is_cancelled(info):
        return f"{_all_rows(facts)} of {info.run_id} failed: {why}"
    return (
        f"{info.run_id} was cancelled ({why}): {facts.completed} of {facts.rows} rows have an answer. The answers are "
        f"kept, and job {job_name('export', target.resource_key)} writes them to a folder; materialize "
        f"{target.submitted_by.to_user_string()} to ask for all rows again."
    )


def _all_rows(facts: Facts) -> str:
    return "The only row" if facts.failed == 1 else f"All {facts.failed} rows"
