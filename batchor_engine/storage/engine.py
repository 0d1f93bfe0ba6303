"""Opening databases, and what each of them needs to be safe.

Law: a SQLite writer takes the write lock when it begins (BEGIN IMMEDIATE), so that what it read is still true when it
writes. A reader takes none, changes nothing, and works on a file it may not write. What was committed survives a power
cut. No message and no repr shows a password.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, StaticPool, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DisconnectionError

from batchor_engine.errors import StoreError

BUSY_TIMEOUT_SEC = 60.0
_WAL_PAUSE_SEC = 0.005
# Nobody of this process may have the file open yet while it is created.
_CREATING = threading.Lock()
# A worker that is stopped within a transaction gives its locks back after this.
IDLE_TIMEOUT_SEC = 60.0
CONNECT_TIMEOUT_SEC = 10
_SHOWN = ("host", "port", "dbname", "schema")


def parse_url(url: str) -> URL:
    """Read a store URL; ValueError, which does not repeat it, where it is none."""
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        raise ValueError(
            "not a store URL: use sqlite:///relative.sqlite3, sqlite:////absolute.sqlite3 or postgresql://host/db"
        ) from None


def without_secrets(url: str, *, user: bool = True) -> str:
    """The URL as it may be shown and pasted: the password and options that may hold one are left out."""
    parsed = parse_url(url)
    return URL.create(
        parsed.drivername,
        username=parsed.username if user else None,
        host=parsed.host,
        port=parsed.port,
        database=parsed.database,
        query={name: parsed.query[name] for name in _SHOWN if name in parsed.query},
    ).render_as_string()


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


def open_server(url: URL, schema: str, *, pool_size: int, statement_timeout_sec: float) -> Engine:
    """A PostgreSQL database; connections are opened when they are needed."""
    try:
        import psycopg as _psycopg
    except ImportError:
        raise ImportError("PostgreSQL needs psycopg: pip install 'batchor-dagster[postgres]'") from None
    del _psycopg
    # Keepalives do not run while something sent is unacknowledged; the kernel alone would wait a quarter of an hour.
    alive = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 60_000}
    options = {"connect_timeout": CONNECT_TIMEOUT_SEC, "application_name": "batchor", **alive, **url.query}
    engine = create_engine(
        # The repr of an engine shows its URL.
        url.difference_update_query([name for name in url.query if "password" in name]),
        connect_args=options,
        pool_size=pool_size,
        max_overflow=pool_size,
        hide_parameters=True,
        isolation_level="READ COMMITTED",
    )
    _set_up_sessions(engine, statement_timeout_sec)
    _leave_to_the_parent(engine)
    return in_schema(engine, schema)


def in_schema(engine: Engine, schema: str) -> Engine:
    """The same engine, whose statements find the tables in `schema`."""
    return engine.execution_options(schema_translate_map={None: schema})


def as_snapshot(engine: Engine) -> Engine:
    """The same engine, whose transactions see one moment and can change nothing."""
    return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def as_reader(connection: Connection) -> Connection:
    """The same connection, whose transactions take no write lock."""
    return connection.execution_options(batchor_reader=True)


def _make_private(path: Path) -> None:
    """Create the file where it is not there; one that is there is not opened.

    A process loses all its locks on a file when it closes any handle of it, so SQLite's other connections to it would
    stand there without: whoever leaves the database then takes himself for the last, and deletes the log in use.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _CREATING:
            _create_or_check(path)
    except OSError as error:
        raise StoreError(
            f"Cannot open the store {path} for writing ({error.strerror}): name a file in a directory you may write."
        ) from None


def _create_or_check(path: Path) -> None:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        if not os.access(path, os.R_OK | os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None


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
                _turn_on_wal(cursor)
                # An acknowledged intent must survive a power cut (API.md T6.11).
                cursor.execute("PRAGMA synchronous=FULL")

    def on_begin(connection: Connection) -> None:
        reads = connection.get_execution_options().get("batchor_reader", False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)


def _turn_on_wal(cursor: sqlite3.Cursor) -> None:
    """Two who open a new file at once are refused at once, unlike by any other statement, so this waits by itself."""
    patience = monotonic() + BUSY_TIMEOUT_SEC
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or monotonic() > patience:
                raise
            sleep(_WAL_PAUSE_SEC)
        else:
            return


def _set_up_sessions(engine: Engine, statement_timeout_sec: float) -> None:
    settings = {
        # An acknowledged intent must survive a power cut (API.md T6.11), whatever the server's default is.
        "synchronous_commit": "on",
        "lock_timeout": f"{BUSY_TIMEOUT_SEC * 1000:.0f}",
        "statement_timeout": f"{statement_timeout_sec * 1000:.0f}",
        "idle_in_transaction_session_timeout": f"{IDLE_TIMEOUT_SEC * 1000:.0f}",
    }
    query = "SELECT " + ", ".join("set_config(%s, %s, false)" for _ in settings)

    def on_connect(connection: Any, _record: Any) -> None:
        connection.autocommit = True
        connection.execute(query, [word for pair in settings.items() for word in pair])
        connection.autocommit = False

    event.listen(engine, "connect", on_connect)


def _leave_to_the_parent(engine: Engine) -> None:
    """A forked child that used its parent's connections would mix its words into the parent's."""

    def on_connect(_connection: Any, record: Any) -> None:
        record.info["pid"] = os.getpid()

    def on_checkout(_connection: Any, record: Any, proxy: Any) -> None:
        if record.info["pid"] != os.getpid():
            record.dbapi_connection = proxy.dbapi_connection = None
            raise DisconnectionError("this connection belongs to the parent process")

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "checkout", on_checkout)
