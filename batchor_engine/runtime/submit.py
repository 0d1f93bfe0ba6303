"""Pending rows → a batch at the provider.

Law: the intent commits before anything leaves this machine, and `create` begins only after a commit that says so. A
lost answer is looked up, never repeated blindly (recover.py).
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from batchor_engine.core.backoff import CONTROL_PLANE_CLASS, CONTROL_PLANE_TRANSIENT, after_creation, after_failure
from batchor_engine.core.budget import SENDING_SEC, Allowance, allowance, scope_name
from batchor_engine.core.identity import input_file_name, remote_metadata
from batchor_engine.core.packing import Packed, PackLimits, is_dense, pack_rows, part_load, whole_rest
from batchor_engine.core.records import Backoff, BatchRecord, ItemRow, Lease, NewBatch, PartRecord, RunRecord
from batchor_engine.errors import ApiKeyMissingError, LeaseLostError, ProviderError, ProviderErrorKind
from batchor_engine.models import BudgetInfo
from batchor_engine.ports.providers import BatchProvider
from batchor_engine.ports.state import StateStore, iter_items
from batchor_engine.runtime.host import Host, RunPolicies, pause_for, policies_of
from batchor_engine.runtime.refusals import Refusal, last_word
from batchor_engine.runtime.segments import failed_row, unless_refused, write_segment
from batchor_engine.runtime.sidecar import with_metadata
from batchor_engine.runtime.staging import staged
from batchor_engine.runtime.twins import cancel_twins
from batchor_engine.states import BatchState, ItemStatus, RunControlState

log = logging.getLogger("batchor_engine")

_PARTS_AT_ONCE = 64
# How often an uploaded file may still be unknown before that counts as a refusal.
FILE_VISIBLE_TRIES = 5
# Failed control-plane calls in a row (about eight hours at the default delays) after which the run pauses itself.
MAX_CONTROL_FAILURES = 100
# A database that was away for a moment may hold an answer back for a minute.
_LONGEST_NOTE_SEC = 10.0


@dataclass(frozen=True)
class Submission:
    """What submitting needs: the run as last read, its lease, its provider."""

    host: Host
    run: RunRecord
    lease: Lease
    provider: BatchProvider
    policies: RunPolicies

    @property
    def store(self) -> StateStore:
        return self.host.store


def submission(host: Host, run: RunRecord, lease: Lease) -> Submission:
    return Submission(host, run, lease, host.provider_of(run), policies_of(run))


def next_intent(work: Submission, *, partial: bool, stop: Callable[[], bool]) -> BatchRecord | None:
    """Claim the next batch and record its intent; None while rows, budget, back-off or control allow none.

    With `partial` False only full batches go, so that slices of a slow source do not make small ones.
    """
    refused: Refusal | None = None
    while not stop() and _may_submit(work):
        packed = plan_batch(work, partial=partial, refused=refused)
        if refused is None and (refused := _refused_before(work, packed)) is not None:
            continue
        if not packed.oversize:
            batch = _claim(work, packed) if packed.ranges else None
            return None if batch is None else _intend(work, batch)
        _fail_oversize(work, packed, refused)
    return None


def _may_submit(work: Submission) -> bool:
    run = work.store.run(work.run.run_id)
    return run is not None and could_send(run, work.host.clock)


def could_send(run: RunRecord, now: float) -> bool:
    """Whether a run has rows to send, and neither its control nor its back-off keeps them here."""
    running = run.control is RunControlState.RUNNING
    return running and run.backoff.until <= now and run.counts[ItemStatus.PENDING] > 0


def _refused_before(work: Submission, packed: Packed) -> Refusal | None:
    """The refusal by which a row that was planned alone fails; without one it is sent, whatever limit was learned."""
    learned = work.store.scope(_scope(work)).learned_limit if packed.load.items == 1 else None
    if learned is None or packed.load.tokens <= learned:
        return None
    word = last_word(work.store, work.provider, work.run.pk, work.host.clock)
    return word if word is not None and packed.load.tokens > (word.limit or 0) else None


def plan_batch(work: Submission, *, partial: bool, refused: Refusal | None = None) -> Packed:
    """Choose the next batch: rows that go again first, then fresh parts in order; empty where nothing may go."""
    limits = _limits(work, refused)
    again = pack_rows(work.store.reopened_items(work.run.pk, limit=limits.max_requests + 1), limits, fresh=False)
    if again.ranges or again.oversize:
        return again
    fresh = _pack_fresh(work, limits)
    return fresh if partial or fresh.closed or fresh.oversize else Packed()


def has_room(host: Host, run: RunRecord) -> bool:
    """Whether the budget of the run's scope could take its next batch; True without a budget."""
    # The lease is only needed to write, and this asks.
    work = Submission(host, run, Lease("", "", 0, 0.0), host.provider_of(run), policies_of(run))
    allowed = _allowance(work)
    if allowed.total is None and not allowed.is_blind:
        return True
    packed = plan_batch(work, partial=True)
    budget = allowed.budget_for(packed.load.items, packed.load.tokens) or 0
    return bool(packed.oversize) or work.store.scope(_scope(work)).in_use + packed.load.tokens <= budget


