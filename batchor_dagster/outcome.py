"""How a finished run is delivered: the materialization of one partition with what is said about it, and its checks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import dagster as dg

from batchor_dagster.checks import BatchorChecks, check_results
from batchor_dagster.engine_runs import is_cancelled, is_lost, lost_outcome
from batchor_dagster.facts import Facts, facts_of
from batchor_dagster.failures import reasons
from batchor_dagster.metadata import OUTCOME_TAG, URI_KEY, BatchorMetadataSet
from batchor_dagster.reports import result_metadata, row_counts, usage_metadata
from batchor_engine import Run, RunInfo


@dataclass(frozen=True)
class Ended:
    """A run that has ended, or a group of its rows, and the partition that these are for.

    The empty partition means that the asset has none.
    """

    run: Run
    info: RunInfo
    partition: str = ""


def outcome(
    context: dg.AssetExecutionContext,
    ended: Ended,
    key: dg.AssetKey,
    checks: BatchorChecks,
    *,
    submitted_by: dg.AssetKey | None = None,
) -> Iterator[Any]:
    """The materialization and its checks, or a failure when not one row has an answer."""
    facts = facts_of(ended.run)
    metadata = outcome_metadata(context, ended, facts, key, submitted_by)
    if is_lost(ended.info):
        # The sensor recognises by this tag that the partition shows what became of the run.
        context.instance.add_run_tags(context.run.run_id, {OUTCOME_TAG: lost_outcome(ended.info)})
        raise dg.Failure(_why_lost(ended.info, facts), metadata, allow_retries=False)
    selected = {one.name for one in context.selected_asset_check_keys}
    found = check_results(key, facts, checks, partition=ended.partition)
    wanted = [result for result in found if result.check_name in selected]
    if key in context.selected_asset_keys:
        # Reading the same outcome again leaves what is downstream in step.
        version = dg.DataVersion(f"{ended.info.run_id}:{facts.completed}:{facts.failed}")
        yield dg.MaterializeResult(asset_key=key, metadata=metadata, check_results=wanted, data_version=version)
    else:
        yield from wanted


def outcome_metadata(
    context: dg.AssetExecutionContext,
    ended: Ended,
    facts: Facts,
    key: dg.AssetKey,
    submitted_by: dg.AssetKey | None,
) -> dict[str, Any]:
    """All that is said about the outcome: our keys, usage in dagster-openai's, and Dagster's own."""
    shown = _latest(context, key, ended.partition)
    event = shown.asset_materialization if shown else None
    earlier = BatchorMetadataSet.extract(event.metadata if event else {})
    sent = _latest(context, submitted_by, ended.partition) if submitted_by else None
    links = BatchorMetadataSet(
        submission=dg.MetadataValue.asset(submitted_by) if submitted_by else None,
        submission_run=dg.MetadataValue.dagster_run(sent.run_id) if sent else None,
    )
    return {
        **result_metadata(ended.run, ended.info, facts),
        **links,
        **usage_metadata(ended.run, facts, earlier),
        **row_counts(facts.rows, ended.partition),
        URI_KEY: ended.run.artifact_root,
    }


def _latest(context: dg.AssetExecutionContext, key: dg.AssetKey, partition: str) -> dg.EventLogRecord | None:
    wanted = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[partition] if partition else None)
    return next(iter(context.instance.fetch_materializations(wanted, limit=1).records), None)


def _why_lost(info: RunInfo, facts: Facts) -> str:
    why = reasons(facts.failures) or "no row was open"
    if not is_cancelled(info):
        return f"All {facts.failed} rows of {info.run_id} failed: {why}"
    return (
        f"{info.run_id} was cancelled ({why}): {facts.completed} of {facts.rows} rows have an answer. The answers are "
        "kept, and job batchor_export writes them to a folder; materialize the _batch asset to ask for all rows again."
    )
