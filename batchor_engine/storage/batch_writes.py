"""Writes to batches and to the rows that travel in them.

Law: a batch leaves a state only along the table in states.py, and its rows move with it or the whole transaction fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, select

from batchor_engine.core.budget import AWAY_SEC
from batchor_engine.core.packing import spans
from batchor_engine.core.records import (
    Backoff,
    BatchRange,
    BatchRecord,
    ItemMove,
    NewBatch,
    Observation,
    Settlement,
)
from batchor_engine.models import JSONValue
from batchor_engine.states import (
    BATCH_TRANSITIONS,
    ITEM_CODES,
    ITEM_TRANSITIONS,
    BatchState,
    IllegalTransitionError,
    ItemStatus,
    RunControlState,
    check_move,
)
from batchor_engine.storage import reads, rows, scopes
from batchor_engine.storage.locks import lock_batches, lock_runs, lock_scopes
from batchor_engine.storage.run_writes import add_segment, backoff_values, bump
from batchor_engine.storage.schema import batch_ranges, batches, items, parts, runs


def claim(connection: Connection, run_pk: int, new: NewBatch, now: float) -> BatchRecord | None:
    """Reserve, queue the rows, record the batch as planned."""
    control = connection.execute(select(runs.c.control).where(runs.c.id == run_pk)).scalar_one()
    if control != RunControlState.RUNNING or not scopes.reserve(connection, run_pk, new, now):
        return None
    batch_pk = _insert_batch(connection, run_pk, new, now)
    _queue_rows(connection, run_pk, batch_pk, new.ranges)
    _advance_parts(connection, [chunk for chunk in new.ranges if chunk.fresh])
    bump(
        connection,
        run_pk,
        {ItemStatus.PENDING: -new.items, ItemStatus.QUEUED_LOCAL: new.items},
        live_batches=runs.c.live_batches + 1,
    )
    return reads.batch(connection, batch_pk)


def _insert_batch(connection: Connection, run_pk: int, new: NewBatch, now: float) -> int:
    inserted: Any = connection.execute(
        batches.insert().values(
            run=run_pk,
            state=BatchState.PLANNED.value,
            intent_id=new.intent_id,
            account=new.account,
            scope=new.scope,
            items=new.items,
            bytes=new.bytes,
            tokens=new.tokens,
            reserve_until=new.reserve_until,
            created_at=now,
        )
    )
    batch_pk = int(inserted.inserted_primary_key[0])
    connection.execute(
        batch_ranges.insert(),
        [
            {
                "batch": batch_pk,
                "position": position,
                "part": chunk.part,
                "first_index": chunk.first_index,
                "last_index": chunk.last_index,
                "line_offset": chunk.offset,
                "length": chunk.length,
                "items": chunk.items,
                "tokens": chunk.tokens,
                "attempt": chunk.attempt,
                "fresh": chunk.fresh,
            }
            for position, chunk in enumerate(new.ranges)
        ],
    )
    return batch_pk


def _queue_rows(connection: Connection, run_pk: int, batch_pk: int, ranges: Sequence[BatchRange]) -> None:
    for fresh in (True, False):
        chosen = [chunk for chunk in ranges if chunk.fresh is fresh]
        if not chosen:
            continue
        statement = (
            items.update()
            .where(
                items.c.run == run_pk,
                items.c.idx.between(bindparam("first"), bindparam("last")),
                items.c.part == bindparam("of_part"),
                items.c.state == ITEM_CODES[ItemStatus.PENDING],
                items.c.attempts == bindparam("attempts_before"),
                items.c.batch.is_(None) if fresh else items.c.batch.is_not(None),
            )
            .values(state=ITEM_CODES[ItemStatus.QUEUED_LOCAL], batch=batch_pk)
        )
        values = [
            {
                "first": chunk.first_index,
                "last": chunk.last_index,
                "of_part": chunk.part,
                "attempts_before": chunk.attempt - 1,
            }
            for chunk in chosen
        ]
        moved = connection.execute(statement, values).rowcount
        _expect(moved, sum(chunk.items for chunk in chosen), "claim rows")


def _advance_parts(connection: Connection, fresh: Sequence[BatchRange]) -> None:
    for chunk in fresh:
        moved = connection.execute(
            parts.update()
            # Rows before the chunk may have failed without being sent, so it begins at the next line or later.
            .where(parts.c.id == chunk.part, parts.c.next_offset <= chunk.offset)
            .values(
                next_index=chunk.last_index + 1,
                next_offset=chunk.offset + chunk.length,
                left_items=parts.c.left_items - chunk.items,
                left_tokens=parts.c.left_tokens - chunk.tokens,
            )
        ).rowcount
        _expect(moved, 1, "advance a part")


def move_batch(connection: Connection, batch: BatchRecord, target: BatchState, facts: dict[str, JSONValue]) -> bool:
    """Move the batch alone, guarded by where it was seen; True if it landed."""
    check_move(BATCH_TRANSITIONS, batch.state, target)
    moved = connection.execute(
        batches.update()
        .where(batches.c.id == batch.pk, batches.c.state == batch.state.value)
        .values(state=target.value, **_facts(facts))
    ).rowcount
    if moved:
        bump(connection, batch.run_pk)
    return bool(moved)


def note_batch(connection: Connection, batch: BatchRecord, facts: dict[str, JSONValue]) -> None:
    connection.execute(batches.update().where(batches.c.id == batch.pk).values(**_facts(facts)))
    bump(connection, batch.run_pk)


def confirm_submitted(
    connection: Connection, batch: BatchRecord, provider_batch_id: str, status: str, now: float
) -> bool:
    """Batch and rows are with the provider, and so are its tokens, also where its reservation had run out."""
    lock_scopes(connection, [batch.scope])
    facts: dict[str, JSONValue] = {
        "provider_batch_id": provider_batch_id,
        "remote_status": status,
        "submitted_at": now,
    }
    if not move_batch(connection, batch, BatchState.SUBMITTED, facts):
        return False
    scopes.hold(connection, batch, now + AWAY_SEC)
    moved = _move_rows(connection, batch, ItemStatus.QUEUED_LOCAL, ItemStatus.SUBMITTED)
    _expect(moved, batch.items, "submit rows")
    bump(connection, batch.run_pk, {ItemStatus.QUEUED_LOCAL: -moved, ItemStatus.SUBMITTED: moved})
    return True


def release_batch(connection: Connection, batch: BatchRecord, target: BatchState, backoff: Backoff | None) -> bool:
    """The provider does not have it: rows go back, budget too."""
    lock_scopes(connection, [batch.scope])
    if not move_batch(connection, batch, target, {}):
        return False
    moved = _move_rows(connection, batch, ItemStatus.QUEUED_LOCAL, ItemStatus.PENDING)
    _expect(moved, batch.items, "release rows")
    scopes.give_back(connection, batch.pk)
    counters = {ItemStatus.QUEUED_LOCAL: -moved, ItemStatus.PENDING: moved}
    waits = backoff_values(backoff) if backoff else {}
    bump(connection, batch.run_pk, counters, live_batches=runs.c.live_batches - 1, **waits)
    return True


def observe(connection: Connection, seen: Sequence[Observation], now: float) -> list[int]:
    """Facts from a poll, written forward only; ends batches and gives their budget back."""
    homes = _lock_for_observing(connection, seen)
    ended: list[int] = []
    for look in seen:
        if look.batch not in homes:
            continue
        landed = connection.execute(
            batches.update()
            .where(batches.c.id == look.batch, batches.c.state == BatchState.SUBMITTED.value)
            .values(
                remote_status=look.remote_status,
                remote_completed=look.completed,
                remote_failed=look.failed,
                output_file_id=look.output_file_id,
                error_file_id=look.error_file_id,
                errors=None if look.errors is None else rows.dump(look.errors),
                polled_at=now,
                **({"state": BatchState.ENDED.value, "ended_at": now} if look.ended else {}),
            )
        ).rowcount
        if landed and look.ended:
            scopes.give_back(connection, look.batch)
            bump(connection, homes[look.batch])
            ended.append(look.batch)
    return ended


def _lock_for_observing(connection: Connection, seen: Sequence[Observation]) -> dict[int, int]:
    """Runs by batch, locked where one ends, as scopes are; whether a batch may still change is asked by the write."""
    pks = [look.batch for look in seen]
    found = connection.execute(select(batches.c.id, batches.c.run, batches.c.scope).where(batches.c.id.in_(pks))).all()
    ends = {look.batch for look in seen if look.ended}
    lock_runs(connection, {row.run for row in found if row.id in ends})
    lock_scopes(connection, {row.scope for row in found if row.id in ends})
    lock_batches(connection, [row.id for row in found])
    return {row.id: row.run for row in found}


def settle(connection: Connection, run_pk: int, change: Settlement) -> None:
    """A collection's whole effect; raises and rolls back unless every row was where it was read."""
    batch = reads.batch(connection, change.batch)
    check_move(BATCH_TRANSITIONS, batch.state, change.target)
    segment_pk = add_segment(connection, run_pk, batch.pk, change.segment) if change.segment else None
    moved = _apply_moves(connection, batch, change.moves, segment_pk)
    done = _complete_rows(connection, batch, segment_pk)
    _expect(done, change.completed, "complete rows")
    _expect(done + sum(moved.values()), batch.items, "settle every row")
    landed = move_batch(
        connection, batch, change.target, {"output_key": change.output_key, "error_key": change.error_key}
    )
    _expect(int(landed), 1, "settle a batch")
    counters = {**moved, ItemStatus.COMPLETED: done, ItemStatus.SUBMITTED: -batch.items}
    values: dict[str, Any] = {"live_batches": runs.c.live_batches - 1}
    if change.backoff is not None:
        values |= backoff_values(change.backoff)
    bump(connection, run_pk, counters, **values)
    if change.pause_reason is not None:
        _pause(connection, run_pk, change.pause_reason)


