"""All in which the databases differ once a connection is open: the rest of this folder is the same SQL for both.

Law: a caller never asks which database it is.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping, Sequence
from enum import Enum, auto
from typing import Any

from sqlalchemy import Connection, Table, func, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.schema import CreateSchema


class Trouble(Enum):
    """What a database error means for the transaction it ended."""

    LOST = auto()  # the connection is gone, or there is none to be had
    CONFLICT = auto()  # rolled back because of another transaction; the same again may succeed
    BUSY = auto()  # waited for too long
    FOREIGN = auto()  # not a database
    DAMAGED = auto()  # a database of ours once
    UNUSABLE = auto()  # no permission, no space, no such database
    DEFECT = auto()  # a mistake in this program


_BY_STATE = {
    "40001": Trouble.CONFLICT,
    "40P01": Trouble.CONFLICT,
    "55P03": Trouble.BUSY,
    "57014": Trouble.BUSY,
    "53300": Trouble.LOST,
    "57P01": Trouble.LOST,
    "57P02": Trouble.LOST,
    "57P03": Trouble.LOST,
    "25P03": Trouble.LOST,
}
_BY_CLASS = {
    "08": Trouble.LOST,
    "25": Trouble.UNUSABLE,
    "28": Trouble.UNUSABLE,
    "3D": Trouble.UNUSABLE,
    "3F": Trouble.UNUSABLE,
    "42": Trouble.DEFECT,
    "53": Trouble.UNUSABLE,
    "57": Trouble.UNUSABLE,
    "58": Trouble.UNUSABLE,
}


def trouble_of(error: DBAPIError) -> Trouble:
    """What went wrong, from the driver's codes; SQLite has few, so there it is the text too."""
    if error.connection_invalidated:
        return Trouble.LOST
    if not hasattr(error.orig, "sqlstate"):
        return _trouble_of_sqlite(error)
    driver: Any = error.orig
    state: str | None = driver.sqlstate
    if state is None:
        # libpq reports no code where no connection came about.
        return Trouble.LOST if isinstance(error, OperationalError) else Trouble.DEFECT
    if state == "42501":
        return Trouble.UNUSABLE
    return _BY_STATE.get(state) or _BY_CLASS.get(state[:2], Trouble.DEFECT)


def _trouble_of_sqlite(error: DBAPIError) -> Trouble:
    said = str(error.orig)
    # The upper bits say in what the damage lies. Of text that is none the driver itself complains, without a code.
    code: int = getattr(error.orig, "sqlite_errorcode", 0)
    if code & 0xFF == sqlite3.SQLITE_CORRUPT or said.startswith("Could not decode"):
        return Trouble.DAMAGED
    if "locked" in said:
        return Trouble.BUSY
    if "not a database" in said:
        return Trouble.FOREIGN
    return Trouble.UNUSABLE if isinstance(error, OperationalError) else Trouble.DEFECT


def quotes_rows(error: DBAPIError) -> bool:
    """Whether the driver's own text may hold values of rows."""
    return hasattr(error.orig, "sqlstate")


def said_by(error: DBAPIError) -> str:
    """The database's own words, without its details: those may quote rows."""
    primary = getattr(getattr(error.orig, "diag", None), "message_primary", None)
    return primary or " ".join(str(error.orig).split())


def insert_if_absent(connection: Connection, table: Table, **values: Any) -> bool:
    """Insert a row unless its key is there; waits for a transaction that is inserting the same. True if inserted."""
    insert: Any = postgresql.insert if _is_postgres(connection) else sqlite.insert
    statement = insert(table).values(**values).on_conflict_do_nothing().returning(*table.primary_key)
    return connection.execute(statement).first() is not None


def insert_many(
    connection: Connection,
    table: Table,
    names: Sequence[str],
    rows: Sequence[tuple[Any, ...]],
    common: Mapping[str, int | None],
) -> None:
    """Insert rows, given as tuples in the order of `names`, with what is `common` to all of them."""
    if not rows:
        return
    columns = ", ".join((*common, *names))
    if not _is_postgres(connection):
        # Past SQLAlchemy's parameters, which take longer than SQLite does; integers and texts need none of them.
        same = ["NULL" if value is None else str(int(value)) for value in common.values()]
        values = ", ".join((*same, *"?" * len(names)))
        connection.exec_driver_sql(f"INSERT INTO {table.name} ({columns}) VALUES ({values})", list(rows))  # noqa: S608 - names and numbers of our own
        return
    # COPY takes a quarter of the time of a statement for each row.
    schema = connection.get_execution_options()["schema_translate_map"][None]
    command = f"COPY {_quoted(schema)}.{table.name} ({columns}) FROM STDIN"
    first = tuple(common.values())
    speaks: Any = connection.dialect
    pooled: Any = connection.connection
    driver = pooled.driver_connection
    try:
        with driver.cursor() as cursor, cursor.copy(command) as stream:
            for row in rows:
                stream.write_row((*first, *row))
    except speaks.dbapi.Error as error:
        raise _as_of_sqlalchemy(connection, driver, command, error) from None


def _as_of_sqlalchemy(connection: Connection, driver: Any, command: str, error: Exception) -> BaseException:
    """What SQLAlchemy would have raised, had it spoken to the driver."""
    speaks: Any = connection.dialect
    lost = bool(speaks.is_disconnect(error, driver, None))
    if lost:
        connection.invalidate(error)
    return DBAPIError.instance(
        command, None, error, speaks.dbapi.Error, hide_parameters=True, connection_invalidated=lost, dialect=speaks
    )


def begin_migration(connection: Connection, schema: str | None) -> None:
    """Let nobody else migrate until this transaction ends, and let bare table names mean those of `schema`."""
    if not _is_postgres(connection):
        return  # BEGIN IMMEDIATE is such a lock
    name = schema or "public"
    key = int.from_bytes(hashlib.sha256(f"batchor_engine:{name}".encode()).digest()[:8], signed=True)
    connection.execute(select(func.pg_advisory_xact_lock(key)))
    connection.execute(select(func.set_config("search_path", _quoted(name), True)))


def create_schema(connection: Connection, schema: str | None) -> None:
    """Make the schema unless it is there; who may use it needs no right to make it."""
    if schema is None or not _is_postgres(connection):
        return
    there = connection.execute(select(func.to_regnamespace(_quoted(schema)))).scalar_one()
    if there is None:
        connection.execute(CreateSchema(schema))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def server_time(connection: Connection) -> float:
    """The server's clock, seconds since 1970."""
    return float(connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())


def _is_postgres(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"
