"""Receipts: what a server says of transactions after it was killed in the middle of a COMMIT."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from queue import Queue
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, event, select

from batchor_engine import PostgresStorage, RunControlState, StoreError
from batchor_engine.core.records import IngestPosition, Lease, NewRun
from batchor_engine.storage import receipts, transactions
from batchor_engine.storage.registry import open_url
from batchor_engine.storage.schema import leases

from ..servers.cut import Cut
from ..servers.postgres import PostgresServer
from ..stores import STORES, new_home, new_url, postgres_dsn, through_a_cut

pytestmark = pytest.mark.skipif("postgres" not in STORES, reason="BATCHOR_TEST_STORES leaves PostgreSQL out")

NEW = NewRun("r", {"compared": {}}, "/nowhere", IngestPosition("iterable", "list", "", 0))
NUMBER = "SELECT pg_current_xact_id()::text"


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """It writes its log to disk at a COMMIT and no sooner."""
    made = PostgresServer(new_home())
    made.start()
    with closing(psycopg.connect(made.dsn, autocommit=True)) as admin:
        admin.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
        admin.execute("SELECT pg_reload_conf()")
    yield made
    made.destroy()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return new_url("postgres", tmp_path)


@pytest.fixture
def store(url: str) -> Iterator[PostgresStorage]:
    with closing(open_url(url)) as opened:
        assert isinstance(opened, PostgresStorage)
        yield opened


def left(store: PostgresStorage) -> dict[str, int]:
    """The fence of each receipt."""
    query = select(leases.c.resource, leases.c.fence).where(leases.c.resource.startswith("commits:"))
    return {row.resource: row.fence for row in store._read(lambda it: it.execute(query).all(), [])}


@pytest.mark.parametrize("others", [0, 1])
def test_a_transaction_that_a_killed_server_lost_is_done_again(server: PostgresServer, others: int) -> None:
    """The server gives the lost one's number to `others`, who commit: its word on that number is about them."""
    with closing(open_url(server.dsn)) as store:
        store.create_run(NEW)
        before, lease = store.run("r"), store.acquire("run:r", "me", 600)
        assert before is not None
        assert isinstance(lease, Lease)
        numbers: list[str] = []

        def kill(connection: Connection) -> None:
            if not numbers:
                numbers.append(connection.exec_driver_sql(NUMBER).scalar_one())
                server.kill()
                server.start()
                for _ in range(others):
                    with psycopg.connect(server.dsn) as other:
                        numbers.extend(other.execute(NUMBER).fetchone() or ())

        event.listen(store.engine, "commit", kill)
        store.mark_tidied(before.pk, lease)
        after = store.run("r")
    assert len(numbers) == 1 + others
    assert set(numbers) == {numbers[0]}
    assert after is not None
    assert after.tidied
    assert after.revision == before.revision + 1


def test_writes_one_after_the_other_share_a_receipt(store: PostgresStorage) -> None:
    """Also over several connections, as of an engine that keeps none."""
    store.create_run(NEW)
    (first,) = left(store).values()
    for _ in range(5):
        store.engine.dispose()
        assert isinstance(store.acquire(f"run:{uuid.uuid4()}", "me", 600), Lease)
    assert list(left(store).values()) == [first + 5]


def test_no_two_transactions_under_way_share_a_receipt() -> None:
    """Nor does one take that of a transaction that failed, which may still be under way on the server."""
    names = receipts.Names()
    with names.one() as first, names.one() as second:
        assert first != second
    with pytest.raises(StoreError), names.one() as failed:
        raise StoreError("lost")
    with names.one() as one, names.one() as other:
        assert failed not in {one, other}
        assert {one, other} & {first, second}