def budget_of(host: Host, run: RunRecord) -> BudgetInfo:
    """What the scope of a run may have enqueued, and has."""
    work = Submission(host, run, Lease("", "", 0, 0.0), host.provider_of(run), policies_of(run))
    name = _scope(work)
    return BudgetInfo(name, _allowance(work).total, host.store.scope(name).in_use)


def _limits(work: Submission, refused: Refusal | None) -> PackLimits:
    chunk, allowed = work.policies.chunk, _allowance(work)
    rows = chunk.max_requests
    if allowed.is_blind and (run := work.store.run(work.run.run_id)) is not None:
        rows = allowed.rows_of(rows, run.counts[ItemStatus.PENDING])
    of_a_row = [limit for limit in (allowed.per_row, refused and refused.limit) if limit is not None]
    return PackLimits(rows, chunk.max_file_bytes, allowed.per_batch, min(of_a_row, default=None))


def _allowance(work: Submission) -> Allowance:
    limits = work.host.config_of(work.run).budget_limits()
    return allowance(
        limits.effective_limit,
        limits.per_batch_limit,
        work.store.scope(_scope(work)),
        target_ratio=limits.target_ratio,
    )


def _scope(work: Submission) -> str:
    return scope_name(work.provider.account_label, work.host.config_of(work.run).scope_model())


def _pack_fresh(work: Submission, limits: PackLimits) -> Packed:
    packed = Packed()
    for part in work.store.fresh_parts(work.run.pk, limit=_PARTS_AT_ONCE):
        load = packed.load.plus(part_load(part))
        if load.within(limits) and _goes_whole(work, part):
            full = load.items == limits.max_requests
            packed = Packed((*packed.ranges, whole_rest(part)), load, full, packed.oversize)
        else:
            packed = pack_rows(_unsent(work, part), limits, packed, fresh=True)
        if packed.closed or packed.oversize:
            return packed
    return packed


def _goes_whole(work: Submission, part: PartRecord) -> bool:
    """Whether every byte that is left of a part is of a row that waits; a row that failed unsent left its line behind.

    Rows that failed at ingestion have a number and no line, so numbers alone cannot say it.
    """
    return is_dense(part) or sum(row.length for row in _unsent(work, part)) == part.left_bytes


def _unsent(work: Submission, part: PartRecord) -> Iterator[ItemRow]:
    rows = work.store.items_between(work.run.pk, part.next_index, part.last_index)
    return (row for row in rows if row.part == part.pk and row.status is ItemStatus.PENDING)


def _claim(work: Submission, packed: Packed) -> BatchRecord | None:
    """Queue the rows under a new intent; None when the budget is used up or the control has changed."""
    new = NewBatch(
        intent_id=uuid.uuid4().hex,
        account=work.provider.account_label,
        scope=_scope(work),
        ranges=packed.ranges,
        reserve_until=work.host.clock + SENDING_SEC,
        budget=_allowance(work).budget_for(packed.load.items, packed.load.tokens),
    )
    batch = work.store.claim(work.run.pk, work.lease, new)
    if batch is not None:
        work.host.emit(work.run, "items_claimed_for_submission", claimed_item_count=batch.items)
        work.host.reached("submit.claimed")
    return batch


def submit(work: Submission, batch: BatchRecord) -> bool:
    """Carry a planned batch to the provider; False when it has to wait (the reason is stored)."""
    intended = _intend(work, batch)
    return intended is not None and upload(work, intended)


def _intend(work: Submission, batch: BatchRecord) -> BatchRecord | None:
    if not work.store.move_batch(batch, work.lease, BatchState.INTENDED):
        return None
    work.host.reached("submit.intended")
    return replace(batch, state=BatchState.INTENDED)


def upload(work: Submission, batch: BatchRecord) -> bool:
    """Upload an intended batch and go on to create it."""
    return go_on(work, batch, file_to_send(work, batch))


