"""Writes to runs and what belongs to them from ingest to reopening.

Law: a counter moves in the transaction of the rows it counts. A guarded write says how many rows it moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Select, bindparam, delete, func, select, text
from sqlalchemy.exc import IntegrityError

from batchor_engine.core.records import (
    Backoff,
    IngestPosition,
    NewItem,
    NewPart,
    NewRun,
    NewSegment,
    RunRecord,
)
from batchor_engine.errors import DuplicateItemError
from batchor_engine.states import (
    ITEM_CODES,
    ITEM_TRANSITIONS,
    IllegalTransitionError,
    ItemStatus,
    RunControlState,
    sources_of,
)
from batchor_engine.storage import reads, rows
from batchor_engine.storage.dialect import insert_if_absent, insert_many
from batchor_engine.storage.locks import lock_runs, lock_scopes
from batchor_engine.storage.schema import (
    WAITING,
    batch_ranges,
    batches,
    items,
    leases,
    parts,
    run_labels,
    runs,
    scope_waiters,
    segments,
)
from batchor_engine.storage.scopes import give_back

# The first fields of NewItem, in its order.
_NEW_ITEM = ("idx", "item_id", "line_offset", "length", "tokens", "grp")
_stored_fields = itemgetter(slice(len(_NEW_ITEM)))


def bump(connection: Connection, run_pk: int, moved: dict[ItemStatus, int] | None = None, **values: Any) -> None:
    """Add to the counters of a run, set `values`, and count one revision."""
    changes = {f"n_{status.value}": runs.c[f"n_{status.value}"] + delta for status, delta in (moved or {}).items()}
    connection.execute(
        runs.update().where(runs.c.id == run_pk).values(**changes, **values, revision=runs.c.revision + 1)
    )


def create(connection: Connection, new: NewRun, now: float) -> bool:
    """Store a run. One that has no rows yet protects nothing, so it is replaced (its labels too)."""
    values = {
        "run_id": new.run_id,
        "created_at": now,
        "config": rows.dump(new.config),
        "artifact_root": new.artifact_root,
        "control": RunControlState.RUNNING.value,
        **rows.position_values(new.ingest),
    }
    while not insert_if_absent(connection, runs, **values):
        old = reads.run(connection, new.run_id, lock=True)
        if old is not None and not old.gives_way:
            return False
        if old is not None:
            _delete_rows(connection, old.pk)
    run_pk = connection.execute(select(runs.c.id).where(runs.c.run_id == new.run_id)).scalar_one()
    if new.labels:
        connection.execute(
            run_labels.insert(), [{"run": run_pk, "key": key, "value": value} for key, value in new.labels.items()]
        )
    return True


def delete_run(connection: Connection, run_id: str, *, only_empty: bool) -> bool:
    """Forget a run; where `only_empty`, only one that has no rows."""
    old = reads.run(connection, run_id)
    if old is None or (only_empty and not old.is_empty):
        return False
    # Leases come before runs in the order of locks. A later batch may get the number of one of these.
    for batch_pk in connection.execute(_batches_of(old.pk)).scalars().all():
        connection.execute(delete(leases).where(leases.c.resource == f"batch:{batch_pk}"))
    lock_runs(connection, [old.pk])
    _delete_rows(connection, old.pk)
    connection.execute(delete(leases).where(leases.c.resource == f"run:{run_id}"))
    return True


def _delete_rows(connection: Connection, run_pk: int) -> None:
    """Everything of a locked run, and the run."""
    scopes = connection.execute(select(batches.c.scope).where(batches.c.run == run_pk).distinct()).scalars().all()
    lock_scopes(connection, scopes)
    mine = _batches_of(run_pk)
    for batch_pk in connection.execute(mine).scalars().all():
        give_back(connection, batch_pk)
    connection.execute(delete(batch_ranges).where(batch_ranges.c.batch.in_(mine)))
    for table in (items, parts, batches, segments, run_labels, scope_waiters):
        connection.execute(delete(table).where(table.c.run == run_pk))
    connection.execute(delete(runs).where(runs.c.id == run_pk))


def _batches_of(run_pk: int) -> Select[Any]:
    return select(batches.c.id).where(batches.c.run == run_pk).order_by(batches.c.id)


def set_control(
    connection: Connection, run_id: str, wish: RunControlState, reason: str | None, drain: bool
) -> RunRecord | None:
    """Write a wish; a cancel is final, and a run that is over has no wishes.

    A cancel that let the batches finish may still become one that does not.
    """
    run = reads.run(connection, run_id, lock=True)
    if run and run.drain and not drain and wish is RunControlState.CANCEL_REQUESTED and not run.is_finished:
        bump(connection, run.pk, drain=False)
        return reads.run(connection, run_id)
    if run is None or run.is_finished or run.control is RunControlState.CANCEL_REQUESTED or run.control is wish:
        return run
    values: dict[str, Any] = {"control": wish.value, "control_reason": reason, "drain": drain}
    if wish is RunControlState.RUNNING:
        # Whoever resumes has seen to the cause; the old delay would only make them wait for nothing.
        values |= {"backoff_consecutive": 0, "backoff_until": 0.0}
    bump(connection, run.pk, **values)
    return reads.run(connection, run_id)


def backoff_values(backoff: Backoff) -> dict[str, Any]:
    return {
        "backoff_consecutive": backoff.consecutive,
        "backoff_total": backoff.total,
        "backoff_until": backoff.until,
        "backoff_class": backoff.error_class,
    }


def append_part(
    connection: Connection,
    run_pk: int,
    part: NewPart | None,
    new_items: Sequence[NewItem],
    position: IngestPosition,
    failures: NewSegment | None,
) -> None:
    """Rows, part, failed rows' segment and checkpoint: all of it or nothing."""
    segment_pk = add_segment(connection, run_pk, None, failures) if failures else None
    part_pk = _add_part(connection, run_pk, part) if part else None
    if new_items:
        _insert_items(connection, run_pk, part_pk, segment_pk, new_items)
    failed = sum(item.failed for item in new_items)
    moved = {ItemStatus.PENDING: len(new_items) - failed, ItemStatus.FAILED_PERMANENT: failed}
    bump(connection, run_pk, moved, **rows.position_values(position))


