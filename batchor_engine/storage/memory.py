"""State that dies with the process: SQLite in memory, one connection behind one lock."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Connection

from batchor_engine.storage.engine import as_reader, open_memory
from batchor_engine.storage.migrations import bring_up_to_date
from batchor_engine.storage.store import SqlStateStore, T


class MemoryStateStore(SqlStateStore):
    """Runs of this process only; safe to share between threads, shares nothing with another instance."""

    def __init__(self, *, now: Callable[[], datetime] | None = None) -> None:
        super().__init__(now)
        self._lock = threading.RLock()
        self._engine = open_memory()
        # The connection is closed with the store, also by whoever forgets to.
        weakref.finalize(self, self._engine.dispose)
        with self._engine.begin() as connection:
            bring_up_to_date(connection, self.location)

    @property
    def location(self) -> str:
        return "memory"

    @property
    def default_artifact_root(self) -> str | None:
        return None

    def close(self) -> None:
        with self._lock:
            self._engine.dispose()

    def _writing(self, act: Callable[[Connection], T]) -> T:
        with self._lock, self._engine.begin() as connection:
            return act(connection)

    def _reading(self, act: Callable[[Connection], T], nothing: T) -> T:
        del nothing
        with self._lock, self._engine.connect() as connection, as_reader(connection).begin():
            return act(connection)
