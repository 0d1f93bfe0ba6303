"""Bringing a cancelled run to its end.

Law: cancel is final and reaches the provider; answers that were already made are still collected and kept.
"""

from __future__ import annotations

from contextlib import suppress

from batchor_engine.core.records import BatchRecord, Lease, RunRecord
from batchor_engine.errors import ApiKeyMissingError, ProviderError
from batchor_engine.runtime.host import Host
from batchor_engine.runtime.segments import failed_row, write_segment
from batchor_engine.runtime.sidecar import with_metadata

CANCELLED = "run_cancelled"
_MESSAGE = "the run was cancelled before this row was answered"
_CHUNK = 50_000


def ask_provider(host: Host, run: RunRecord, lease: Lease, batch: BatchRecord) -> None:
    """Ask for the cancellation of one batch, once; without a key, or when it fails, the next cycle asks."""
    with suppress(ProviderError, ApiKeyMissingError):
        host.provider_of(run).cancel_batch(str(batch.provider_batch_id))
        host.store.note_batch(batch, lease, cancel_asked_at=host.clock)


def finish_cancel(host: Host, run: RunRecord, lease: Lease) -> None:
    """Once no batch is alive: fail every open row, in chunks, then give up the rest of the source."""
    if run.live_batches:
        return
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
