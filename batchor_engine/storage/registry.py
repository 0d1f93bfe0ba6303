"""Stores by kind or by URL."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

from batchor_engine.ports.state import StateStore
from batchor_engine.storage.engine import parse_url
from batchor_engine.storage.memory import MemoryStateStore
from batchor_engine.storage.sqlite import SQLiteStorage

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
    registry.register(kind=StorageKind.SQLITE, factory=lambda: SQLiteStorage(provider_registry=provider_registry))
    registry.register(kind=StorageKind.MEMORY, factory=MemoryStateStore)
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


def open_url(url: str) -> StateStore:
    """A store by URL: sqlite:///file, or sqlite:// for memory."""
    parsed = parse_url(url)
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        return SQLiteStorage(path=Path(parsed.database)) if parsed.database else MemoryStateStore()
    raise ValueError(f"stores of kind {backend!r} are not supported yet: use sqlite:///file.sqlite3")
