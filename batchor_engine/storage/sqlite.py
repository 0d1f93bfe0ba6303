"""State in one SQLite file: the default store."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine

from batchor_engine.storage.engine import as_reader, open_reader, open_writer
from batchor_engine.storage.migrations import SCHEMA_VERSION, bring_up_to_date, check_readable, found_version
from batchor_engine.storage.store import SqlStateStore, T


class SQLiteStorage(SqlStateStore):
    """Runs in a SQLite file: `path`, else ~/.batchor/<name>.sqlite3.

    The file is made by the first write, never by a read. A file of other software, or of a newer version, is refused
    with ForeignStoreError and left untouched.
    """

    def __init__(
        self,
        *,
        name: str = "default",
        path: str | Path | None = None,
        now: Callable[[], datetime] | None = None,
        engine: Engine | None = None,
        provider_registry: Any = None,
    ) -> None:
        super().__init__(now)
        self.path = Path(path).expanduser().absolute() if path is not None else self.default_path(name)
        self.provider_registry = provider_registry
        self._given = engine
        self._writer: Engine | None = engine
        self._reader: Engine | None = None
        self._checked = False
        self._version = 0
        self._opening = threading.RLock()

    @staticmethod
    def default_path(name: str) -> Path:
        """~/.batchor/<name>.sqlite3; a blank name means "default"."""
        return Path.home() / ".batchor" / f"{name.strip() or 'default'}.sqlite3"

    @property
    def location(self) -> str:
        return str(self.path)

    @property
    def default_artifact_root(self) -> str | None:
        return str(self.path.parent / f"{self.path.stem}_artifacts")

    @property
    def engine(self) -> Engine:
        """The SQLAlchemy engine that writes; opening it creates the file."""
        return self._open_engine()

    def close(self) -> None:
        with self._opening:
            for engine in (self._writer, self._reader):
                if engine is not None:
                    engine.dispose()
            self._writer, self._reader, self._checked = self._given, None, False

    def _writing(self, act: Callable[[Connection], T]) -> T:
        with self._open_engine().begin() as connection:
            return act(connection)

    def _reading(self, act: Callable[[Connection], T], nothing: T) -> T:
        reader = self._reading_engine()
        if reader is None:
            return nothing
        check_readable(self._version, self.location)
        with reader.connect() as connection, as_reader(connection).begin():
            return act(connection)

    def _open_engine(self) -> Engine:
        with self._opening:
            if self._writer is None or not self._checked:
                self._reading_engine()  # refuses a foreign file before a writer could touch it
                self._writer = self._writer or self._kept(open_writer(self.path))
                with self._writer.begin() as connection:
                    bring_up_to_date(connection, self.location)
                self._checked, self._version = True, SCHEMA_VERSION
            return self._writer

    def _reading_engine(self) -> Engine | None:
        """An engine for reads, None while there is nothing of ours to read."""
        with self._opening:
            if self._given is not None:
                return self._given if self._checked else None
            if self._reader is None:
                if not self.path.exists() or not self.path.stat().st_size:
                    return None
                reader = self._kept(open_reader(self.path))
                with reader.connect() as connection, as_reader(connection).begin():
                    version = found_version(connection, self.location)
                if version is None:
                    return None
                self._reader, self._version = reader, version
            return self._reader

    def _kept(self, engine: Engine) -> Engine:
        """Connections are closed with the store, also by whoever forgets to."""
        weakref.finalize(self, engine.dispose)
        return engine
