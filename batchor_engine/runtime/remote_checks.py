"""What the provider knows of a store's batches, against what the store knows.

Law: a batch at the provider is never touched here, because it may be paid. A remote file is deleted only when it is
ours and its batch is over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby

from batchor_engine.core.identity import INTENT_KEY, input_file_name
from batchor_engine.core.polling import LAST_WORDS
from batchor_engine.core.records import BatchRecord
from batchor_engine.core.text import counted
from batchor_engine.core.types import BatchRemoteRecord
from batchor_engine.errors import ProviderError, ProviderErrorKind
from batchor_engine.ports.providers import BatchProvider
from batchor_engine.runtime.host import Host
from batchor_engine.runtime.invariants import Diagnosis, Finding, Severity, named
from batchor_engine.states import BATCH_LIVE, BATCH_OVER, BATCH_UNSETTLED, BatchState

_PREFIX, _SUFFIX = input_file_name("").split(".")
_MAX_PAGES = 50
_MAX_SINGLES = 100
# Batches of some days ago may still matter: a window is one day, and clocks differ.
_LOOK_BACK_SEC = 3 * 24 * 3600.0
_GIVEN_UP = frozenset({BatchState.ABANDONED, BatchState.REJECTED})


@dataclass
class _Listing:
    """What of a listing concerns us: ids of our live batches, and every batch that carries an intent."""

    seen: set[str] = field(default_factory=set[str])
    marked: list[tuple[str, BatchRemoteRecord]] = field(default_factory=list[tuple[str, BatchRemoteRecord]])


def remote_diagnoses(host: Host) -> Iterator[Diagnosis]:
    """Every account that this process can speak for; the others are named."""
    batches = sorted(host.store.batches(), key=lambda one: (one.account, one.pk))
    known = {batch.intent_id: batch for batch in batches}
    for account, members in groupby(batches, key=lambda one: one.account):
        mine = list(members)
        try:
            yield from _account(host, account, mine, known)
        except (ProviderError, ValueError, TypeError) as error:
            yield Diagnosis(Finding("provider", f"account {account} was not asked: {error}", None, Severity.NOTE))


def _account(
    host: Host, account: str, mine: list[BatchRecord], known: Mapping[str, BatchRecord]
) -> Iterator[Diagnosis]:
    run = host.store.run(mine[-1].run_id)
    if run is None:
        return
    provider = host.provider(host.config_of(run))
    try:
        if provider.account_label != account:
            raise ValueError(f"this process speaks for {provider.account_label}")
        provider.check_ready()
        live = [batch for batch in mine if batch.state in BATCH_LIVE]
        listing = _listed(provider, live, host.clock)
        yield from _unknown_there(provider, live, listing)
        yield from _uncollected(listing, known)
        yield from _files(provider, known)
    finally:
        provider.close()


def _listed(provider: BatchProvider, live: list[BatchRecord], now: float) -> _Listing:
    """The newest pages, as far back as our oldest live batch."""
    listing = _Listing()
    if not provider.lists_batches:
        return listing
    oldest = min([batch.created_at for batch in live], default=now) - _LOOK_BACK_SEC
    after: str | None = None
    for _ in range(_MAX_PAGES):
        page = provider.list_batches(after=after, limit=100)
        for record in page.records:
            listing.seen.add(record["id"])
            if intent := (record.get("metadata") or {}).get(INTENT_KEY):
                listing.marked.append((intent, record))
        age = page.records[-1].get("created_at") if page.records else None
        if page.next_after is None or (age is not None and age < oldest):
            break
        after = page.next_after
    return listing


def _unknown_there(provider: BatchProvider, live: list[BatchRecord], listing: _Listing) -> Iterator[Diagnosis]:
    """Batches of ours that are away; those that no page showed are asked for one by one."""
    away = [batch for batch in live if batch.state is BatchState.SUBMITTED]
    unseen = [batch for batch in away if batch.provider_batch_id not in listing.seen]
    for batch in unseen[:_MAX_SINGLES]:
        try:
            provider.get_batch(str(batch.provider_batch_id))
        except ProviderError as error:
            if error.kind is not ProviderErrorKind.NOT_FOUND:
                raise
            message = (
                f"the provider does not know batch {batch.provider_batch_id}: check the key's project. If it is gone "
                f"for good the run cannot end by itself, and its {counted(batch.items, 'row')} may have been paid: "
                "export the results, then delete the run with force"
            )
            yield Diagnosis(Finding("remote_unknown", message, batch.run_id))


def _uncollected(listing: _Listing, known: Mapping[str, BatchRecord]) -> Iterator[Diagnosis]:
    foreign: list[str] = []
    for intent, record in listing.marked:
        batch = known.get(intent)
        if batch is None:
            foreign += [record["id"]] if _is_alive(record) else []
        elif batch.provider_batch_id != record["id"]:
            yield from _stranger(batch, record)
    if foreign:
        message = (
            f"{len(foreign)} live batches there carry the mark of batchor and are not in this store "
            f"({', '.join(foreign[:5])}): they belong to another store, or to a run that was deleted"
        )
        yield Diagnosis(Finding("remote_uncollected", message, None, Severity.NOTE))


def _stranger(batch: BatchRecord, record: BatchRemoteRecord) -> Iterator[Diagnosis]:
    """A remote batch of an intent of ours that the store knows under another id, or under none."""
    remote_id, status = record["id"], str(record.get("status"))
    if batch.state is BatchState.INDETERMINATE:
        severity = Severity.PROBLEM
        message = (
            f"batch {remote_id} is the one in doubt: `batchor resolve --run-id {batch.run_id} --created {remote_id}`"
        )
    elif batch.state in BATCH_UNSETTLED:
        severity, message = Severity.NOTE, f"batch {remote_id} exists already: the next refresh adopts it"
    elif _is_alive(record):
        severity = Severity.PROBLEM
        message = (
            f"batch {remote_id} is a second one of intent {batch.intent_id} and may be paid: cancel it at the "
            "provider. A poll does so, too, but only one that lists the account's batches, which it does for several "
            "active ones and in the first quarter of an hour of a single one"
        )
    elif batch.state in _GIVEN_UP and status == "completed":
        severity = Severity.NOTE
        message = f"batch {remote_id} was given up here and completed there: its answers are paid and nobody reads them"
    else:
        return
    yield Diagnosis(Finding("remote_uncollected", message, batch.run_id, severity))


def _is_alive(record: BatchRemoteRecord) -> bool:
    return str(record.get("status")) not in {*LAST_WORDS, "cancelling"}


def _files(provider: BatchProvider, known: Mapping[str, BatchRecord]) -> Iterator[Diagnosis]:
    """Request files at the provider that no batch uses."""
    orphans: list[str] = []
    foreign = 0
    for remote in provider.list_input_files(name_prefix=_PREFIX):
        batch = known.get(remote.filename.removeprefix(_PREFIX).removesuffix(f".{_SUFFIX}"))
        foreign += batch is None
        if batch is not None and _is_unused(batch, remote.id):
            orphans.append(remote.id)
    if orphans:
        yield Diagnosis(
            Finding("remote_file", f"no batch uses {named(orphans)} at the provider", repair="delete them there"),
            lambda: _delete(provider, orphans),
        )
    if foreign:
        theirs = counted(foreign, "request file")
        message = f"{theirs} there of another store or of deleted runs; such files expire by themselves"
        yield Diagnosis(Finding("remote_file", message, None, Severity.NOTE))


def _is_unused(batch: BatchRecord, file_id: str) -> bool:
    """Whether a file of this intent is left over; one that its collected batch used is kept by policy."""
    return batch.state in BATCH_OVER and (batch.state in _GIVEN_UP or batch.input_file_id != file_id)


def _delete(provider: BatchProvider, file_ids: list[str]) -> bool:
    for file_id in file_ids:
        provider.delete_file(file_id)
    return True
