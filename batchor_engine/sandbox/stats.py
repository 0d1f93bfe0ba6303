"""Numbers to assert on: calls, batches, and lines that were paid, dropped or paid twice."""

from __future__ import annotations

from .desk import Desk
from .values import BatchRecord, JSONObject

SHOWN_TWICE = 100


def stats(desk: Desk) -> JSONObject:
    """Everything countable since the state directory was made; batches oldest first."""
    calls = desk.journal.calls()
    paid = {
        batch_id: (count, dropped)
        for batch_id, count, dropped in desk.state.rows(
            "SELECT batch_id, count(*), count(dropped) FROM paid GROUP BY batch_id"
        )
    }
    twice = desk.state.rows(
        "SELECT custom_id FROM paid GROUP BY custom_id HAVING count(*) > 1 ORDER BY custom_id LIMIT ?", (SHOWN_TWICE,)
    )
    batches = all_batches(desk)
    return {
        "calls": calls,
        "calls_total": sum(calls.values()),
        "batches": [_line(one, *paid.get(one.id, (0, 0))) for one in batches],
        "paid_lines": sum(count for count, _ in paid.values()),
        "dropped_lines": sum(dropped for _, dropped in paid.values()),
        "paid_twice": [custom_id for (custom_id,) in twice],
        "enqueued_tokens": _enqueued(batches),
        "files": desk.state.rows("SELECT count(*) FROM files")[0][0],
        "faults": desk.faults.listing(),
    }


def all_batches(desk: Desk) -> list[BatchRecord]:
    """Every batch, oldest first."""
    return desk.state.batches_before(None, 2**31)[::-1]


def paid_lines(desk: Desk, batch_id: str | None = None) -> list[JSONObject]:
    """Each paid line as {batch_id, custom_id, dropped}, of one batch or of all."""
    rows = desk.state.rows(
        "SELECT batch_id, custom_id, dropped FROM paid WHERE batch_id = coalesce(?, batch_id) ORDER BY rowid",
        (batch_id,),
    )
    return [{"batch_id": one, "custom_id": two, "dropped": three} for one, two, three in rows]


def _line(record: BatchRecord, paid: int, dropped: int) -> JSONObject:
    return {
        "id": record.id,
        "status": record.status,
        "metadata": dict(record.metadata) if record.metadata is not None else None,
        "input_file_id": record.input_file_id,
        "endpoint": record.endpoint,
        "lines": record.total,
        "paid": paid,
        "dropped": dropped,
    }


def _enqueued(batches: list[BatchRecord]) -> dict[str, int]:
    held: dict[str, int] = {}
    for one in batches:
        if one.live and one.model is not None:
            held[one.model] = held.get(one.model, 0) + one.enqueued_tokens
    return held