def _add_part(connection: Connection, run_pk: int, part: NewPart) -> int:
    values = {
        "key": part.key,
        "sidecar_key": part.sidecar_key,
        "first_index": part.first_index,
        "last_index": part.last_index,
        "bytes": part.bytes,
        "next_index": part.first_index,
        "next_offset": 0,
        "left_items": part.items,
        "left_tokens": part.tokens,
    }
    return _key_of(connection.execute(parts.insert().values(run=run_pk, **values)))


def _insert_items(
    connection: Connection, run_pk: int, part_pk: int | None, segment_pk: int | None, new_items: Sequence[NewItem]
) -> None:
    sendable = [_stored_fields(item) for item in new_items if not item.failed]
    failed = [_stored_fields(item) for item in new_items if item.failed]
    begun = {"run": run_pk, "attempts": 0, "uncounted": 0, "granted": 0}
    to_send = {**begun, "state": ITEM_CODES[ItemStatus.PENDING], "part": part_pk, "segment": None}
    over = {**begun, "state": ITEM_CODES[ItemStatus.FAILED_PERMANENT], "part": None, "segment": segment_pk}
    try:
        with connection.begin_nested():
            insert_many(connection, items, _NEW_ITEM, sendable, common=to_send)
            insert_many(connection, items, _NEW_ITEM, failed, common=over)
    except IntegrityError:
        raise _duplicate(connection, run_pk, new_items) from None


def _duplicate(connection: Connection, run_pk: int, new_items: Sequence[NewItem]) -> Exception:
    run_id = connection.execute(select(runs.c.run_id).where(runs.c.id == run_pk)).scalar_one()
    seen: dict[str, int] = {}
    for item in new_items:
        first = seen.get(item.item_id, _stored_index(connection, run_pk, item.item_id))
        if first is not None:
            return DuplicateItemError(run_id, item.item_id, (first, item.item_index))
        seen[item.item_id] = item.item_index
    return RuntimeError(f"run {run_id!r}: the store refused rows for another reason than a duplicate id")


def _stored_index(connection: Connection, run_pk: int, item_id: str) -> int | None:
    query = select(items.c.idx).where(items.c.run == run_pk, items.c.item_id == item_id)
    return connection.execute(query).scalar_one_or_none()


def add_segment(connection: Connection, run_pk: int, batch_pk: int | None, segment: NewSegment) -> int:
    """Store a segment and give its final rows the next terminal sequences of the run."""
    totals = segment.totals
    last = connection.execute(
        runs.update()
        .where(runs.c.id == run_pk)
        .values(last_sequence=runs.c.last_sequence + totals.final_rows)
        .returning(runs.c.last_sequence)
    ).scalar_one()
    inserted = connection.execute(
        segments.insert().values(
            run=run_pk,
            batch=batch_pk,
            key=segment.key,
            bytes=segment.bytes,
            first_sequence=last - totals.final_rows + 1,
            rows=totals.rows,
            completed=totals.completed,
            failed=totals.failed,
            first_index=totals.first_index,
            last_index=totals.last_index,
            input_tokens=totals.usage.input_tokens,
            cached_tokens=totals.usage.cached_tokens,
            output_tokens=totals.usage.output_tokens,
            reasoning_tokens=totals.usage.reasoning_tokens,
            failures=rows.dump(dict(totals.failures)),
        )
    )
    return _key_of(inserted)


