"""The SQLite file: what it refuses, and what it survives."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import event

from batchor_engine import MemoryStateStore, SQLiteStorage, StateStore
from batchor_engine.core.records import IngestPosition, Lease, NewItem, NewPart, NewRun
from batchor_engine.errors import ForeignStoreError, StoreBusyError, StoreError
from batchor_engine.states import RunControlState
from batchor_engine.storage.migrations import SCHEMA_VERSION
from batchor_engine.storage.registry import open_url
from batchor_engine.testing import ManualClock

START = IngestPosition("iterable", "list", "", 0)


def filled(store: StateStore, rows: int = 5) -> int:
    store.create_run(NewRun("r", {"compared": {}}, "/nowhere", START, {"k": "v"}))
    run = store.run("r")
    assert run is not None
    lease = store.acquire("run:r", "me", 60)
    assert not isinstance(lease, str)
    items = [NewItem(n, f"row-{n}", n * 10, 10, 3, 0, False) for n in range(rows)]
    part = NewPart("p", "s", 0, rows - 1, rows, rows * 10, rows * 3)
    position = IngestPosition("iterable", "list", "", rows, rows, finished=True)
    store.append_part(run.pk, lease, part=part, items=items, position=position, failures=None)
    store.release(lease)
    return run.pk


@pytest.mark.parametrize(
    ("url", "meant"),
    [("sqlite://runs.sqlite3", "sqlite:///runs.sqlite3"), ("sqlite://a/b/runs.sqlite3", "sqlite:///a/b/runs.sqlite3")],
)
def test_a_url_with_two_slashes_does_not_open_a_store_in_memory_or_elsewhere(url: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f"write {meant}, with three slashes"):
        open_url(url)


@pytest.fixture(params=["sqlite", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> StateStore:
    clock = ManualClock()
    return (
        SQLiteStorage(path=tmp_path / "s.sqlite3", now=clock.now) if request.param == "sqlite" else MemoryStateStore()
    )


def test_reads_of_a_store_that_is_not_there_create_nothing(tmp_path: Path) -> None:
    store = SQLiteStorage(path=tmp_path / "none" / "s.sqlite3")
    assert (store.run("r"), store.runs(), store.batches()) == (None, [], [])
    assert list(tmp_path.iterdir()) == []


def test_reads_work_on_a_read_only_file_in_a_read_only_folder(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    store = SQLiteStorage(path=folder / "s.sqlite3")
    filled(store)
    store.close()
    (folder / "s.sqlite3").chmod(0o400)
    folder.chmod(0o500)
    before = sorted(path.name for path in folder.iterdir())
    try:
        run = SQLiteStorage(path=folder / "s.sqlite3").run("r")
        assert run is not None
        assert run.total_items == 5
        assert sorted(path.name for path in folder.iterdir()) == before or os.geteuid() == 0
    finally:
        folder.chmod(0o700)


def test_reads_go_on_while_a_writer_holds_the_database(tmp_path: Path) -> None:
    store = SQLiteStorage(path=tmp_path / "s.sqlite3")
    filled(store)
    with store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE runs SET revision = revision + 1")
        other = SQLiteStorage(path=tmp_path / "s.sqlite3")
        run = other.run("r")
        assert run is not None
        assert run.total_items == 5


def test_a_reader_never_writes(store: StateStore) -> None:
    filled(store)
    engine = store.engine if isinstance(store, SQLiteStorage) else store._engine  # type: ignore[attr-defined]
    said: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *args: said.append(args[2].split()[0].upper()))
    run = store.run("r")
    assert run is not None
    store.runs()
    store.segments(run.pk)
    store.fresh_parts(run.pk, limit=5)
    store.next_retry_at(run.pk)
    store.waiting_runs()
    assert set(said) <= {"SELECT", "BEGIN"}


def test_a_lock_that_never_ends_is_said_clearly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchor_engine.storage.engine.BUSY_TIMEOUT_SEC", 0.05)
    store = SQLiteStorage(path=tmp_path / "s.sqlite3")
    filled(store)
    blocker = sqlite3.connect(tmp_path / "s.sqlite3", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusyError, match=r"s\.sqlite3"):
        store.set_control("r", RunControlState.PAUSED, reason="manual")
    blocker.execute("ROLLBACK")
    blocker.close()
    assert store.set_control("r", RunControlState.PAUSED, reason="manual").control is RunControlState.PAUSED


def test_a_file_of_other_software_is_refused_and_left_untouched(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite3"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE runs (id TEXT)")
    connection.close()
    before = path.read_bytes()
    store = SQLiteStorage(path=path)
    with pytest.raises(ForeignStoreError, match="other software"):
        store.run("r")
    with pytest.raises(ForeignStoreError, match="other software"):
        store.create_run(NewRun("r", {}, "x", START))
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["s.sqlite3"]


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite3"
    store = SQLiteStorage(path=path)
    filled(store)
    store.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE schema_version SET version = ?", (SCHEMA_VERSION + 1,))
    connection.close()
    with pytest.raises(ForeignStoreError, match="newer"):
        SQLiteStorage(path=path).run("r")


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("id,text\n" * 200)
    with pytest.raises(ForeignStoreError, match="not a database"):
        SQLiteStorage(path=path).run("r")


def damage_a_page(content: bytes) -> bytes:
    return content[:4096] + b"\xa5" * (len(content) - 4096)


def damage_a_name(content: bytes) -> bytes:
    return content.replace(b"CREATE TABLE runs", b"CREATE TABLE \x96uns")


def damage_a_text(content: bytes) -> bytes:
    return content.replace(b"/nowhere", b"/\xff\xfewhere")


@pytest.mark.parametrize("damage", [damage_a_page, damage_a_name, damage_a_text])
def test_a_damaged_file_is_named_with_the_way_out_and_left_as_it_is(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "s.sqlite3"
    with closing(SQLiteStorage(path=path)) as whole:
        filled(whole)
    bad = damage(path.read_bytes())
    assert bad != path.read_bytes()
    path.write_bytes(bad)
    for act in (SQLiteStorage.runs, lambda store: store.set_control("r", RunControlState.PAUSED, reason="manual")):
        with (
            closing(SQLiteStorage(path=path)) as store,
            pytest.raises(StoreError, match=r"s\.sqlite3 is damaged; nothing was changed.*restore a backup") as caught,
        ):
            act(store)
        assert "SQL:" not in str(caught.value)
        assert "where" not in str(caught.value)
    assert path.read_bytes() == bad


def test_a_folder_in_the_place_of_the_file_is_named(tmp_path: Path) -> None:
    store = SQLiteStorage(path=tmp_path)
    for act in (store.runs, lambda: store.acquire("run:r", "me", 60)):
        with pytest.raises(StoreError, match=f"{tmp_path} is a folder: name a file"):
            act()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        SQLiteStorage(path=tmp_path / "file" / "s.sqlite3").create_run(NewRun("r", {}, "x", START))


def test_database_and_side_files_are_the_owners_alone(tmp_path: Path) -> None:
    store = SQLiteStorage(path=tmp_path / "deep" / "s.sqlite3")
    filled(store)
    names = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "deep").iterdir()}
    assert names["s.sqlite3"] == 0o600
    assert set(names.values()) == {0o600}
    assert (tmp_path / "deep").stat().st_mode & 0o777 == 0o700


def test_a_commit_survives_power_loss(tmp_path: Path) -> None:
    store = SQLiteStorage(path=tmp_path / "s.sqlite3")
    with store.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"


def test_memory_store_is_safe_between_threads() -> None:
    store = MemoryStateStore()
    filled(store, rows=50)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(50):
                store.run("r")
                lease = store.acquire("x", threading.current_thread().name, 60)
                if not isinstance(lease, str):
                    store.release(lease)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_several_that_open_a_new_file_at_once_all_succeed(tmp_path: Path) -> None:
    def opened(path: Path, together: threading.Barrier, name: str) -> object:
        with closing(SQLiteStorage(path=path)) as store:
            together.wait(30.0)
            return store.acquire(name, "me", 60.0)

    with ThreadPoolExecutor(4) as workers:
        # Without waiting, one pair in eleven fails.
        for number in range(40):
            path, together = tmp_path / f"{number}.sqlite3", threading.Barrier(4)
            begun = [workers.submit(opened, path, together, f"run:{worker}") for worker in range(4)]
            assert all(isinstance(one.result(), Lease) for one in begun)


def test_who_leaves_the_database_takes_no_log_from_who_stays(tmp_path: Path) -> None:
    """A process that closes a handle of the file, any handle, loses its locks on it, and looks as if it had left."""
    path = tmp_path / "s.sqlite3"
    first = SQLiteStorage(path=path)
    filled(first)
    first.close()
    staying = SQLiteStorage(path=path)
    assert staying.run("r") is not None
    staying.acquire("run:r", "me", 60)
    leaves = "import sqlite3, sys; it = sqlite3.connect(sys.argv[1]); it.execute('BEGIN IMMEDIATE'); it.close()"
    subprocess.run([sys.executable, "-c", leaves, str(path)], check=True)
    assert path.with_name("s.sqlite3-wal").exists()