def _pause(connection: Connection, run_pk: int, reason: str) -> None:
    """Only a running run is paused; a cancel stays a cancel."""
    connection.execute(
        runs.update()
        .where(runs.c.id == run_pk, runs.c.control == RunControlState.RUNNING.value)
        .values(control=RunControlState.PAUSED.value, control_reason=reason)
    )


def _apply_moves(
    connection: Connection, batch: BatchRecord, moves: Sequence[ItemMove], segment_pk: int | None
) -> dict[ItemStatus, int]:
    moved: dict[ItemStatus, int] = {}
    for target in ItemStatus:
        chosen = [move for move in moves if move.to is target]
        if not chosen:
            continue
        check_move(ITEM_TRANSITIONS, ItemStatus.SUBMITTED, target)
        final = target is ItemStatus.FAILED_PERMANENT
        statement = (
            items.update()
            .where(items.c.run == batch.run_pk, items.c.idx == bindparam("at"), *_in_batch(batch))
            .values(
                state=ITEM_CODES[target],
                attempts=bindparam("attempts_now"),
                uncounted=bindparam("uncounted_now"),
                retry_at=bindparam("retry_then"),
                **({"segment": segment_pk} if final else {}),
            )
        )
        values = [
            {
                "at": move.item_index,
                "attempts_now": move.attempts,
                "uncounted_now": move.uncounted,
                "retry_then": move.retry_at,
            }
            for move in chosen
        ]
        moved[target] = connection.execute(statement, values).rowcount
    return moved


