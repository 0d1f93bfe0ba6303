"""Asking the provider how batches stand: few calls, no downloads, no lease.

Law: a poll error is not a verdict. What was seen is a fact and is written forward only; what was not seen stays. One
account that refuses us keeps no other from being looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import groupby
from operator import attrgetter

from batchor_engine.core.backoff import CONTROL_PLANE_TRANSIENT
from batchor_engine.core.polling import PAGE_SIZE, by_list, in_turn, is_news, max_pages, observation, status_of
from batchor_engine.core.records import AwayBatch, RunRecord
from batchor_engine.core.types import BatchRemoteRecord
from batchor_engine.errors import ProviderError, ProviderErrorKind
from batchor_engine.models import PollReport
from batchor_engine.ports.providers import BatchProvider
from batchor_engine.runtime.host import Host
from batchor_engine.runtime.submit import budget_of, could_send, has_room
from batchor_engine.runtime.twins import cancel_twins
from batchor_engine.states import RunControlState

# Batches that no list page showed are asked for one by one, this many a poll, each in its turn.
_SINGLES = 10
# What fails with these fails for every batch of the account.
_OF_ACCOUNT = frozenset({ProviderErrorKind.AUTH, ProviderErrorKind.RATE_LIMITED})
_FEW_RUNS = 5
_RUNS_A_PAGE = 500


def keep_places(host: Host) -> None:
    """Runs that wait for budget keep their places while there is no room for them.

    Once there is, they have to come for it: a run that nobody drives any more would block all others for ever.
    """
    kept = [run.pk for run in host.store.waiting_runs() if not has_room(host, run)]
    if kept:
        host.store.keep_places(kept)


def poll(
    host: Host, *, run: RunRecord | None = None, paused_too: bool = False, stop: Callable[[], bool] = lambda: False
) -> PollReport:
    """Look at the active batches of one run as just read, or of all; those of paused runs only with `paused_too`.

    The batches that hold a budget for which a run waits are looked at even where theirs is paused or has no worker.
    A key that is missing or refused, or a config that makes no client, is raised once every account was looked at.
    """
    look = _Look(host, stop)
    batches = host.store.away(None if run is None else run.pk)
    runs = _runs_of(host, {batch.run_id for batch in batches}, run)
    watched = {run_id for run_id, found in runs.items() if _is_watched(found, paused_too)}
    wanted = [batch for batch in batches if batch.run_id in watched]
    if run is not None:
        wanted += _in_the_way(host, run)
    elif left := [batch for batch in batches if batch.run_id not in watched]:
        for batch, waiting in _left_in_the_way(host, left):
            wanted.append(batch)
            # Whoever waits for the budget is of the account, and has a worker that can speak for it.
            runs[batch.run_id] = waiting
    by_account = attrgetter("account")
    for account, members in groupby(sorted(wanted, key=by_account), by_account):
        if not stop():
            of_account = list(members)
            look.at_account(account, of_account, run or runs[of_account[0].run_id])
    if look.refusal is not None:
        raise look.refusal
    return look.report()


def _runs_of(host: Host, run_ids: set[str], read: RunRecord | None) -> dict[str, RunRecord | None]:
    if read is not None:
        return {read.run_id: read}
    if len(run_ids) < _FEW_RUNS:
        return {run_id: host.store.run(run_id) for run_id in run_ids}
    # A run with a batch at the provider is not over; a thousand are read in pages, not one by one.
    found: dict[str, RunRecord | None] = dict.fromkeys(run_ids)
    before: int | None = None
    while page := host.store.runs(unfinished=True, before=before, limit=_RUNS_A_PAGE):
        found |= {run.run_id: run for run in page if run.run_id in run_ids}
        before = page[-1].pk
    return found


def _in_the_way(host: Host, run: RunRecord, away: Sequence[AwayBatch] | None = None) -> list[AwayBatch]:
    """The batches of other runs at the provider, or of `away`, that use up a budget for which this run waits."""
    if not could_send(run, host.clock) or has_room(host, run):
        return []
    scope = budget_of(host, run).scope
    if away is None:
        away = host.store.away()
    return [batch for batch in away if batch.scope == scope and batch.run_pk != run.pk]


def _left_in_the_way(host: Host, left: Sequence[AwayBatch]) -> Iterator[tuple[AwayBatch, RunRecord]]:
    """The batches among those nobody looks at that keep a run waiting for budget, and that run."""
    found: set[int] = set()
    for run in host.store.waiting_runs():
        left = [batch for batch in left if batch.pk not in found]
        for batch in _in_the_way(host, run, left) if left else ():
            found.add(batch.pk)
            yield batch, run


def _is_watched(run: RunRecord | None, paused_too: bool) -> bool:
    return run is not None and (paused_too or run.control is not RunControlState.PAUSED)


class _Look:
    """One poll in progress: what it asked, saw and could not see."""

    def __init__(self, host: Host, stop: Callable[[], bool]) -> None:
        self._host, self._stop = host, stop
        self._calls = self._seen = self._ended = 0
        self._complete = True
        self._over: set[int] = set()
        self._errors: list[str] = []
        # The first thing that only a person can mend.
        self.refusal: Exception | None = None

    def report(self) -> PollReport:
        return PollReport(self._calls, self._seen, self._ended, self._complete, tuple(self._errors))

    def at_account(self, account: str, batches: Sequence[AwayBatch], run: RunRecord | None) -> None:
        """Look at the batches of one account with the client of a run that should be of it."""
        assert run is not None
        try:
            provider = self._host.provider_of(run)
            if provider.account_label != account:
                self._miss(batches, f"this process speaks for account {provider.account_label}, not for {account}")
                return
            unseen = {str(batch.provider_batch_id): batch for batch in batches}
            if provider.lists_batches and by_list(unseen.values(), self._host.clock):
                self._by_pages(provider, unseen, {batch.intent_id: batch.provider_batch_id for batch in batches})
                self._ask_one(provider, account, batches)
            self._one_by_one(provider, account, unseen)
        except ProviderError as error:
            self._miss(batches, error.message)
            if error.kind is ProviderErrorKind.AUTH:
                self.refusal = self.refusal or error
        except (ValueError, TypeError) as error:
            # No key, or a config that this process cannot make a client of.
            self._miss(batches, str(error))
            self.refusal = self.refusal or error

    def _by_pages(self, provider: BatchProvider, unseen: dict[str, AwayBatch], away: dict[str, str | None]) -> None:
        after: str | None = None
        for _ in range(max_pages(len(unseen))):
            if not unseen or self._stop():
                return
            self._calls += 1
            page = provider.list_batches(after=after, limit=PAGE_SIZE)
            found = [(unseen.pop(remote["id"]), remote) for remote in page.records if remote["id"] in unseen]
            self._record(found)
            cancel_twins(self._host, provider, page.records, away)
            if page.next_after is None:
                return
            after = page.next_after

    def _ask_one(self, provider: BatchProvider, account: str, batches: Sequence[AwayBatch]) -> None:
        """Ask for one listed batch by its id, each in its turn: a list may lag behind, on some servers for ever."""
        active = [batch for batch in batches if batch.pk not in self._over]
        for batch in self._next(account, active, 1, listed=True):
            if (remote := self._ask(provider, batch)) is not None:
                self._write([(batch, remote)])

    def _one_by_one(self, provider: BatchProvider, account: str, unseen: dict[str, AwayBatch]) -> None:
        for batch in self._next(account, unseen.values(), _SINGLES, listed=False):
            if (remote := self._ask(provider, batch)) is not None:
                self._record([(batch, remote)])
                del unseen[str(batch.provider_batch_id)]
        self._complete = self._complete and not unseen

    def _next(self, account: str, batches: Collection[AwayBatch], count: int, *, listed: bool) -> Iterator[AwayBatch]:
        """Those whose turn it is to be asked for by id; a turn is used up also where asking fails."""
        turns, turn = self._host.asked_last, (account, listed)
        for batch in in_turn(batches, turns.get(turn), self._host.clock)[:count]:
            if self._stop():
                return
            turns[turn] = batch.pk
            yield batch

    def _ask(self, provider: BatchProvider, batch: AwayBatch) -> BatchRemoteRecord | None:
        """What the provider says of one batch; None, and the others go on, where it fails for this one alone."""
        self._calls += 1
        try:
            return provider.get_batch(str(batch.provider_batch_id))
        except ProviderError as error:
            if error.kind in _OF_ACCOUNT:
                raise
            self._miss([batch], error.message)
            return None

    def _record(self, found: list[tuple[AwayBatch, BatchRemoteRecord]]) -> None:
        self._seen += len(found)
        self._write(found)
        if not self._host.is_heard:
            return
        for batch, remote in found:
            self._host.emit(
                batch.run_id, "batch_polled", provider_batch_id=batch.provider_batch_id, status=status_of(remote)
            )

    def _write(self, found: list[tuple[AwayBatch, BatchRemoteRecord]]) -> None:
        news = [observation(batch, remote) for batch, remote in found if is_news(batch, remote)]
        self._over |= {one.batch for one in news if one.ended}
        self._ended += len(self._host.store.observe(news))

    def _miss(self, batches: Sequence[AwayBatch], why: str) -> None:
        self._complete = False
        self._errors.append(why)
        for batch in batches:
            self._host.emit(
                batch.run_id,
                "batch_poll_retry",
                provider_batch_id=batch.provider_batch_id,
                error_class=CONTROL_PLANE_TRANSIENT,
                message=why,
            )
