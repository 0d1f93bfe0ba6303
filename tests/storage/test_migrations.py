"""A migrated database equals a fresh one, on both databases; a migration happens whole or not at all, and once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateIndex, CreateTable

from batchor_engine import StoreError
from batchor_engine.core.records import IngestPosition, NewRun
from batchor_engine.storage import migrations
from batchor_engine.storage.migrations import SCHEMA_VERSION, STEPS, bring_up_to_date
from batchor_engine.storage.schema import PRODUCT, metadata

from ..stores import change, dump, new_url, open_at

pytestmark = pytest.mark.every_store

HERE = Path(__file__).parent
# Plain SQL of the first released version, by database: written once by `python -m tests.storage.test_migrations`.
FIRST = {kind: HERE / f"version_1.{kind}.sql" for kind in ("sqlite", "postgres")}


@pytest.fixture
def store(store_url: str) -> Iterator[Any]:
    with closing(open_at(store_url)) as opened:
        yield opened


def make_first(store: Any, kind: str, url: str) -> None:
    """A database as version 1 left it, with a run in it."""
    store.create_run(NewRun("kept", {}, "/nowhere", IngestPosition("iterable", "list", "", 0)))
    with store.engine.begin() as connection:
        metadata.drop_all(connection)
    with store.engine.begin() as connection:
        if kind == "postgres":
            connection.execute(text(f'SET LOCAL search_path TO "{store.schema}"'))
        for statement in FIRST[kind].read_text("utf-8").split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(statement)
    change(url, "INSERT INTO schema_version (product, version) VALUES (?, 1)", PRODUCT)
    store.close()


def shape(engine: Engine, schema: str | None) -> dict[str, Any]:
    """Everything that the database itself says about its tables."""
    found = inspect(engine)

    def columns(table: str) -> list[tuple[Any, ...]]:
        facts = found.get_columns(table, schema)
        return [(one["name"], str(one["type"]), one["nullable"], one["default"] is None) for one in facts]

    def indexes(table: str) -> list[tuple[str, ...]]:
        facts = found.get_indexes(table, schema)
        return sorted(
            (str(one["name"]), *map(str, one["column_names"]), *(f"{k} {v}" for k, v in one["dialect_options"].items()))
            for one in facts
        )

    def uniques(table: str) -> list[tuple[str, ...]]:
        return sorted((str(one["name"]), *one["column_names"]) for one in found.get_unique_constraints(table, schema))

    def primary(table: str) -> list[str]:
        return found.get_pk_constraint(table, schema)["constrained_columns"]

    names = sorted(found.get_table_names(schema))
    return {name: (columns(name), primary(name), uniques(name), indexes(name)) for name in names}


def test_a_migrated_database_equals_a_fresh_one(store: Any, store_url: str, store_kind: str, tmp_path: Path) -> None:
    make_first(store, store_kind, store_url)
    fresh_folder = tmp_path / "fresh"
    fresh_folder.mkdir()
    with closing(open_at(store_url)) as old, closing(open_at(new_url(store_kind, fresh_folder))) as fresh:
        position = IngestPosition("iterable", "list", "", 0)
        for one in (old, fresh):
            assert one.create_run(NewRun("r", {}, "/nowhere", position))
        shapes = [shape(one.engine, getattr(one, "schema", None)) for one in (old, fresh)]  # type: ignore[attr-defined]
        assert shapes[0] == shapes[1]
        assert set(shapes[0]) == set(metadata.tables)


GROWN = {**STEPS, SCHEMA_VERSION + 1: ["ALTER TABLE runs ADD COLUMN mood TEXT", "CREATE INDEX by_mood ON runs (mood)"]}


def migrate(store: Any, engine: Engine, steps: Any) -> None:
    with engine.begin() as connection:
        bring_up_to_date(connection, store.location, getattr(store, "schema", None), steps=steps)


def test_a_step_changes_the_schema_once_and_keeps_the_rows(store: Any, store_url: str) -> None:
    store.create_run(NewRun("kept", {}, "/nowhere", IngestPosition("iterable", "list", "", 0)))
    engine = store.engine
    for _ in range(2):
        migrate(store, engine, GROWN)
    columns = [one["name"] for one in inspect(engine).get_columns("runs", getattr(store, "schema", None))]
    assert columns.count("mood") == 1
    assert repr((PRODUCT, SCHEMA_VERSION + 1)) in dump(store_url)
    assert "'kept'" in dump(store_url)


def test_a_step_that_fails_leaves_everything_as_it_was(store: Any) -> None:
    store.create_run(NewRun("kept", {}, "/nowhere", IngestPosition("iterable", "list", "", 0)))
    before = shape(store.engine, getattr(store, "schema", None))
    broken = {**STEPS, SCHEMA_VERSION + 1: [*GROWN[SCHEMA_VERSION + 1], "ALTER TABLE nowhere ADD COLUMN x TEXT"]}
    with pytest.raises(DBAPIError):
        migrate(store, store.engine, broken)
    assert shape(store.engine, getattr(store, "schema", None)) == before
    assert [run.run_id for run in store.runs()] == ["kept"]


def test_several_that_migrate_at_once_take_each_step_once(store: Any, store_url: str) -> None:
    store.create_run(NewRun("kept", {}, "/nowhere", IngestPosition("iterable", "list", "", 0)))
    gate = threading.Barrier(4)
    failures: list[BaseException] = []

    def work() -> None:
        with closing(open_at(store_url)) as mine:
            engine = mine.engine  # type: ignore[attr-defined]
            gate.wait()
            try:
                migrate(mine, engine, GROWN)
            except BaseException as error:
                failures.append(error)

    crowd = [threading.Thread(target=work) for _ in range(4)]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()
    assert failures == []


def test_a_read_of_an_older_schema_says_what_brings_it_up_to_date(
    store: Any, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create_run(NewRun("kept", {}, "/nowhere", IngestPosition("iterable", "list", "", 0)))
    monkeypatch.setattr(migrations, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
    with closing(open_at(store_url)) as later, pytest.raises(StoreError, match="it is brought up to date"):
        later.runs()


def write_first() -> None:
    """Only ever for version 1, before it was released."""
    from sqlalchemy.dialects import postgresql, sqlite

    for kind, dialect in (("sqlite", sqlite.dialect()), ("postgres", postgresql.dialect())):
        made = [CreateTable(table) for table in metadata.sorted_tables]
        indexes = [CreateIndex(one) for table in metadata.sorted_tables for one in sorted(table.indexes, key=str)]
        words = [str(one.compile(dialect=dialect)).strip() for one in [*made, *indexes]]
        lines = [line.rstrip() for line in (";\n".join(words) + ";\n").split("\n")]
        FIRST[kind].write_text("\n".join(lines), "utf-8")


if __name__ == "__main__":
    write_first()