def _complete_rows(connection: Connection, batch: BatchRecord, segment_pk: int | None) -> int:
    values = {"attempts": items.c.attempts + 1, "segment": segment_pk}
    return _move_rows(connection, batch, ItemStatus.SUBMITTED, ItemStatus.COMPLETED, **values)


def _move_rows(
    connection: Connection, batch: BatchRecord, source: ItemStatus, target: ItemStatus, **values: Any
) -> int:
    """Move the rows of a batch by the spans of its ranges, guarded by batch and state; how many moved."""
    check_move(ITEM_TRANSITIONS, source, target)
    total = 0
    for first, last in spans(reads.ranges(connection, batch.pk)):
        total += connection.execute(
            items.update()
            .where(
                items.c.run == batch.run_pk,
                items.c.idx.between(first, last),
                items.c.batch == batch.pk,
                items.c.state == ITEM_CODES[source],
            )
            .values(state=ITEM_CODES[target], **values)
        ).rowcount
    return total


def _in_batch(batch: BatchRecord) -> tuple[Any, ...]:
    return items.c.batch == batch.pk, items.c.state == ITEM_CODES[ItemStatus.SUBMITTED]


def _facts(facts: dict[str, JSONValue]) -> dict[str, Any]:
    return {name: rows.dump(value) if name == "errors" else value for name, value in facts.items()}


def _expect(moved: int, wanted: int, what: str) -> None:
    """A guarded write that lands on fewer rows than were read means a defect; nothing of it may stay."""
    if moved != wanted:
        raise IllegalTransitionError(f"could not {what}: {moved} of {wanted} rows were where they were read")
