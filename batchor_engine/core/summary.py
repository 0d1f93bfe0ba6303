"""A run's record as the values a user reads."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime

from batchor_engine.core.records import BatchRecord, RunRecord
from batchor_engine.models import BatchInfo, JSONObject, RunSummary
from batchor_engine.states import ItemStatus


def summarize(run: RunRecord, now: float) -> RunSummary:
    """Counts of a run at `now` (epoch seconds), which only the remaining back-off depends on."""
    return RunSummary(
        run_id=run.run_id,
        status=run.status,
        control_state=run.control,
        total_items=run.total_items,
        completed_items=run.counts[ItemStatus.COMPLETED],
        failed_items=run.counts[ItemStatus.FAILED_PERMANENT],
        status_counts={status: count for status, count in run.counts.items() if count},
        active_batches=run.live_batches,
        backoff_remaining_sec=max(0.0, run.backoff.until - now),
        control_reason=run.control_reason,
    )


def summary_payload(summary: RunSummary) -> JSONObject:
    """A summary as JSON, with the states' names as keys."""
    payload = asdict(summary)
    return {**payload, "status_counts": {status.value: count for status, count in summary.status_counts.items()}}


def batch_info(batch: BatchRecord) -> BatchInfo:
    return BatchInfo(
        batch_id=batch.pk,
        state=batch.state.value,
        provider_batch_id=batch.provider_batch_id,
        remote_status=batch.remote_status,
        items=batch.items,
        remote_completed=batch.remote_completed,
        remote_failed=batch.remote_failed,
        submitted_at=as_time(batch.submitted_at),
        ended_at=as_time(batch.ended_at),
        tokens=batch.tokens,
    )


def as_time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
