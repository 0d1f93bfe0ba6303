"""Pause, resume, cancel: wishes that anyone may write, at any time, without a key.

Law: an error means that nothing changed. A cancel is final.
"""

from __future__ import annotations

from batchor_engine.core.records import BatchRecord, RunRecord
from batchor_engine.errors import ArtifactMissingError
from batchor_engine.runtime.advance import advance, read_run
from batchor_engine.runtime.hold import owned
from batchor_engine.runtime.host import Host
from batchor_engine.runtime.tidy import tidy
from batchor_engine.states import BatchState, ItemStatus, RunControlState


def pause(host: Host, run_id: str) -> None:
    before = read_run(host, run_id)
    after = host.store.set_control(run_id, RunControlState.PAUSED, reason="manual")
    if after.control is RunControlState.PAUSED and before.control is not after.control:
        host.emit(after, "run_paused", control_reason="manual")


def resume(host: Host, run_id: str) -> None:
    """ValueError for a cancelled run; a run that is over or running stays as it is."""
    before = read_run(host, run_id)
    if before.control is RunControlState.CANCEL_REQUESTED:
        raise ValueError(f"Run {run_id!r} is cancelled and cannot be resumed: start a new run_id for the rows.")
    after = host.store.set_control(run_id, RunControlState.RUNNING, reason=None)
    if after.control is RunControlState.RUNNING and before.control is not after.control:
        host.emit(after, "run_control_resumed")


def cancel(host: Host, run_id: str, *, drain: bool = False) -> None:
    """Record the wish, then take the first step; the rest happens with every refresh until nothing is alive.

    After a cancel with `drain` one without it stops what is still at the provider; the other way round nothing changes.
    """
    before = read_run(host, run_id)
    after = host.store.set_control(run_id, RunControlState.CANCEL_REQUESTED, reason="manual", drain=drain)
    if after.control is RunControlState.CANCEL_REQUESTED and (before.control, before.drain) != (
        after.control,
        after.drain,
    ):
        host.emit(after, "run_cancel_requested")
    if not after.is_finished:
        tidy(host, advance(host, after, lambda: False))


def retry_failed(host: Host, run_id: str) -> None:
    """Reopen the permanently failed rows that can be sent again; refused after a cancel and after a prune."""
    run = read_run(host, run_id)
    if run.control is RunControlState.CANCEL_REQUESTED:
        raise ValueError(f"Run {run_id!r} was cancelled, so its rows stay failed: start a new run_id for them.")
    if not run.counts[ItemStatus.FAILED_PERMANENT]:
        return
    with owned(host.store, run.run_id) as lease:
        _check_requests_are_there(host, run)
        moved = host.store.retry_failed(run.pk, lease)
    if moved:
        host.emit(run, "items_retried", retried_item_count=moved)


def _check_requests_are_there(host: Host, run: RunRecord) -> None:
    """A pruned request cannot be sent again; ArtifactMissingError names the file, and nothing has changed."""
    artifacts = host.artifacts(run)
    for part in host.store.parts(run.pk):
        if part.pruned_at is not None:
            raise ArtifactMissingError(part.key, artifacts.location, pruned=True)
        if not artifacts.exists(part.key):
            raise ArtifactMissingError(part.key, artifacts.location)


def resolve_as_created(
    host: Host, run_id: str, *, provider_batch_id: str, status: str = "submitted", intent_id: str | None = None
) -> None:
    """Adopt the batch that an operator found."""
    run = read_run(host, run_id)
    with owned(host.store, run.run_id) as lease:
        batch = _indeterminate(host, run, intent_id)
        host.store.confirm_submitted(batch, lease, provider_batch_id=provider_batch_id, status=status)


def resolve_as_not_created(host: Host, run_id: str, *, intent_id: str | None = None) -> None:
    """Take an operator's word that there is no such batch."""
    run = read_run(host, run_id)
    with owned(host.store, run.run_id) as lease:
        host.store.release_batch(_indeterminate(host, run, intent_id), lease, BatchState.ABANDONED, backoff=None)


def _indeterminate(host: Host, run: RunRecord, intent_id: str | None) -> BatchRecord:
    unsure = host.store.batches(run_pk=run.pk, states={BatchState.INDETERMINATE})
    found = [batch for batch in unsure if intent_id in {None, batch.intent_id}]
    if len(found) != 1:
        names = ", ".join(batch.intent_id for batch in unsure) or "none"
        wanted = "" if intent_id is None else f" with intent {intent_id}"
        raise ValueError(f"Run {run.run_id!r}: not exactly one unresolved submission{wanted} (unresolved: {names})")
    return found[0]