def file_to_send(work: Submission, batch: BatchRecord) -> Callable[[], str]:
    """The upload of an intended batch, which gives the remote file's id; reads and writes no state."""
    ranges = work.store.ranges(batch.pk)
    parts = {part.pk: part for part in work.store.parts(batch.run_pk, {chunk.part for chunk in ranges})}
    artifacts, name, provider = work.host.artifacts(work.run), input_file_name(batch.intent_id), work.provider

    def send() -> str:
        with staged(artifacts, parts, ranges, name) as path:
            return provider.upload_input_file(path)

    return send


def go_on(work: Submission, batch: BatchRecord, send: Callable[[], str]) -> bool:
    """Once a batch's file is there: record it and create the batch; False when it has to wait."""
    try:
        file_id = send()
    except ProviderError as error:
        delete_orphan_files(work, batch)
        put_back(work, batch, error)
        return False
    uploaded = _record_upload(work, batch, file_id)
    return uploaded is not None and is_running(work) and create(work, uploaded, just_uploaded=True)


def keep_upload(work: Submission, batch: BatchRecord, send: Callable[[], str]) -> None:
    """Record the file of a batch that may not be created now; recover.py goes on with it."""
    with suppress(ProviderError):
        _record_upload(work, batch, send())


def _record_upload(work: Submission, batch: BatchRecord, file_id: str) -> BatchRecord | None:
    work.host.reached("submit.uploaded")
    if not work.store.move_batch(batch, work.lease, BatchState.UPLOADED, input_file_id=file_id):
        return None
    return replace(batch, state=BatchState.UPLOADED, input_file_id=file_id)


def is_running(work: Submission) -> bool:
    """Whether nobody has paused or cancelled the run, as it stands now."""
    run = work.store.run(work.run.run_id)
    return run is not None and run.control is RunControlState.RUNNING


def create(work: Submission, batch: BatchRecord, *, just_uploaded: bool = False) -> bool:
    """Create the remote batch of an uploaded file. The note before the call also proves that we still own the run."""
    begun = float("-inf")
    # Who takes over counts from the note; of one that took long, the call would come when nobody expects it any more.
    while work.host.clock - begun >= _LONGEST_NOTE_SEC:
        begun = work.host.clock
        work.store.note_batch(batch, work.lease, create_at=begun)
    batch = replace(batch, create_at=begun)
    work.host.reached("submit.create_noted")
    metadata = remote_metadata(work.run.run_id, batch.intent_id, work.policies.batch_metadata)
    try:
        remote = work.provider.create_batch(input_file_id=batch.input_file_id or "", metadata=metadata)
    except ProviderError as error:
        _create_failed(work, batch, error, just_uploaded=just_uploaded)
        return False
    work.host.reached("submit.created")
    try:
        landed = confirm(work, batch, str(remote["id"]), str(remote.get("status") or "validating"))
    except LeaseLostError:
        # We slept past our lease with the call on its way. If its new owner made a batch of its own, ours is a twin.
        cancel_twins(work.host, work.provider, [remote])
        raise
    if not landed:
        cancel_twins(work.host, work.provider, [remote])
    return landed


def confirm(work: Submission, batch: BatchRecord, provider_batch_id: str, status: str) -> bool:
    """Record that the provider has the batch."""
    if not work.store.confirm_submitted(batch, work.lease, provider_batch_id=provider_batch_id, status=status):
        return False
    run = work.store.run(work.run.run_id)
    if run is not None and (backoff := after_creation(run.backoff)) != run.backoff:
        work.store.set_backoff(work.run.pk, work.lease, backoff)
    log.info("submitted run=%s batch=%s items=%d", batch.run_id, provider_batch_id, batch.items)
    work.host.emit(
        work.run,
        "batch_submitted",
        provider_batch_id=provider_batch_id,
        submitted_item_count=batch.items,
        submission_tokens=batch.tokens,
    )
    return True


def _create_failed(work: Submission, batch: BatchRecord, error: ProviderError, *, just_uploaded: bool) -> None:
    if error.kind is ProviderErrorKind.AMBIGUOUS:
        # The batch may exist and cost money: only recover.py may decide that it does not.
        hold_back(work, error)
        return
    may_appear = just_uploaded or _backoff(work).consecutive < FILE_VISIBLE_TRIES
    if error.kind is ProviderErrorKind.FILE_PENDING or (error.kind is ProviderErrorKind.NOT_FOUND and may_appear):
        # A file just uploaded may be unknown to other servers of the provider for some seconds, or be looked through
        # for some minutes, which another upload would only begin anew.
        work.store.note_batch(batch, work.lease, create_at=None)
        hold_back(work, error)
        return
    put_back(work, batch, error)


