"""The token budget that all runs of one account and model share.

Law: what is reserved is a maintained sum. It is taken with the claim and given back once: when the provider ends the
batch, when it is proved that the provider never had it, or when it has run out: soon for a batch that is being sent,
later than any batch can be for one that the provider has.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import ColumnElement, Connection, delete, func, select, update

from batchor_engine.core.budget import WAITER_SEC, Claimant, may_take
from batchor_engine.core.records import BatchRecord, NewBatch, RunRecord, ScopeRecord
from batchor_engine.states import BATCH_HOLDS_BUDGET, RunControlState
from batchor_engine.storage.locks import lock_batches, lock_scope
from batchor_engine.storage.reads import select_runs
from batchor_engine.storage.rows import run_record
from batchor_engine.storage.schema import batches, runs, scope_waiters, scopes

# A waiting run's place is refreshed no more often than this, so that waiting hardly writes.
_REFRESH_SEC = 30.0


def reserve(connection: Connection, run_pk: int, new: NewBatch, now: float) -> bool:
    """Take a new batch's tokens from its scope's budget, if they fit and it is this run's turn."""
    reserved = lock_scope(connection, new.scope).reserved - _expire(connection, new.scope, now)
    if new.budget is not None and not _is_its_turn(connection, run_pk, new, reserved, new.budget, now):
        _wait(connection, new.scope, run_pk, now)
        return False
    _leave_queue(connection, run_pk)
    connection.execute(update(scopes).where(scopes.c.name == new.scope).values(reserved=scopes.c.reserved + new.tokens))
    return True


def give_back(connection: Connection, batch_pk: int) -> bool:
    """Return a batch's tokens to its locked scope; False when that was done before."""
    row = connection.execute(
        update(batches)
        .where(batches.c.id == batch_pk, batches.c.reserve_until > 0)
        .values(reserve_until=0.0)
        .returning(batches.c.scope, batches.c.tokens)
    ).one_or_none()
    if row is not None:
        connection.execute(
            update(scopes).where(scopes.c.name == row.scope).values(reserved=scopes.c.reserved - row.tokens)
        )
    return row is not None


def hold(connection: Connection, batch: BatchRecord, until: float) -> None:
    """Keep a batch's tokens, whose scope is locked; were they given back, they are taken again, fit or not."""
    mine = update(batches).where(batches.c.id == batch.pk).values(reserve_until=until)
    if connection.execute(mine.where(batches.c.reserve_until > 0)).rowcount:
        return
    connection.execute(mine)
    taken = {"reserved": scopes.c.reserved + batch.tokens}
    connection.execute(update(scopes).where(scopes.c.name == batch.scope).values(taken))


def find(connection: Connection, name: str, now: float) -> ScopeRecord:
    lapsed = select(func.coalesce(func.sum(batches.c.tokens), 0)).where(*_has_lapsed(name, now)).scalar_subquery()
    row = connection.execute(select(scopes, lapsed.label("lapsed")).where(scopes.c.name == name)).one_or_none()
    if row is None:
        return ScopeRecord(name, 0, None)
    return ScopeRecord(row.name, row.reserved, row.learned_limit, row.scale, int(row.lapsed))


def all_scopes(connection: Connection) -> list[ScopeRecord]:
    found = connection.execute(select(scopes).order_by(scopes.c.name))
    return [ScopeRecord(row.name, row.reserved, row.learned_limit, row.scale) for row in found]


def recount(connection: Connection, name: str) -> bool:
    """What is reserved is what batches hold that the provider may still have; True if it was not."""
    before = lock_scope(connection, name).reserved
    holding = batches.c.state.in_([state.value for state in BATCH_HOLDS_BUDGET])
    mine = (batches.c.scope == name, batches.c.reserve_until > 0)
    stale = connection.execute(select(batches.c.id).where(*mine, ~holding)).scalars().all()
    lock_batches(connection, stale)
    connection.execute(batches.update().where(batches.c.id.in_(stale)).values(reserve_until=0.0))
    held = connection.execute(select(func.coalesce(func.sum(batches.c.tokens), 0)).where(*mine)).scalar_one()
    connection.execute(update(scopes).where(scopes.c.name == name).values(reserved=int(held)))
    return int(held) != before


