"""What a transaction leaves behind, to be looked for where its COMMIT got no answer; PostgreSQL alone needs it.

Law: only what the transaction itself wrote proves that it happened. The server's word on its number is no proof
(`pg_xact_status`): one that was killed gives the numbers of transactions it lost to others, and those commit.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from typing import NamedTuple

from sqlalchemy import Connection, Text, bindparam, delete, func, literal, select
from sqlalchemy.dialects import postgresql

from batchor_engine.storage.dialect import server_time
from batchor_engine.storage.locks import lock_lease
from batchor_engine.storage.schema import leases

# Much longer than anybody looks for one.
_KEPT_SEC = 86400.0
_PREFIX = "commits:"

_NOW = func.extract("epoch", func.clock_timestamp())
_HAS_WRITTEN = func.pg_current_xact_id_if_assigned().is_not(None)
_FRESH = postgresql.insert(leases).from_select(
    ["resource", "fence", "expires_at"],
    select(bindparam("name", type_=Text), literal(1), _NOW + _KEPT_SEC).where(_HAS_WRITTEN),
)
_COUNT = _FRESH.on_conflict_do_update(
    index_elements=[leases.c.resource],
    set_={"fence": leases.c.fence + 1, "expires_at": _FRESH.excluded.expires_at},
).returning(leases.c.fence, leases.c.expires_at)
_OLD = (
    select(leases.c.resource)
    .where(leases.c.resource.startswith(_PREFIX), leases.c.owner.is_(None), leases.c.expires_at < _NOW)
    .with_for_update(skip_locked=True)
)


class Receipt(NamedTuple):
    """A lease that nobody holds: its fence counts the commits under one name; from `swept_at` on it may be deleted."""

    name: str
    fence: int
    swept_at: float


class Names:
    """Names of receipts, of which each transaction under way has one for itself; a few are used again and again."""

    def __init__(self) -> None:
        self._spare: list[str] = []

    @contextmanager
    def one(self) -> Generator[str]:
        try:
            mine = self._spare.pop()
        except IndexError:
            mine = uuid.uuid4().hex
        # A forked child begins with its parent's spare ones.
        yield f"{_PREFIX}{mine}:{os.getpid()}"
        # After an error its transaction may still be under way.
        self._spare.append(mine)


def leave(connection: Connection, name: str) -> Receipt | None:
    """Write the receipt of a transaction as its last statement; None where it has written nothing."""
    row = connection.execute(_COUNT, {"name": name}).one_or_none()
    if row is None:
        return None
    if row.fence == 1:
        # Those of processes that are gone.
        connection.execute(delete(leases).where(leases.c.resource.in_(_OLD)))
    return Receipt(name, row.fence, row.expires_at)


def is_there(connection: Connection, receipt: Receipt) -> bool | None:
    """Whether a receipt was committed; waits for a transaction that is still under way.

    None where nobody can say any more: a process that was stopped for a day may find that its receipt was swept.
    """
    if lock_lease(connection, receipt.name).fence >= receipt.fence:
        return True
    return None if server_time(connection) >= receipt.swept_at else False
