"""State in one SQLite file: the default store."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine

from batchor_engine.errors import StoreError
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
        # Engines to close, also for whoever forgets to, in this order.
        self._opened: list[Engine] = []
        weakref.finalize(self, _close_all, self._opened)

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
    def folder(self) -> str | None:
        # A link to the file is another name of it, not another place.
        return os.path.dirname(os.path.realpath(self.path))

    @property
    def engine(self) -> Engine:
        """The SQLAlchemy engine that writes; opening it creates the file."""
        return self._open_engine()

    def close(self) -> None:
        with self._opening:
            _close_all(self._opened)
            if self._given is not None:
                self._given.dispose()
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
                if self._writer is None:
                    self._writer = open_writer(self.path)
                    self._opened.append(self._writer)
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
                if self.path.is_dir():
                    raise StoreError(f"The store {self.path} is a folder: name a file, such as one in it.")
                if not self.path.exists() or not self.path.stat().st_size:
                    return None
                reader, version = open_reader(self.path), None
                try:
                    with reader.connect() as connection, as_reader(connection).begin():
                        version = found_version(connection, self.location)
                finally:
                    if version is None:
                        reader.dispose()
                if version is None:
                    return None
                self._opened.insert(0, reader)
                self._reader, self._version = reader, version
            return self._reader


def _close_all(engines: list[Engine]) -> None:
    """The writer comes last: who leaves last folds the write-ahead log into the file, and a reader may not."""
    while engines:
        engines.pop(0).dispose()