def test_a_forked_child_has_receipts_of_its_own() -> None:
    names = receipts.Names()
    with names.one() as before:
        pass
    mine, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with names.one() as of_child:
                os.write(theirs, of_child.encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    with names.one() as after:
        assert after == before
        assert os.read(mine, 200).decode() not in {"", after}
    os.close(mine)
    os.close(theirs)


def test_a_write_that_writes_nothing_leaves_none(store: PostgresStorage) -> None:
    store.create_run(NEW)
    assert isinstance(store.acquire("run:r", "first", 600), Lease)
    before = left(store)
    assert store.acquire("run:r", "second", 600) == "first"
    assert left(store) == before


def test_receipts_of_processes_that_are_gone_are_swept(store: PostgresStorage, url: str) -> None:
    """By a new process; leases that somebody holds stay, and so do those of other resources."""
    store.create_run(NEW)
    rows = [("commits:old", None), ("commits:held", "somebody"), ("run:old", None)]
    for resource, owner in rows:
        values = {"resource": resource, "owner": owner, "fence": 1, "expires_at": 1.0}
        store._write(lambda it, values=values: it.execute(leases.insert().values(values)))
    with closing(open_url(url)) as other:
        assert isinstance(other.acquire("run:r", "me", 600), Lease)
    kept = store._read(lambda it: set(it.execute(select(leases.c.resource)).scalars()), set[str]())
    assert {"commits:held", "run:old"} <= kept
    assert "commits:old" not in kept
    assert len(left(store)) == 3


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize(("end", "happened"), [("commit", True), ("rollback", False)])
def test_who_looks_for_a_receipt_waits_for_its_transaction(
    store: PostgresStorage, end: str, happened: bool, is_first: bool
) -> None:
    """As where the network is cut, and the server has not heard of it yet."""
    store.create_run(NEW)
    (used,) = left(store)
    asking: Queue[int] = Queue()

    def look(receipt: receipts.Receipt) -> bool:
        with store.engine.connect() as other, other.begin():
            asking.put(other.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())
            return receipts.is_there(other, receipt)

    with store.engine.connect() as connection, ThreadPoolExecutor() as crowd:
        transaction = connection.begin()
        connection.exec_driver_sql(NUMBER)
        receipt = receipts.leave(connection, "commits:new:1" if is_first else used)
        assert receipt is not None
        found = crowd.submit(look, receipt)
        await_lock(asking.get(timeout=30))
        assert not found.done()
        getattr(transaction, end)()
        assert found.result() == happened


def test_a_receipt_that_may_have_been_swept_proves_nothing_by_its_absence(store: PostgresStorage) -> None:
    """As of a process that was stopped for a day between its COMMIT and the look."""
    store.create_run(NEW)
    with store.engine.connect() as connection:
        transaction = connection.begin()
        connection.exec_driver_sql(NUMBER)
        receipt = receipts.leave(connection, "commits:asleep:1")
        assert receipt is not None
        transaction.rollback()
    with store.engine.connect() as connection, connection.begin():
        assert receipts.is_there(connection, receipt) is False
        assert receipts.is_there(connection, receipt._replace(swept_at=1.0)) is None


@pytest.fixture
def away(tmp_path: Path) -> Iterator[tuple[Cut, PostgresStorage]]:
    """A way to the server that loses COMMITs, and the store behind it, with a run and none of the pauses."""
    cut, opened = through_a_cut(tmp_path)
    assert isinstance(opened, PostgresStorage)
    opened.create_run(NEW)
    opened._transactions._sleep = lambda _: None
    yield cut, opened
    opened.close()
    cut.close()


def counted(store: PostgresStorage) -> int:
    """How many writes the run has seen; adding to it shows a repetition, which a guarded write would hide."""
    run = store.run("r")
    assert run is not None
    return run.revision


REFUSAL = "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{}', MESSAGE = 'not now'; END $$"


@pytest.mark.parametrize("state", ["40001", "40P01", "55P03", "25006", "53100"])
def test_a_look_for_a_receipt_that_fails_does_nothing_again(away: tuple[Cut, PostgresStorage], state: str) -> None:
    """The write is there, and only its caller may decide what follows."""
    cut, behind = away
    run, lease = behind.run("r"), behind.acquire("run:r", "me", 600)
    before = counted(behind)
    assert run is not None
    assert isinstance(lease, Lease)

    def refuse(_: Connection, cursor: Any, statement: str, *more: object) -> None:
        if cut.cuts and "leases" in statement and "FOR UPDATE" in statement:
            cursor.execute(REFUSAL.format(state))

    event.listen(behind.engine, "before_cursor_execute", refuse)
    cut.arm("after")
    with pytest.raises(StoreError, match="cannot say whether it did"):
        behind.mark_tidied(run.pk, lease)
    event.remove(behind.engine, "before_cursor_execute", refuse)
    assert counted(behind) == before + 1


def test_a_write_that_loses_every_commit_ends(
    away: tuple[Cut, PostgresStorage], monkeypatch: pytest.MonkeyPatch
) -> None:
    cut, behind = away
    monkeypatch.setattr(transactions, "RECONNECT_SEC", 0.5)
    before = counted(behind)

    def lose(_: Connection, cursor: Any, statement: str, parameters: Any, *more: object) -> None:
        if "DO UPDATE" in statement and "commits:" in str(parameters):
            cut.arm("before")

    event.listen(behind.engine, "before_cursor_execute", lose)
    with pytest.raises(StoreError, match="loses each connection at COMMIT"):
        behind.set_control("r", RunControlState.PAUSED, reason="x")
    event.remove(behind.engine, "before_cursor_execute", lose)
    assert counted(behind) == before


def await_lock(pid: int) -> None:
    """Until the session waits for a lock of another."""
    with closing(psycopg.connect(postgres_dsn(), autocommit=True)) as admin:
        deadline = time.monotonic() + 30
        while admin.execute("SELECT pg_blocking_pids(%s)", [pid]).fetchone() == ([],):
            assert time.monotonic() < deadline, "it waits for nobody"
            time.sleep(0.01)