def reopen_due(connection: Connection, run_pk: int, now: float) -> int:
    """Failed rows whose delay has passed are pending again."""
    moved = connection.execute(
        items.update()
        .where(items.c.run == run_pk, text(WAITING), items.c.retry_at <= now)
        .values(state=ITEM_CODES[ItemStatus.PENDING], retry_at=None)
    ).rowcount
    if moved:
        bump(connection, run_pk, {ItemStatus.PENDING: moved, ItemStatus.FAILED_RETRYABLE: -moved})
    return moved


def fail_open_items(connection: Connection, run_pk: int, indexes: Sequence[int], segment: NewSegment) -> int:
    """Rows that are not with the provider fail for good; their results are in `segment`."""
    segment_pk = add_segment(connection, run_pk, None, segment)
    leaving = sources_of(ITEM_TRANSITIONS, ItemStatus.FAILED_PERMANENT) - {
        ItemStatus.SUBMITTED,
        ItemStatus.QUEUED_LOCAL,
    }
    total = 0
    for status in leaving:
        statement = (
            items.update()
            .where(items.c.run == run_pk, items.c.idx == bindparam("at"), items.c.state == ITEM_CODES[status])
            .values(state=ITEM_CODES[ItemStatus.FAILED_PERMANENT], segment=segment_pk, retry_at=None)
        )
        moved = connection.execute(statement, [{"at": index} for index in indexes]).rowcount
        bump(connection, run_pk, {status: -moved, ItemStatus.FAILED_PERMANENT: moved})
        total += moved
    if total != len(indexes):
        raise IllegalTransitionError(f"could not fail rows: {total} of {len(indexes)} were open")
    _forget_fresh(connection, run_pk, segment_pk, segment)
    return total


def _forget_fresh(connection: Connection, run_pk: int, segment_pk: int, segment: NewSegment) -> None:
    """Rows that failed before they were ever claimed no longer wait in their part."""
    query = (
        select(items.c.part, func.count().label("rows"), func.sum(items.c.tokens).label("tokens"))
        .where(items.c.run == run_pk, items.c.segment == segment_pk)
        .where(items.c.idx.between(segment.totals.first_index, segment.totals.last_index))
        .where(items.c.batch.is_(None), items.c.part.is_not(None))
        .group_by(items.c.part)
    )
    for row in connection.execute(query).all():
        connection.execute(
            parts.update()
            .where(parts.c.id == row.part)
            .values(left_items=parts.c.left_items - row.rows, left_tokens=parts.c.left_tokens - row.tokens)
        )


def retry_failed(connection: Connection, run_pk: int) -> int:
    """Permanent failures that were in a batch are pending again; the results they had are superseded."""
    failed = (
        items.c.run == run_pk,
        items.c.state == ITEM_CODES[ItemStatus.FAILED_PERMANENT],
        items.c.batch.is_not(None),
    )
    old = select(items.c.segment, func.count().label("rows")).where(*failed).group_by(items.c.segment)
    for row in connection.execute(old).all():
        gone = segments.c.superseded + row.rows
        connection.execute(segments.update().where(segments.c.id == row.segment).values(superseded=gone))
    moved = connection.execute(
        items.update()
        .where(*failed)
        .values(
            state=ITEM_CODES[ItemStatus.PENDING], granted=items.c.attempts, uncounted=0, segment=None, retry_at=None
        )
    ).rowcount
    counters = {ItemStatus.FAILED_PERMANENT: -moved, ItemStatus.PENDING: moved}
    bump(connection, run_pk, counters, superseded=runs.c.superseded + moved, tidied=False)
    return moved


def record_prune(connection: Connection, run_pk: int, now: float, raw: bool) -> tuple[int, int]:
    """A part's rows lose their pointer with the part; a batch loses its own."""
    pointed = select(parts.c.id).where(parts.c.run == run_pk, parts.c.pruned_at.is_(None))
    query = select(func.count()).select_from(items).where(items.c.run == run_pk, items.c.part.in_(pointed))
    cleared = connection.execute(query).scalar_one()
    connection.execute(parts.update().where(parts.c.run == run_pk, parts.c.pruned_at.is_(None)).values(pruned_at=now))
    forgotten = 0
    if raw:
        pointing = batches.c.output_key.is_not(None) | batches.c.error_key.is_not(None)
        emptied = batches.update().where(batches.c.run == run_pk, pointing).values(output_key=None, error_key=None)
        forgotten = connection.execute(emptied).rowcount
    if cleared or forgotten:
        bump(connection, run_pk)
    return cleared, forgotten


def _key_of(result: Any) -> int:
    return int(result.inserted_primary_key[0])
