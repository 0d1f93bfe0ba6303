"""Leases: who may advance a resource now.

Law: a fence only grows. Whoever holds an older one can write nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, select

from batchor_engine.core.records import Lease
from batchor_engine.errors import LeaseLostError
from batchor_engine.storage.locks import lock_lease
from batchor_engine.storage.schema import leases


def acquire(
    connection: Connection, resource: str, owner: str, now: float, ttl_sec: float, dead_owner: str | None
) -> Lease | str:
    """Take the lease if it is free, expired or `dead_owner`'s; else name its owner."""
    row = connection.execute(select(leases).where(leases.c.resource == resource)).one_or_none()
    if row is None or not _is_held(row, dead_owner, now):
        row = lock_lease(connection, resource)
    # Who finds it held has not waited for its lock, which the owner has while it writes.
    if _is_held(row, dead_owner, now):
        return str(row.owner)
    lease = Lease(resource, owner, row.fence + 1, now + ttl_sec)
    connection.execute(
        leases.update()
        .where(leases.c.resource == resource)
        .values(owner=owner, fence=lease.fence, expires_at=lease.expires_at)
    )
    return lease


def _is_held(row: Any, dead_owner: str | None, now: float) -> bool:
    return row.owner is not None and row.owner != dead_owner and row.expires_at > now


def check(connection: Connection, lease: Lease) -> None:
    """Raise LeaseLostError unless this is still the newest fence; locks its row."""
    row = connection.execute(
        select(leases.c.fence, leases.c.owner).where(leases.c.resource == lease.resource).with_for_update()
    ).one_or_none()
    if row is None or row.fence != lease.fence or row.owner != lease.owner:
        raise LeaseLostError(lease.resource)


def renew(connection: Connection, lease: Lease, now: float, ttl_sec: float) -> Lease:
    check(connection, lease)
    connection.execute(leases.update().where(leases.c.resource == lease.resource).values(expires_at=now + ttl_sec))
    return replace(lease, expires_at=now + ttl_sec)


def release(connection: Connection, lease: Lease) -> None:
    """Free the lease if it is still ours; its fence stays, so that the next owner's is higher."""
    connection.execute(
        leases.update()
        .where(leases.c.resource == lease.resource, leases.c.fence == lease.fence, leases.c.owner == lease.owner)
        .values(owner=None)
    )


def held(connection: Connection) -> list[Lease]:
    query = select(leases).where(leases.c.owner.is_not(None)).order_by(leases.c.resource)
    return [Lease(row.resource, row.owner, row.fence, row.expires_at) for row in connection.execute(query)]
