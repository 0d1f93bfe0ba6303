"""State in a PostgreSQL database: many workers on many machines share it."""

from __future__ import annotations

import hashlib
import re
import threading
import time
import weakref
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.engine import URL

from batchor_engine.storage.dialect import server_time
from batchor_engine.storage.engine import as_snapshot, in_schema, open_server, parse_url, without_secrets
from batchor_engine.storage.migrations import SCHEMA_VERSION, bring_up_to_date, check_readable, found_version
from batchor_engine.storage.store import SqlStateStore, T
from batchor_engine.storage.transactions import Transactions

DEFAULT_SCHEMA = "batchor"
_CLOCK_LASTS_SEC = 60.0


class PostgresStorage(SqlStateStore):
    """Runs in one schema of a PostgreSQL database: `dsn` is a URL (postgresql://user:password@host/db?sslmode=require).

    The schema is made by the first write, never by a read. A schema with tables of other software, or of a newer
    version, is refused with ForeignStoreError and left untouched. Without `now`, time is the server's, so that a wrong
    clock of one machine cannot shorten another's lease. An `engine` of yours is used as it is; `dsn` then only names
    the place.
    """

    def __init__(
        self,
        *,
        dsn: str,
        schema: str = DEFAULT_SCHEMA,
        now: Callable[[], datetime] | None = None,
        engine: Engine | None = None,
        provider_registry: Any = None,
        pool_size: int = 5,
        statement_timeout_sec: float = 300.0,
    ) -> None:
        super().__init__(now or self._server_now)
        self.schema = _checked_schema(schema)
        self.provider_registry = provider_registry
        url = server_url(dsn)
        self._database = url.database or "postgres"
        place = url.set(drivername="postgresql").update_query_dict({"schema": schema})
        self._location = without_secrets(place.render_as_string(hide_password=False), user=False)
        self.engine = (
            in_schema(engine, schema)
            if engine is not None
            else open_server(url, schema, pool_size=pool_size, statement_timeout_sec=statement_timeout_sec)
        )
        self._snapshots = as_snapshot(self.engine)
        self._transactions = Transactions(self.engine, self._location)
        self._owns_engine = engine is None
        self._ready = False
        self._opening = threading.Lock()
        self._ahead_sec, self._clock_read_at = 0.0, float("-inf")
        if self._owns_engine:
            # Connections are closed with the store, also by whoever forgets to.
            weakref.finalize(self, self.engine.dispose)

    def __repr__(self) -> str:
        return f"PostgresStorage({self._location!r})"

    @property
    def location(self) -> str:
        return self._location

    @property
    def default_artifact_root(self) -> str | None:
        name = re.sub(r"[^A-Za-z0-9_-]+", "_", f"{self._database}_{self.schema}")
        mark = hashlib.sha256(self._location.encode()).hexdigest()[:8]
        return str(Path.home() / ".batchor" / f"{name}_{mark}_artifacts")

    def close(self) -> None:
        if self._owns_engine:
            self.engine.dispose()

    def _writing(self, act: Callable[[Connection], T]) -> T:
        self._prepare()
        self._read_clock()
        return self._transactions.write(act)

    def _reading(self, act: Callable[[Connection], T], nothing: T) -> T:
        if not self._ready:
            version = self._version()
            if version is None:
                return nothing
            check_readable(version, self._location)
            self._ready = True
        return self._transactions.read(act, self._snapshots)

    def _prepare(self) -> None:
        with self._opening:
            if not self._ready and self._version() != SCHEMA_VERSION:
                self._transactions.write(lambda it: bring_up_to_date(it, self._location, self.schema))
            self._ready = True

    def _version(self) -> int | None:
        return self._transactions.read(lambda it: found_version(it, self._location, self.schema), self._snapshots)

    # --- the clock

    def _server_now(self) -> datetime:
        with self._told_clearly():
            self._read_clock()
        return datetime.fromtimestamp(time.time() + self._ahead_sec, UTC)

    def _read_clock(self) -> None:
        """Measure once a minute how far the server's clock is ahead of this machine's."""
        if time.monotonic() - self._clock_read_at < _CLOCK_LASTS_SEC:
            return

        def measure(connection: Connection) -> float:
            asked = time.time()
            theirs = server_time(connection)
            return theirs - (asked + time.time()) / 2

        self._ahead_sec = self._transactions.read(measure, self._snapshots)
        self._clock_read_at = time.monotonic()


def server_url(dsn: str) -> URL:
    """The URL with the driver named, so that no default of SQLAlchemy decides, and its password where it is hidden."""
    url = parse_url(dsn)
    if url.get_backend_name() not in {"postgresql", "postgres"}:
        raise ValueError("not a PostgreSQL URL: use postgresql://user:password@host:5432/database")
    query = dict(url.query)
    if "password" in query:
        url = url.set(password=str(query.pop("password")), query=query)
    return url.set(drivername="postgresql+psycopg")


def _checked_schema(schema: str) -> str:
    if not schema or len(schema.encode()) > 63 or "\0" in schema:
        raise ValueError(f"schema must have 1 to 63 characters, not {schema!r}")
    return schema
