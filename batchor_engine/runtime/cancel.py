"""Bringing a cancelled run to its end.

Law: cancel is final and reaches the provider; answers that were already made are still collected and kept.
"""

from __future__ import annotations

from contextlib import suppress

from batchor_engine.core.records import BatchRecord, Lease, RunRecord
from batchor_engine.errors import ProviderError
from batchor_engine.runtime.host import Host
from batchor_engine.runtime.recover import settle_for_cancel
from batchor_engine.runtime.segments import failed_row, write_segment
from batchor_engine.runtime.sidecar import with_metadata
from batchor_engine.runtime.submit import submission
from batchor_engine.states import BATCH_UNSETTLED, BatchState

CANCELLED = "run_cancelled"
_MESSAGE = "the run was cancelled before this row was answered"
_CHUNK = 50_000


def advance_cancel(host: Host, run: RunRecord, lease: Lease) -> None:
    """One step of a cancel: take back what was not sent, ask the provider, fail the rest once nothing is alive."""
    if host.store.batches(run_pk=run.pk, states=BATCH_UNSETTLED):
        settle_for_cancel(submission(host, run, lease))
    if not run.drain:
        _ask_provider(host, run, lease)
    current = host.store.run(run.run_id)
    if current is not None and current.live_batches == 0 and not current.is_finished:
        _finish(host, current, lease)


def _ask_provider(host: Host, run: RunRecord, lease: Lease) -> None:
    for batch in host.store.batches(run_pk=run.pk, states={BatchState.SUBMITTED}):
        if batch.cancel_asked_at is None:
            with suppress(ProviderError):
                _cancel_batch(host, run, lease, batch)


def _cancel_batch(host: Host, run: RunRecord, lease: Lease, batch: BatchRecord) -> None:
    host.provider_of(run).cancel_batch(str(batch.provider_batch_id))
    host.store.note_batch(batch, lease, cancel_asked_at=host.clock)


def _finish(host: Host, run: RunRecord, lease: Lease) -> None:
    """Fail every open row, a segment for each chunk of them, then give up the rest of the source."""
    artifacts = host.artifacts(run)
    after = -1
    while rows := host.store.open_items(run.pk, after_index=after, limit=_CHUNK):
        parts = host.store.parts(run.pk, {row.part for row in rows if row.part is not None})
        segment = write_segment(
            artifacts,
            run.run_id,
            (
                failed_row(row, error_class=CANCELLED, message=_MESSAGE, metadata_json=metadata)
                for row, metadata in with_metadata(artifacts, parts, iter(rows))
            ),
        )
        failed = host.store.fail_open_items(run.pk, lease, [row.item_index for row in rows], segment)
        host.emit(run, "items_failed", failed_item_count=failed, error_class_counts={CANCELLED: failed})
        after = rows[-1].item_index
    host.store.finish_ingest(run.pk, lease)
    host.emit(run, "run_cancelled")
