"""Which databases the tests run on: BATCHOR_TEST_STORES, a list of kinds, "sqlite,postgres" where nothing is said.

Tests that ask for `store_url` or `store_kind` run on the first kind; those marked `every_store` on each of the list.
A PostgreSQL is started for the session where one is needed, unless BATCHOR_TEST_POSTGRES_DSN names one.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy.engine import make_url

from batchor_engine import StateStore
from batchor_engine.storage.registry import open_url
from batchor_engine.storage.schema import metadata

from .servers import session
from .servers.cut import Cut
from .servers.postgres import PostgresServer

KINDS = ("sqlite", "postgres")
STORES = tuple(os.environ.get("BATCHOR_TEST_STORES", ",".join(KINDS)).split(","))
assert set(STORES) <= set(KINDS), f"BATCHOR_TEST_STORES has unknown kinds: {STORES}"

POSTGRES_DSN = "BATCHOR_TEST_POSTGRES_DSN"
_MAIN = "main"


def begin_session() -> Path:
    """Make the folder of this session, for servers and what is temporary, before there are several processes."""
    folder = session.open_folder(session.fast_disk() / f"batchor-tests-{uuid.uuid4().hex[:6]}")
    session.watch(folder)
    os.environ[session.HOME] = str(folder)
    return folder


def end_session() -> None:
    PostgresServer(session.home() / _MAIN).stop()
    session.close_folder(session.home())


def new_home() -> Path:
    """A place for one more server, short enough for a socket and open to the user that it runs as."""
    return session.home() / uuid.uuid4().hex[:12]


def new_url(kind: str, folder: Path, *, own_server: bool = False) -> str:
    """The URL of a store that is not there yet; on this session's own server, where a test must know how it is made."""
    if kind == "sqlite":
        return f"sqlite:///{folder / 'runs.sqlite3'}"
    dsn = own_dsn() if own_server else postgres_dsn()
    return f"{dsn}{'&' if '?' in dsn else '?'}schema=t_{uuid.uuid4().hex[:12]}"


def through_a_cut(folder: Path) -> tuple[Cut, StateStore]:
    """A way to this session's own PostgreSQL that can be cut around a COMMIT, and a store at its end."""
    url = new_url("postgres", folder, own_server=True)
    server = Path(str(make_url(url).query["host"]))
    cut = Cut(folder / "s", server)
    return cut, open_url(url.replace(f"host={server}", f"host={folder / 's'}"))


def is_there(url: str) -> bool:
    """Whether anything was ever written there."""
    parsed = make_url(url)
    if _is_sqlite(url):
        return Path(str(parsed.database)).exists()
    with closing(_connect_postgres()) as connection:
        query = "SELECT 1 FROM pg_namespace WHERE nspname = %s"
        return connection.execute(query, [parsed.query["schema"]]).fetchone() is not None


def change(url: str, sql: str, *values: Any) -> None:
    """Break something behind the store's back; `?` stands for a value."""
    with _connected(url) as connection:
        connection.execute(sql if _is_sqlite(url) else sql.replace("?", "%s"), values)
        connection.commit()


def dump(url: str) -> str:
    """All values of all tables."""
    with _connected(url) as connection:
        tables = [connection.execute(f"SELECT * FROM {name}").fetchall() for name in metadata.tables]
        return "\n".join(repr(row) for rows in tables for row in rows)


@contextmanager
def _connected(url: str) -> Iterator[Any]:
    """A connection of the driver, on which bare names mean the store's tables."""
    parsed = make_url(url)
    driver: Any = sqlite3.connect(str(parsed.database)) if _is_sqlite(url) else _connect_postgres()
    with closing(driver) as connection:
        if not _is_sqlite(url):
            connection.execute(f'SET search_path TO "{parsed.query["schema"]}"')
        yield connection


def _connect_postgres() -> Any:
    import psycopg

    return psycopg.connect(postgres_dsn())


def _is_sqlite(url: str) -> bool:
    return make_url(url).get_backend_name() == "sqlite"


def open_at(url: str, now: Callable[[], datetime] | None = None) -> StateStore:
    return open_url(url, now=now)


def postgres_dsn() -> str:
    """The given server, or this session's own."""
    return os.environ.get(POSTGRES_DSN) or own_dsn()


def own_dsn() -> str:
    """This session's own server, which is started by whoever comes first."""
    with (session.home() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        server = PostgresServer(session.home() / _MAIN)
        if not server.running:
            server.start()
    return server.dsn
