"""Writes of housekeeping: the mark of a deletion, and counters set to what the rows say.

Law: rows are the truth and counters are not; no row is changed here.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, func, select

from batchor_engine.core.records import DELETING, RunRecord
from batchor_engine.states import BATCH_LIVE, ITEM_CODES, ItemStatus, RunControlState
from batchor_engine.storage import reads, rows
from batchor_engine.storage.run_writes import bump
from batchor_engine.storage.schema import batches, items, runs, segments


def begin_delete(connection: Connection, run_id: str) -> None:
    run = reads.run(connection, run_id, lock=True)
    if run is not None and run.control_reason != DELETING:
        bump(connection, run.pk, control=RunControlState.CANCEL_REQUESTED.value, control_reason=DELETING)


def recount(connection: Connection, run_pk: int) -> bool:
    """Counters of items, live batches and superseded results; the sequence is given once and never recounted."""
    run = rows.run_record(connection.execute(reads.select_runs().where(runs.c.id == run_pk)).one())
    counts, live, superseded = _counted(connection, run)
    if (counts, live, superseded) == (run.counts, run.live_batches, run.superseded):
        return False
    values: dict[str, Any] = {f"n_{status.value}": count for status, count in counts.items()}
    bump(connection, run_pk, None, **values, live_batches=live, superseded=superseded)
    return True


def _counted(connection: Connection, run: RunRecord) -> tuple[dict[ItemStatus, int], int, int]:
    by_state = select(items.c.state, func.count().label("rows")).where(items.c.run == run.pk).group_by(items.c.state)
    found = {row.state: row.rows for row in connection.execute(by_state)}
    alive = batches.c.state.in_([state.value for state in BATCH_LIVE])
    live = select(func.count()).select_from(batches).where(batches.c.run == run.pk, alive)
    superseded = select(func.coalesce(func.sum(segments.c.superseded), 0)).where(segments.c.run == run.pk)
    counts = {status: int(found.get(ITEM_CODES[status], 0)) for status in ItemStatus}
    return counts, connection.execute(live).scalar_one(), int(connection.execute(superseded).scalar_one())
