"""Stores by kind or by URL.

Law: a store's module, and SQLAlchemy with it, is loaded when the first store of its kind is opened, not before.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from batchor_engine.ports.state import StateStore

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

POSTGRES_DSN = "BATCHOR_POSTGRES_DSN"
_POSTGRES_OPTIONS: dict[str, Callable[[Any], Any]] = {"schema": str, "pool_size": int, "statement_timeout_sec": float}

StorageFactory = Callable[[], StateStore]


class StorageKind(StrEnum):
    """Stores that come with the engine."""

    SQLITE = "sqlite"
    POSTGRES = "postgres"
    MEMORY = "memory"


class StorageRegistry:
    """Factories of stores by kind; a kind of your own is any other string."""

    def __init__(self) -> None:
        self._factories: dict[str, StorageFactory] = {}

    def register(self, *, kind: StorageKind | str, factory: StorageFactory) -> None:
        self._factories[str(kind)] = factory

    def create(self, kind: StorageKind | str) -> StateStore:
        """Open a store of this kind; ValueError where the kind is not registered."""
        factory = self._factories.get(str(kind))
        if factory is None:
            known = ", ".join(sorted(self._factories))
            raise ValueError(f"no store of kind {str(kind)!r} is registered (known: {known}); a URL needs '://'")
        return factory()


def build_default_storage_registry(*, provider_registry: Any = None) -> StorageRegistry:
    """A registry with the stores that come with the engine."""
    registry = StorageRegistry()

    def sqlite() -> StateStore:
        from batchor_engine.storage.sqlite import SQLiteStorage

        return SQLiteStorage(provider_registry=provider_registry)

    registry.register(kind=StorageKind.SQLITE, factory=sqlite)
    registry.register(kind=StorageKind.POSTGRES, factory=_postgres_of_the_environment)
    registry.register(kind=StorageKind.MEMORY, factory=_memory)
    return registry


def open_store(storage: str | StateStore | None, registry: StorageRegistry) -> StateStore:
    """A store as it is, by kind, or by URL; None is the default SQLite file."""
    if isinstance(storage, StateStore):
        return storage
    if storage is None:
        return registry.create(StorageKind.SQLITE)
    if not isinstance(cast(object, storage), str):
        raise TypeError(f"storage must be a store, a kind or a URL, not {type(storage).__name__}")
    return open_url(storage) if "://" in storage else registry.create(storage)


def open_url(url: str, *, now: Callable[[], datetime] | None = None) -> StateStore:
    """A store by URL: sqlite:///file, sqlite:// for memory, or postgresql://user:password@host/db?schema=name."""
    from batchor_engine.storage.engine import parse_url
    from batchor_engine.storage.sqlite import SQLiteStorage

    parsed = parse_url(url)
    match parsed.get_backend_name():
        case "sqlite" if parsed.host:
            # Two slashes make a file's name, or its first folder, a server's: another file would be opened, or none.
            path = f"{parsed.host}/{parsed.database}" if parsed.database else parsed.host
            raise ValueError(
                f"{parsed.host!r} would be a server, and SQLite has none: write sqlite:///{path}, with three slashes"
            )
        case "sqlite" if parsed.database:
            return SQLiteStorage(path=Path(parsed.database), now=now)
        case "sqlite":
            return _memory(now)
        case "postgresql" | "postgres":
            return _open_postgres(parsed, now)
        case other:
            raise ValueError(f"there is no store of kind {other!r}: use sqlite:///file.sqlite3 or postgresql://host/db")


def _memory(now: Callable[[], datetime] | None = None) -> StateStore:
    from batchor_engine.storage.memory import MemoryStateStore

    return MemoryStateStore(now=now)


def _open_postgres(url: URL, now: Callable[[], datetime] | None) -> StateStore:
    """What libpq does not know is ours: schema, pool_size, statement_timeout_sec."""
    from batchor_engine.storage.postgres import PostgresStorage

    ours = {name: kind(url.query[name]) for name, kind in _POSTGRES_OPTIONS.items() if name in url.query}
    rest = url.difference_update_query(ours)
    return PostgresStorage(dsn=rest.render_as_string(hide_password=False), now=now, **ours)


def _postgres_of_the_environment() -> StateStore:
    dsn = os.environ.get(POSTGRES_DSN, "")
    if not dsn:
        raise ValueError(f"the store kind 'postgres' needs {POSTGRES_DSN} in the environment; a URL needs no variable")
    return open_url(dsn)
