"""Opening databases: one function for every URL, and what SQLite needs to be safe.

Law: a writer takes the write lock when it begins (BEGIN IMMEDIATE), so that what it read is still true when it writes.
A reader takes none, changes nothing, and works on a file it may not write.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, StaticPool, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from batchor_engine.errors import StoreError

BUSY_TIMEOUT_SEC = 60.0


def parse_url(url: str) -> URL:
    """Read a store URL; ValueError where it is none."""
    try:
        return make_url(url)
    except ArgumentError:
        raise ValueError(
            "not a store URL: use sqlite:///relative.sqlite3, sqlite:////absolute.sqlite3 or postgresql://host/db"
        ) from None


def open_memory() -> Engine:
    """A private database in memory: one connection, which its owner guards with one lock."""
    engine = create_engine(
        "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}, hide_parameters=True
    )
    _take_over_transactions(engine, wal=False)
    return engine


def open_writer(path: Path) -> Engine:
    """A SQLite file for writing, created with its directory, owner-only, where it is not there."""
    _make_private(path)
    engine = create_engine(
        URL.create("sqlite", database=str(path)), connect_args={"timeout": BUSY_TIMEOUT_SEC}, hide_parameters=True
    )
    _take_over_transactions(engine, wal=True)
    return engine


def open_reader(path: Path) -> Engine:
    """A SQLite file for reading only."""

    def connect() -> sqlite3.Connection:
        return _connect_readonly(path)

    engine = create_engine("sqlite://", creator=connect, hide_parameters=True)
    _take_over_transactions(engine, wal=False)
    return engine


def as_reader(connection: Connection) -> Connection:
    """The same connection, whose transactions take no write lock."""
    return connection.execution_options(batchor_reader=True)


def _make_private(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise StoreError(
            f"Cannot open the store {path} for writing ({error.strerror}): name a file in a directory you may write."
        ) from None


def _connect_readonly(path: Path) -> sqlite3.Connection:
    """mode=ro needs the WAL side files or a writable directory; without either nobody writes, so immutable is true."""
    options = ["mode=ro"]
    side_files = any(path.with_name(path.name + suffix).exists() for suffix in ("-wal", "-shm"))
    if not side_files and not os.access(path.parent, os.W_OK):
        options.append("immutable=1")
    uri = f"file:{quote(str(path))}?{'&'.join(options)}"
    return sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_SEC, check_same_thread=False)


def _take_over_transactions(engine: Engine, *, wal: bool) -> None:
    """The driver's own BEGIN would start a reader that turns writer half way and then fails as "locked"."""

    def on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        if wal:
            with closing(connection.cursor()) as cursor:
                cursor.execute("PRAGMA journal_mode=WAL")
                # An acknowledged intent must survive a power cut (API.md T6.11).
                cursor.execute("PRAGMA synchronous=FULL")

    def on_begin(connection: Connection) -> None:
        reads = connection.get_execution_options().get("batchor_reader", False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)
