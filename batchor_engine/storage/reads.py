"""Reads. Law: reading never writes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, bindparam, func, literal, or_, select, text

from batchor_engine.core.records import (
    AwayBatch,
    BatchRange,
    BatchRecord,
    ItemRow,
    PartRecord,
    RunRecord,
    SegmentRecord,
)
from batchor_engine.models import RunTally
from batchor_engine.states import BATCH_NOT_REMOTE, ITEM_CODES, ITEM_OPEN, BatchState, ItemStatus
from batchor_engine.storage import rows
from batchor_engine.storage.schema import (
    REOPENED,
    WAITING,
    batch_ranges,
    batches,
    items,
    parts,
    run_labels,
    runs,
    segments,
)


def chosen(
    labels: Mapping[str, str],
    *,
    before: int | None = None,
    unfinished: bool = False,
    finished: bool = False,
    created_after: float | None = None,
    created_before: float | None = None,
) -> list[ColumnElement[bool]]:
    """The conditions of a choice of runs; every label must match."""
    found: list[ColumnElement[bool]] = []
    for key, value in labels.items():
        carriers = select(run_labels.c.run).where(run_labels.c.key == key, run_labels.c.value == value)
        found.append(runs.c.id.in_(carriers))
    if before is not None:
        found.append(runs.c.id < before)
    if created_after is not None:
        found.append(runs.c.created_at >= created_after)
    if created_before is not None:
        found.append(runs.c.created_at < created_before)
    if unfinished or finished:
        # run_status() of states.py, as a condition.
        open_rows = [runs.c[f"n_{status.value}"] > 0 for status in sorted(ITEM_OPEN)]
        going_on = or_(runs.c.ingest_finished.is_(False), runs.c.live_batches > 0, *open_rows)
        found += [going_on] * unfinished + [~going_on] * finished
    return found


def select_runs() -> Select[Any]:
    """Runs with the few of their batches that are still on their way, counted on an index by the statement itself."""
    waiting = _in_states(BATCH_NOT_REMOTE)
    unsent = select(func.count()).where(batches.c.run == runs.c.id, waiting).correlate(runs).scalar_subquery()
    return select(runs, unsent.label("unsent_batches"))


def _in_states(states: Collection[BatchState]) -> ColumnElement[bool]:
    # A plain list of values would be written into the statement anew at every execution.
    return batches.c.state.in_([literal(state.value) for state in sorted(states)])


# Building a statement takes longer than running it, so those that every look needs are built once.
_RUN = select_runs().where(runs.c.run_id == bindparam("run_id"))
_LOCKED_RUN = _RUN.with_for_update()


def run(connection: Connection, run_id: str, *, lock: bool = False) -> RunRecord | None:
    row = connection.execute(_LOCKED_RUN if lock else _RUN, {"run_id": run_id}).one_or_none()
    return None if row is None else rows.run_record(row)


def runs_where(connection: Connection, conditions: Sequence[ColumnElement[bool]], limit: int) -> list[RunRecord]:
    """Newest first."""
    query = select_runs().where(*conditions).order_by(runs.c.id.desc()).limit(limit)
    return [rows.run_record(row) for row in connection.execute(query)]


def fingerprint(connection: Connection, conditions: Sequence[ColumnElement[bool]]) -> tuple[int, int]:
    query = select(func.count(), func.coalesce(func.sum(runs.c.revision), 0)).where(*conditions)
    count, revisions = connection.execute(query).one()
    return int(count), int(revisions)


def labels_of(connection: Connection, run_pks: Collection[int]) -> dict[int, dict[str, str]]:
    found: dict[int, dict[str, str]] = {run_pk: {} for run_pk in run_pks}
    for row in connection.execute(select(run_labels).where(run_labels.c.run.in_(list(run_pks)))):
        found[row.run][row.key] = row.value
    return found


def fresh_parts(connection: Connection, run_pk: int, limit: int) -> list[PartRecord]:
    query = select(parts).where(parts.c.run == run_pk, parts.c.left_items > 0)
    return [rows.part_record(row) for row in connection.execute(query.order_by(parts.c.first_index).limit(limit))]


def parts_of(connection: Connection, run_pk: int, pks: Collection[int] | None) -> list[PartRecord]:
    query = select(parts).where(parts.c.run == run_pk)
    if pks is not None:
        query = query.where(parts.c.id.in_(list(pks)))
    return [rows.part_record(row) for row in connection.execute(query.order_by(parts.c.first_index))]


def reopened_items(connection: Connection, run_pk: int, limit: int) -> list[ItemRow]:
    query = select(*rows.ITEM_COLUMNS).where(items.c.run == run_pk, text(REOPENED))
    query = query.order_by(items.c.state, items.c.idx).limit(limit)
    return rows.item_rows(connection.execute(query))


def next_retry_at(connection: Connection, run_pk: int) -> float | None:
    query = select(func.min(items.c.retry_at)).where(items.c.run == run_pk, text(WAITING))
    return connection.execute(query).scalar_one()


def items_between(connection: Connection, run_pk: int, first: int, last: int, batch: int | None) -> list[ItemRow]:
    query = select(*rows.ITEM_COLUMNS).where(items.c.run == run_pk, items.c.idx.between(first, last))
    if batch is not None:
        query = query.where(items.c.batch == batch)
    return rows.item_rows(connection.execute(query.order_by(items.c.idx)))


def open_items(connection: Connection, run_pk: int, after_index: int, limit: int) -> list[ItemRow]:
    away = [ITEM_CODES[status] for status in (ItemStatus.PENDING, ItemStatus.FAILED_RETRYABLE)]
    query = select(*rows.ITEM_COLUMNS).where(items.c.run == run_pk, items.c.idx > after_index, items.c.state.in_(away))
    return rows.item_rows(connection.execute(query.order_by(items.c.idx).limit(limit)))


def batch(connection: Connection, batch_pk: int) -> BatchRecord:
    query = _batches_with().where(batches.c.id == batch_pk)
    return rows.batch_record(connection.execute(query).one())


@lru_cache
def _batches_with(
    *given: str,
    states: frozenset[BatchState] | None = None,
    columns: tuple[ColumnElement[Any], ...] = rows.BATCH_COLUMNS,
) -> Select[Any]:
    """Batches, oldest first, in `states` and with the `given` parameters: "run", "runs", "intents"."""
    conditions = {
        "run": batches.c.run == bindparam("run"),
        "runs": batches.c.run.in_(bindparam("runs", expanding=True)),
        "intents": batches.c.intent_id.in_(bindparam("intents", expanding=True)),
    }
    query = select(*columns).join(runs, runs.c.id == batches.c.run).order_by(batches.c.id)
    query = query.where(*(conditions[name] for name in given))
    return query if states is None else query.where(_in_states(states))


def batches_of(
    connection: Connection,
    run_pks: Collection[int] | None,
    states: Collection[BatchState] | None,
    intents: Collection[str] | None,
) -> list[BatchRecord]:
    wanted: dict[str, Any] = {}
    if run_pks is not None:
        wanted |= {"run": next(iter(run_pks))} if len(run_pks) == 1 else {"runs": list(run_pks)}
    if intents is not None:
        wanted["intents"] = list(intents)
    query = _batches_with(*wanted, states=None if states is None else frozenset(states))
    return [rows.batch_record(row) for row in connection.execute(query, wanted).all()]


def away(connection: Connection, run_pk: int | None) -> list[AwayBatch]:
    wanted = {} if run_pk is None else {"run": run_pk}
    query = _batches_with(*wanted, states=frozenset({BatchState.SUBMITTED}), columns=rows.AWAY_COLUMNS)
    return [AwayBatch._make(row) for row in connection.execute(query, wanted).all()]


def ranges(connection: Connection, batch_pk: int) -> list[BatchRange]:
    query = select(*rows.RANGE_COLUMNS).where(batch_ranges.c.batch == batch_pk).order_by(batch_ranges.c.position)
    return [BatchRange._make(row) for row in connection.execute(query).all()]


def segments_of(connection: Connection, run_pk: int, after_sequence: int | None) -> list[SegmentRecord]:
    query = select(segments).where(segments.c.run == run_pk).order_by(segments.c.first_sequence, segments.c.id)
    if after_sequence is not None:
        final = segments.c.completed + segments.c.failed
        query = query.where(segments.c.first_sequence + final - 1 > after_sequence)
    return [rows.segment_record(row) for row in connection.execute(query)]


def superseded_indexes(connection: Connection, run_pk: int, segment: SegmentRecord) -> set[int]:
    """A row's result counts while the row points to its segment; all others of the segment's span are superseded."""
    span = items.c.idx.between(segment.totals.first_index, segment.totals.last_index)
    query = select(items.c.idx).where(
        items.c.run == run_pk, span, (items.c.segment.is_(None)) | (items.c.segment != segment.pk)
    )
    return set(connection.execute(query).scalars())


def tallies(connection: Connection, run_pk: int) -> dict[int, RunTally]:
    """One pass over the rows of a run, grouped by the database."""
    query = (
        select(items.c.grp, items.c.state, func.count(), func.sum(items.c.attempts), func.sum(items.c.tokens))
        .where(items.c.run == run_pk)
        .group_by(items.c.grp, items.c.state)
    )
    found: dict[int, RunTally] = {}
    for group, state, count, attempts, tokens in connection.execute(query):
        status = rows.ITEM_STATUS[state]
        completed = count if status is ItemStatus.COMPLETED else 0
        failed = count if status is ItemStatus.FAILED_PERMANENT else 0
        # PostgreSQL sums integers to Decimal.
        tally = RunTally(count, completed, failed, int(attempts), int(tokens))
        found[group] = found.get(group, RunTally()) + tally
    return found
