"""A run's record as the values a user reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from html import escape
from types import MappingProxyType

from batchor_engine.core.records import BatchRecord, RunRecord
from batchor_engine.core.text import counted
from batchor_engine.models import BatchInfo, JSONObject, RunSummary
from batchor_engine.states import ItemStatus, RunControlState


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
        active_batches=run.live_batches - run.unsent_batches,
        backoff_remaining_sec=max(0.0, run.backoff.until - now),
        control_reason=run.control_reason,
    )


def summary_payload(summary: RunSummary) -> JSONObject:
    """A summary as JSON, with the states' names as keys."""
    payload = asdict(summary)
    return {**payload, "status_counts": {status.value: count for status, count in summary.status_counts.items()}}


def sentence(summary: RunSummary, there: int = 0, failures: Mapping[str, int] = MappingProxyType({})) -> str:
    """One line about a run; `there` counts answers that the provider has and we have not collected."""
    parts = [f"{summary.completed_items} of {summary.total_items} rows done"]
    if summary.failed_items:
        why = ", ".join(f"{count} {name}" for name, count in sorted(failures.items()))
        parts.append(f"{summary.failed_items} failed" + (f" ({why})" if why else ""))
    if summary.active_batches:
        parts.append(
            f"{counted(summary.active_batches, 'batch')} at the provider" + (f" ({there} answered)" if there else "")
        )
    if summary.backoff_remaining_sec:
        parts.append(f"next submission in {summary.backoff_remaining_sec:.0f} s")
    if summary.control_state is not RunControlState.RUNNING:
        parts.append(" ".join(filter(None, [summary.control_state.value.replace("_", " "), _reason(summary)])))
    return f"{summary.run_id}: {', '.join(parts)}"


def _reason(summary: RunSummary) -> str:
    return f"({summary.control_reason})" if summary.control_reason else ""


def summary_html(summary: RunSummary) -> str:
    """A summary as a notebook shows it: the sentence and a bar. Everything is escaped; nothing is loaded."""
    done, failed, total = summary.completed_items, summary.failed_items, max(summary.total_items, 1)
    bar = "".join(
        f'<span style="display:inline-block;height:0.7em;width:{count / total:.2%};background:{colour}"></span>'
        for count, colour in ((done, "#2e7d32"), (failed, "#c62828"))
    )
    head = f"<b>{escape(summary.status.value.replace('_', ' '))}</b> {escape(sentence(summary))}"
    return f'<div>{head}<div style="width:24em;line-height:0;background:#8884">{bar}</div></div>'


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
