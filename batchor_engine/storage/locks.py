"""Row locks, for databases that lock rows; on SQLite the whole file is locked when a write begins.

Law: locks are taken in the order of the functions below (lease, runs, scopes, batches), and of several rows the
lowest key first. Two writes that keep to it never wait for each other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from sqlalchemy import Column, Connection, Table, select

from batchor_engine.storage.dialect import insert_if_absent
from batchor_engine.storage.schema import batches, leases, runs, scopes


def lock_lease(connection: Connection, resource: str) -> Any:
    """The row of a resource's lease, made where there is none."""
    return _lock_or_insert(connection, leases, leases.c.resource, resource, fence=0, expires_at=0.0)


def lock_runs(connection: Connection, pks: Collection[int]) -> int:
    """How many of them there are."""
    return _lock(connection, runs.c.id, pks)


def lock_scope(connection: Connection, name: str) -> Any:
    """The row of a scope, made where there is none."""
    return _lock_or_insert(connection, scopes, scopes.c.name, name, reserved=0, scale=1.0)


def lock_scopes(connection: Connection, names: Iterable[str]) -> None:
    _lock(connection, scopes.c.name, set(names))


def lock_batches(connection: Connection, pks: Collection[int]) -> None:
    _lock(connection, batches.c.id, pks)


def _lock(connection: Connection, key: Column[Any], wanted: Collection[Any]) -> int:
    if not wanted:
        return 0
    return len(connection.execute(select(key).where(key.in_(list(wanted))).order_by(key).with_for_update()).all())


def _lock_or_insert(connection: Connection, table: Table, key: Column[Any], value: str, **fresh: Any) -> Any:
    while True:
        row = connection.execute(select(table).where(key == value).with_for_update()).one_or_none()
        if row is not None:
            return row
        insert_if_absent(connection, table, **{key.name: value}, **fresh)
