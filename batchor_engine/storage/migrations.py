"""What a database must look like, and how an older one gets there.

Law: a database of other software, or of a newer batchor, is refused and left as it was; a migration runs whole or not
at all, by one process at a time. A migrated database equals a fresh one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, inspect, select

from batchor_engine.errors import ForeignStoreError, StoreError
from batchor_engine.storage.dialect import begin_migration, create_schema
from batchor_engine.storage.schema import PRODUCT, metadata, schema_version

# Statements that bring a database from version n - 1 to n, written so that SQLite and PostgreSQL both take them: bare
# table names, types that both know. A step that was released is never changed.
STEPS: Mapping[int, Sequence[str]] = {}
SCHEMA_VERSION = max(STEPS, default=1)


def found_version(
    connection: Connection, location: str, schema: str | None = None, *, newest: int = SCHEMA_VERSION
) -> int | None:
    """The schema version of our own database, None for an empty one; ForeignStoreError for anybody else's."""
    tables = set(inspect(connection).get_table_names(schema=schema))
    if not tables:
        return None
    if schema_version.name not in tables or set(schema_version.c.keys()) - _columns(connection, schema):
        raise ForeignStoreError(
            f"{location} holds tables of other software; it was left as it is. Name another file or schema."
        )
    version = connection.execute(
        select(schema_version.c.version).where(schema_version.c.product == PRODUCT)
    ).scalar_one_or_none()
    if version is None:
        raise ForeignStoreError(f"{location} holds another product's schema; it was left as it is. Name another file.")
    if version > newest:
        raise ForeignStoreError(
            f"{location} has schema version {version}, this batchor knows up to {newest}: install a newer one."
        )
    return version


def check_readable(version: int, location: str) -> None:
    """StoreError for an older schema: a read changes nothing, so it cannot migrate."""
    if version < SCHEMA_VERSION:
        raise StoreError(
            f"{location} has schema version {version}, this batchor reads {SCHEMA_VERSION}: start or advance any run, "
            "and it is brought up to date."
        )


def bring_up_to_date(
    connection: Connection, location: str, schema: str | None = None, *, steps: Mapping[int, Sequence[str]] = STEPS
) -> None:
    """Create the tables where there are none, else take the steps from the version that is there to the newest."""
    newest = max(steps, default=1)
    begin_migration(connection, schema)
    version = found_version(connection, location, schema, newest=newest)
    if version is None:
        create_schema(connection, schema)
        metadata.create_all(connection)
        connection.execute(schema_version.insert().values(product=PRODUCT, version=newest))
        return
    for step in range(version + 1, newest + 1):
        for statement in steps[step]:
            connection.exec_driver_sql(statement)
    if version < newest:
        connection.execute(schema_version.update().values(version=newest))


def _columns(connection: Connection, schema: str | None) -> set[str]:
    return {column["name"] for column in inspect(connection).get_columns(schema_version.name, schema=schema)}
