"""Batches that a crash, a lost answer or a dead owner left between intent and certainty.

Law: a batch that may exist at the provider is looked for there, by our intent id, before anything is sent again; only
a client of the same account may say that it is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

from batchor_engine.core.identity import INTENT_KEY
from batchor_engine.core.records import BatchRecord
from batchor_engine.core.types import BatchRemoteRecord
from batchor_engine.errors import ApiKeyMissingError, ProviderError
from batchor_engine.runtime.submit import Submission, confirm, create, delete_orphan_files, hold_back, submit, upload
from batchor_engine.states import BATCH_UNSETTLED, BatchState

# How far our clock and the provider's may differ when old pages are skipped.
_CLOCK_SKEW_SEC = 3600.0
_NOT_UPLOADED = frozenset({BatchState.PLANNED, BatchState.INTENDED})


def recover(work: Submission) -> None:
    """Settle every batch of the run that is neither planned away nor surely at the provider."""
    for batch in work.store.batches(run_pk=work.run.pk, states=BATCH_UNSETTLED):
        if batch.account != work.provider.account_label and batch.state is not BatchState.PLANNED:
            continue
        try:
            _recover_one(work, batch)
        except ProviderError as error:
            if batch.state in _NOT_UPLOADED:
                # Its rows are put back already, and what is wrong (the key, the URL) needs a person.
                raise
            hold_back(work, error)


def _recover_one(work: Submission, batch: BatchRecord) -> None:
    match batch.state:
        case BatchState.PLANNED:
            _restart(work, batch)
        case BatchState.INTENDED:
            # create() needs a stored upload, so only a file can have been left behind.
            delete_orphan_files(work, batch)
            if _is_due(work):
                upload(work, batch)
        case _ if batch.create_at is None:
            if _is_due(work):
                create(work, batch)
        case _:
            _reconcile(work, batch, again=create)


def _restart(work: Submission, batch: BatchRecord) -> None:
    if batch.account != work.provider.account_label:
        work.store.release_batch(batch, work.lease, BatchState.ABANDONED, backoff=None)
    elif _is_due(work):
        submit(work, batch)


def _is_due(work: Submission) -> bool:
    run = work.store.run(work.run.run_id)
    return run is not None and run.backoff.until <= work.host.clock


def _reconcile(work: Submission, batch: BatchRecord, *, again: Callable[[Submission, BatchRecord], object]) -> None:
    """Adopt what exists; where nothing does, go on with `again` once no call of ours can still arrive."""
    if not work.provider.lists_batches:
        work.store.move_batch(batch, work.lease, BatchState.INDETERMINATE)
        return
    found = list(_ours(work, batch))
    if found:
        # Newest first: the oldest one is kept, a twin made by a late call is cancelled.
        keep = found.pop()
        for twin in found:
            work.provider.cancel_batch(str(twin["id"]))
        confirm(work, batch, str(keep["id"]), str(keep.get("status") or "validating"))
        return
    if work.host.clock < (batch.create_at or 0.0) + create_timeout_sec(work) + work.host.late_call_margin_sec:
        return
    again(work, batch)


def settle_for_cancel(work: Submission) -> None:
    """Take back what never reached the provider, and find out about what may have."""
    for batch in work.store.batches(run_pk=work.run.pk, states=BATCH_UNSETTLED):
        if batch.create_at is None:
            _take_back(work, batch)
        elif batch.account == work.provider.account_label:
            with suppress(ProviderError, ApiKeyMissingError):
                _reconcile(work, batch, again=_take_back)


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


def _ours(work: Submission, batch: BatchRecord) -> Iterator[BatchRemoteRecord]:
    """Remote batches that carry this intent, among those that are not older than it."""
    oldest = (batch.create_at or batch.created_at) - _CLOCK_SKEW_SEC
    after: str | None = None
    while True:
        page = work.provider.list_batches(after=after, limit=100)
        for record in page.records:
            if (record.get("metadata") or {}).get(INTENT_KEY) == batch.intent_id:
                yield record
        ages = [record.get("created_at") for record in page.records]
        if page.next_after is None or (ages and ages[-1] is not None and ages[-1] < oldest):
            return
        after = page.next_after