def learn(connection: Connection, scope: ScopeRecord, known: ScopeRecord | None) -> bool:
    """Store what was learned about a scope's limit; the reservation is not touched. False where `known` is not so."""
    stored = lock_scope(connection, scope.name)
    if known is not None and (stored.learned_limit, stored.scale) != (known.learned_limit, known.scale):
        return False
    connection.execute(
        update(scopes).where(scopes.c.name == scope.name).values(learned_limit=scope.learned_limit, scale=scope.scale)
    )
    return True


def keep_places(connection: Connection, run_pks: Collection[int], now: float) -> None:
    """These runs are looked after: a place that they still have in a queue stays theirs."""
    seen = scope_waiters.c.seen_at
    late = (scope_waiters.c.run.in_(run_pks), seen < now - _REFRESH_SEC, seen > now - WAITER_SEC)
    # A place that is locked is being looked after.
    query = select(scope_waiters.c.scope, scope_waiters.c.run).where(*late).with_for_update(skip_locked=True)
    for row in connection.execute(query).all():
        mine = (scope_waiters.c.scope == row.scope, scope_waiters.c.run == row.run)
        connection.execute(update(scope_waiters).where(*mine).values(seen_at=now))


def waiting_runs(connection: Connection, now: float) -> list[RunRecord]:
    """Runs that were refused budget, however long ago, and have rows that they could send now."""
    query = select_runs().where(runs.c.id.in_(select(scope_waiters.c.run)), *_could_send(now)).order_by(runs.c.id)
    return [run_record(row) for row in connection.execute(query)]


def _could_send(now: float) -> tuple[ColumnElement[bool], ...]:
    """A run that is paused, cancelled, over or backing off keeps nobody from his turn."""
    running = runs.c.control == RunControlState.RUNNING.value
    return running, runs.c.n_pending > 0, runs.c.backoff_until <= now


def _is_its_turn(connection: Connection, run_pk: int, new: NewBatch, reserved: int, budget: int, now: float) -> bool:
    alive = select(runs.c.id).where(*_could_send(now))
    queue = {
        row.run: row.since
        for row in connection.execute(
            select(scope_waiters).where(
                scope_waiters.c.scope == new.scope,
                scope_waiters.c.seen_at > now - WAITER_SEC,
                scope_waiters.c.run.in_(alive),
            )
        )
    }
    held = _held(connection, new.scope) if queue else {}
    me = Claimant(held.get(run_pk, 0), queue.pop(run_pk, now))
    waiting = [Claimant(held.get(run, 0), since) for run, since in queue.items()]
    return may_take(new.tokens, reserved=reserved, budget=budget, me=me, waiting=waiting)


def _held(connection: Connection, name: str) -> dict[int, int]:
    query = (
        select(batches.c.run, func.sum(batches.c.tokens))
        .where(batches.c.scope == name, batches.c.reserve_until > 0)
        .group_by(batches.c.run)
    )
    return {run: int(tokens) for run, tokens in connection.execute(query)}


def _expire(connection: Connection, name: str, now: float) -> int:
    """Give back reservations that no batch can still need; how many tokens."""
    query = select(batches.c.id, batches.c.tokens).where(*_has_lapsed(name, now)).order_by(batches.c.id)
    stale = list(connection.execute(query))
    return sum(tokens for batch_pk, tokens in stale if give_back(connection, batch_pk))


def _has_lapsed(name: str, now: float) -> tuple[ColumnElement[bool], ...]:
    return batches.c.scope == name, batches.c.reserve_until > 0, batches.c.reserve_until < now


def _wait(connection: Connection, name: str, run_pk: int, now: float) -> None:
    mine = (scope_waiters.c.scope == name, scope_waiters.c.run == run_pk)
    seen = connection.execute(select(scope_waiters.c.seen_at).where(*mine)).scalar_one_or_none()
    if seen is None:
        connection.execute(scope_waiters.insert().values(scope=name, run=run_pk, since=now, seen_at=now))
    elif seen < now - WAITER_SEC:
        connection.execute(update(scope_waiters).where(*mine).values(since=now, seen_at=now))
    elif seen < now - _REFRESH_SEC:
        connection.execute(update(scope_waiters).where(*mine).values(seen_at=now))


def _leave_queue(connection: Connection, run_pk: int) -> None:
    """In every scope: a run may have waited in another one, under another account, before."""
    connection.execute(delete(scope_waiters).where(scope_waiters.c.run == run_pk))
