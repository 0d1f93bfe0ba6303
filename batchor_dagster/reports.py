"""What is said about a run: at submission, on the way, and at the end."""

from __future__ import annotations

import itertools

import dagster as dg

from batchor_dagster.columns import PREVIEW_ROWS, preview
from batchor_dagster.engine_runs import asset_label, slot_of
from batchor_dagster.metadata import BatchorMetadataSet
from batchor_engine import BatchInfo, Run, RunInfo

ROW_COUNT_KEY = "dagster/row_count"
PARTITION_ROW_COUNT_KEY = "dagster/partition_row_count"
MAX_BATCHES_SHOWN = 50


def submission_metadata(info: RunInfo) -> BatchorMetadataSet:
    """What went out so far; `cost` is unknown until the engine has prices."""
    return BatchorMetadataSet(
        run_id=info.run_id,
        revision=info.revision,
        rows=info.summary.total_items,
        batches=len(info.batches),
        provider_batches=_batches(info.batches),
        cost="unknown",
    )


def progress_metadata(info: RunInfo) -> BatchorMetadataSet:
    """Numbers that plot: rows with a final answer, and rows that the provider says it has answered."""
    summary = info.summary
    done = summary.completed_items + summary.failed_items
    at_provider = sum(batch.remote_completed + batch.remote_failed for batch in info.batches if not _is_read(batch))
    answered = min(summary.total_items, done + at_provider)
    return BatchorMetadataSet(
        run_id=info.run_id,
        revision=info.revision,
        status=summary.status.value,
        rows=summary.total_items,
        completed=summary.completed_items,
        failed=summary.failed_items,
        answered=answered,
        progress_percent=round(100 * answered / summary.total_items, 1) if summary.total_items else 0.0,
    )


def result_metadata(run: Run, info: RunInfo) -> BatchorMetadataSet:
    """The outcome of a finished run; reads every result once, without holding them."""
    results = iter(run.iter_results())
    first = list(itertools.islice(results, PREVIEW_ROWS))
    usage, summary = run.usage(), info.summary
    return BatchorMetadataSet(
        run_id=info.run_id,
        revision=info.revision,
        status=summary.status.value,
        rows=summary.total_items,
        completed=summary.completed_items,
        failed=summary.failed_items,
        batches=len(info.batches),
        attempts=sum(result.attempt_count for result in itertools.chain(first, results)),
        failures=dg.JsonMetadataValue(run.failure_counts()),
        input_tokens=usage.input_tokens,
        cached_tokens=usage.cached_tokens,
        output_tokens=usage.output_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        cost="unknown",
        hours_at_provider=_hours(info.batches),
        preview=preview(first),
    )


def row_counts(info: RunInfo) -> dict[str, int]:
    """Dagster's own row-count key, which its catalog shows."""
    key = PARTITION_ROW_COUNT_KEY if slot_of(info).partition else ROW_COUNT_KEY
    return {key: info.summary.total_items}


def pending_message(info: RunInfo, key: dg.AssetKey, sensor: str) -> str:
    """One line for a run that has not ended: how far it is, and who will materialize the asset."""
    seen = progress_metadata(info)
    paused = f", paused ({info.summary.control_reason})" if info.summary.control_reason else ""
    return (
        f"{info.run_id} is not finished: {seen.answered} of {seen.rows} rows answered in {len(info.batches)} "
        f"batches{paused}. Sensor {sensor!r} materializes {asset_label(key)} when the provider is done."
    )


def _is_read(batch: BatchInfo) -> bool:
    return batch.state == "collected"


def _hours(batches: list[BatchInfo]) -> float | None:
    begun = [batch.submitted_at for batch in batches if batch.submitted_at]
    ended = [batch.ended_at for batch in batches if batch.ended_at]
    return round((max(ended) - min(begun)).total_seconds() / 3600, 4) if begun and ended else None


def _batches(batches: list[BatchInfo]) -> dg.JsonMetadataValue:
    shown = [
        {"batch": batch.provider_batch_id, "state": batch.state, "rows": batch.items}
        for batch in batches[:MAX_BATCHES_SHOWN]
    ]
    return dg.JsonMetadataValue(shown)