def put_back(work: Submission, batch: BatchRecord, error: ProviderError) -> None:
    """A definite no: rows are pending again, the uploaded file goes, and the kind of no decides what follows."""
    waits = next_backoff(work, error)
    if not work.store.release_batch(batch, work.lease, BatchState.REJECTED, backoff=waits):
        return
    work.host.emit(work.run, "batch_submit_retry", error_class=_class_of(error), message=error.message)
    if batch.input_file_id:
        work.provider.delete_input_file(batch.input_file_id)
    match error.kind:
        case ProviderErrorKind.QUOTA | ProviderErrorKind.FILE_STORAGE:
            pause_for(work.host, work.run, _class_of(error), phase="submit")
        case ProviderErrorKind.REJECTED:
            _fail_batch_rows(work, batch, error)
        case ProviderErrorKind.AUTH:
            raise error
        case ProviderErrorKind.NOT_FOUND if not batch.input_file_id:
            # An upload names no file that could become visible: the URL is wrong, and waiting would not mend it.
            raise error
        case _:
            _pause_at_cap(work, waits)


def _fail_batch_rows(work: Submission, batch: BatchRecord, error: ProviderError) -> None:
    """The provider refuses this batch whatever we do, so its rows fail now instead of circling."""
    members = iter_items(work.store, work.run.pk, work.store.ranges(batch.pk), batch.pk)
    rows = sorted((row for row in members if row.status is ItemStatus.PENDING), key=lambda row: row.item_index)
    _fail(work, rows, "batch_error", f"the provider refused the batch: {error.message}")


def _fail_oversize(work: Submission, packed: Packed, refused: Refusal | None) -> None:
    """Rows above a limit that the job or the provider named fail alone; the others go on."""
    limit = _limits(work, refused).max_row_tokens
    configured = work.host.config_of(work.run).budget_limits()
    batch_cap = limit == configured.per_batch_limit != configured.effective_limit
    error_class = f"openai_request_exceeds_{'batch' if batch_cap else 'inflight'}_token_limit"
    said = "" if refused is None or refused.limit != limit else f"; the provider said: {refused.message}"
    _fail(work, list(packed.oversize), error_class, f"the request has more tokens than the limit of {limit}{said}")


def _fail(work: Submission, rows: list[ItemRow], error_class: str, message: str) -> None:
    artifacts = work.host.artifacts(work.run)
    parts = work.store.parts(work.run.pk, {row.part for row in rows if row.part is not None})
    final = (
        failed_row(row, error_class=error_class, message=message, metadata_json=metadata)
        for row, metadata in with_metadata(artifacts, parts, iter(rows))
    )
    segment = write_segment(artifacts, work.run.run_id, final)
    with unless_refused(artifacts, segment.key):
        failed = work.store.fail_open_items(work.run.pk, work.lease, [row.item_index for row in rows], segment)
    work.host.emit(work.run, "items_failed", failed_item_count=failed, error_class_counts={error_class: failed})


def hold_back(work: Submission, error: ProviderError) -> None:
    """Nothing moves; the run waits before it tries again."""
    waits = next_backoff(work, error)
    work.store.set_backoff(work.run.pk, work.lease, waits)
    work.host.emit(work.run, "batch_submit_retry", error_class=_class_of(error), message=error.message)
    _pause_at_cap(work, waits)


def _pause_at_cap(work: Submission, waits: Backoff) -> None:
    """A provider that has said no this often is somebody's business: the run waits for a person, and loses nothing."""
    if waits.consecutive >= MAX_CONTROL_FAILURES:
        pause_for(work.host, work.run, str(waits.error_class), phase="submit")


def next_backoff(work: Submission, error: ProviderError) -> Backoff:
    return after_failure(_backoff(work), work.host.clock, work.policies.retry, _class_of(error), error.retry_after_sec)


def _class_of(error: ProviderError) -> str:
    return CONTROL_PLANE_CLASS.get(error.kind, CONTROL_PLANE_TRANSIENT)


def _backoff(work: Submission) -> Backoff:
    run = work.store.run(work.run.run_id)
    return run.backoff if run is not None else Backoff()


def delete_orphan_files(work: Submission, batch: BatchRecord) -> None:
    """Remove what a lost or broken upload of this intent may have left at the provider."""
    with suppress(ProviderError, ApiKeyMissingError):
        for remote in work.provider.list_input_files(name_prefix=input_file_name(batch.intent_id)):
            work.provider.delete_input_file(remote.id)
