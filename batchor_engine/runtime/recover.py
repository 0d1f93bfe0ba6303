"""Batches that a crash, a lost answer or a dead owner left between intent and certainty.

Law: a batch that may exist at the provider is looked for there, by our intent id, before anything is sent again; only
a client of the same account may say that it is not there. The store itself may be a restored backup, so that holds for
batches of which it knows nothing to have been sent, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from batchor_engine.core.identity import INTENT_KEY
from batchor_engine.core.records import BatchRecord
from batchor_engine.core.types import BatchRemoteRecord
from batchor_engine.errors import ApiKeyMissingError, ProviderError, ProviderErrorKind
from batchor_engine.runtime.submit import (
    Submission,
    confirm,
    create,
    delete_orphan_files,
    hold_back,
    is_running,
    submit,
    upload,
)
from batchor_engine.states import BATCH_UNSETTLED, BatchState

# How far our clock, or that of the process that sent a batch, may differ from the provider's: a time zone, a day.
_CLOCK_SKEW_SEC = 2 * 86_400.0
# How many pages of a hundred batches are read to find one.
_MAX_PAGES = 50
_NOT_UPLOADED = frozenset({BatchState.PLANNED, BatchState.INTENDED})
# The key or the URL is wrong, and nothing of these batches can be away: waiting in silence would help nobody.
_NEEDS_A_PERSON = frozenset({ProviderErrorKind.AUTH, ProviderErrorKind.NOT_FOUND})


def recover(work: Submission) -> None:
    """Settle every batch of the run that is neither planned away nor surely at the provider."""
    batches = work.store.batches(run_pk=work.run.pk, states=BATCH_UNSETTLED)
    listing = _Listing(work, batches)
    for batch in batches:
        # Somebody may have paused or cancelled the run while a batch before this one was on its way.
        if not is_running(work):
            return
        try:
            _recover_one(work, batch, listing)
        except ProviderError as error:
            if batch.state in _NOT_UPLOADED and error.kind in _NEEDS_A_PERSON:
                raise
            hold_back(work, error)


def _recover_one(work: Submission, batch: BatchRecord, listing: _Listing) -> None:
    if batch.account != work.provider.account_label:
        # Where no create was begun nothing of it is at the other account, save perhaps a file.
        if batch.create_at is None:
            work.store.release_batch(batch, work.lease, BatchState.ABANDONED, backoff=None)
    elif batch.create_at is not None:
        _reconcile(work, batch, listing, again=_create)
    elif _is_due(work) and not _adopt(work, batch, listing.of(batch)):
        _go_on(work, batch)


def _go_on(work: Submission, batch: BatchRecord) -> None:
    """Do what comes next for a batch of which no create was begun."""
    match batch.state:
        case BatchState.PLANNED:
            submit(work, batch)
        case BatchState.INTENDED:
            # create() needs a stored upload, so only a file can have been left behind.
            delete_orphan_files(work, batch)
            upload(work, batch)
        case _:
            _create(work, batch)


def _create(work: Submission, batch: BatchRecord) -> None:
    if is_running(work):
        create(work, batch)


def _is_due(work: Submission) -> bool:
    run = work.store.run(work.run.run_id)
    return run is not None and run.backoff.until <= work.host.clock


def _reconcile(
    work: Submission, batch: BatchRecord, listing: _Listing, *, again: Callable[[Submission, BatchRecord], object]
) -> None:
    """Adopt what exists; where nothing does, go on with `again` once no call of ours can still arrive."""
    if not work.provider.lists_batches:
        work.store.move_batch(batch, work.lease, BatchState.INDETERMINATE)
        return
    if _adopt(work, batch, listing.of(batch)):
        return
    if listing.read_at < (batch.create_at or 0.0) + create_timeout_sec(work) + work.host.late_call_margin_sec:
        return
    if listing.is_whole:
        again(work, batch)
    else:
        # It may be on a page that was not read: somebody has to look.
        work.store.move_batch(batch, work.lease, BatchState.INDETERMINATE)


def _adopt(work: Submission, batch: BatchRecord, found: list[BatchRemoteRecord]) -> bool:
    """Keep the oldest of the remote batches of this intent, given newest first; cancel its twins. False for none."""
    if not found:
        return False
    keep, twins = found[-1], found[:-1]
    for twin in twins:
        work.provider.cancel_batch(str(twin["id"]))
    if batch.state is BatchState.PLANNED:
        work.store.move_batch(batch, work.lease, BatchState.INTENDED)
        batch = replace(batch, state=BatchState.INTENDED)
    if batch.state is BatchState.INTENDED:
        work.store.move_batch(batch, work.lease, BatchState.UPLOADED, input_file_id=keep.get("input_file_id"))
        batch = replace(batch, state=BatchState.UPLOADED)
    confirm(work, batch, str(keep["id"]), str(keep.get("status") or "validating"))
    return True


def settle_for_cancel(work: Submission) -> None:
    """Take back what never reached the provider, and find out about what may have."""
    batches = work.store.batches(run_pk=work.run.pk, states=BATCH_UNSETTLED)
    listing = _Listing(work, batches)
    for batch in batches:
        if batch.create_at is None:
            _take_back(work, batch)
        elif batch.account == work.provider.account_label:
            with suppress(ProviderError, ApiKeyMissingError):
                _reconcile(work, batch, listing, again=_take_back)


def _take_back(work: Submission, batch: BatchRecord) -> None:
    released = work.store.release_batch(batch, work.lease, BatchState.ABANDONED, backoff=None)
    if released and batch.input_file_id:
        work.provider.delete_input_file(batch.input_file_id)
    elif released and batch.state is BatchState.INTENDED:
        delete_orphan_files(work, batch)


def create_timeout_sec(work: Submission) -> float:
    """How long one create call may take, as far as the config says."""
    config = work.host.connection.apply(work.host.config_of(work.run))
    return float(getattr(config, "request_timeout_sec", 0.0))


class _Listing:
    """Remote batches by the intent that they carry, read once, when first asked for.

    `is_whole` says that no page is left that could hold one of `wanted`.
    """

    def __init__(self, work: Submission, wanted: Sequence[BatchRecord]) -> None:
        self._work = work
        self._oldest = min((one.created_at for one in wanted), default=0.0) - _CLOCK_SKEW_SEC
        self._found: dict[str, list[BatchRemoteRecord]] | None = None
        self.read_at = 0.0
        self.is_whole = False

    def of(self, batch: BatchRecord) -> list[BatchRemoteRecord]:
        """Those of a batch, newest first; none where the provider cannot list."""
        if self._found is None and self._work.provider.lists_batches:
            # What is created from now on may be missing.
            self.read_at = self._work.host.clock
            self._found = self._read()
        return (self._found or {}).get(batch.intent_id, [])

    def _read(self) -> dict[str, list[BatchRemoteRecord]]:
        found: dict[str, list[BatchRemoteRecord]] = {}
        after: str | None = None
        for _ in range(_MAX_PAGES):
            page = self._work.provider.list_batches(after=after, limit=100)
            for record in page.records:
                if intent := (record.get("metadata") or {}).get(INTENT_KEY):
                    found.setdefault(intent, []).append(record)
            last = page.records[-1].get("created_at") if page.records else None
            if page.next_after is None or (last is not None and last < self._oldest):
                self.is_whole = True
                break
            after = page.next_after
        return found
