"""What a database must look like, and how an older one gets there.

Law: a database of other software, or of a newer batchor, is refused and left as it was; a migration runs whole or not
at all.
"""

from __future__ import annotations

from sqlalchemy import Connection, inspect, select

from batchor_engine.errors import ForeignStoreError
from batchor_engine.storage.schema import PRODUCT, SCHEMA_VERSION, metadata, schema_version


def found_version(connection: Connection, location: str) -> int | None:
    """The schema version of our own database, None for an empty one; ForeignStoreError for anybody else's."""
    tables = set(inspect(connection).get_table_names(schema=metadata.schema))
    if not tables:
        return None
    if schema_version.name not in tables or set(schema_version.c.keys()) - _columns(connection):
        raise ForeignStoreError(
            f"{location} holds tables of other software; it was left as it is. Name another file or schema."
        )
    version = connection.execute(
        select(schema_version.c.version).where(schema_version.c.product == PRODUCT)
    ).scalar_one_or_none()
    if version is None:
        raise ForeignStoreError(f"{location} holds another product's schema; it was left as it is. Name another file.")
    if version > SCHEMA_VERSION:
        raise ForeignStoreError(
            f"{location} has schema version {version}, this batchor knows up to {SCHEMA_VERSION}: install a newer one."
        )
    return version


def bring_up_to_date(connection: Connection, location: str) -> None:
    """Create the tables where there are none; later versions add their numbered steps here."""
    if found_version(connection, location) is None:
        metadata.create_all(connection)
        connection.execute(schema_version.insert().values(product=PRODUCT, version=SCHEMA_VERSION))


def _columns(connection: Connection) -> set[str]:
    return {column["name"] for column in inspect(connection).get_columns(schema_version.name, schema=metadata.schema)}
