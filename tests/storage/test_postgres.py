"""PostgreSQL: what it refuses, what it survives, whose clock counts, and that nobody ever sees a password."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine, event
from sqlalchemy.engine import make_url

from batchor_engine import BatchRunner, PostgresStorage, StorageKind, StoreError
from batchor_engine import build_default_storage_registry as registry
from batchor_engine.core.records import IngestPosition, NewRun
from batchor_engine.errors import ForeignStoreError, LeaseLostError, StoreBusyError
from batchor_engine.states import RunControlState
from batchor_engine.storage import postgres as postgres_module
from batchor_engine.storage import transactions
from batchor_engine.storage.engine import without_secrets
from batchor_engine.storage.registry import open_url

from ..stores import change, is_there, new_url, postgres_dsn, through_a_cut

START = IngestPosition("iterable", "list", "", 0)
NEW = NewRun("r", {"compared": {}}, "/nowhere", START, {"k": "v"})


@pytest.fixture
def url(tmp_path: Path) -> str:
    return new_url("postgres", tmp_path)


@pytest.fixture
def store(url: str) -> Iterator[PostgresStorage]:
    opened = open_url(url)
    assert isinstance(opened, PostgresStorage)
    yield opened
    opened.close()


# --- opening


def test_reads_of_a_store_that_is_not_there_create_nothing(store: PostgresStorage, url: str) -> None:
    assert (store.run("r"), store.runs(), store.batches(), store.scope("s").reserved) == (None, [], [], 0)
    assert not is_there(url)


def test_a_read_cannot_change_anything(store: PostgresStorage) -> None:
    store.create_run(NEW)
    said: list[str] = []
    event.listen(store.engine, "before_cursor_execute", lambda *args: said.append(args[2].split()[0].upper()))
    store.runs()
    store.waiting_runs()
    assert set(said) == {"SELECT"}
    with pytest.raises(StoreError, match="read-only"):
        store._read(lambda it: it.exec_driver_sql(f'DELETE FROM "{store.schema}".runs'), None)


def test_eight_that_create_the_schema_at_once_all_succeed(url: str) -> None:
    stores = [open_url(url) for _ in range(8)]
    gate = threading.Barrier(8)
    made: list[bool] = []
    failures: list[BaseException] = []

    def create(store: Any) -> None:
        try:
            gate.wait()
            made.append(store.create_run(NewRun(f"r{id(store)}", {}, "/nowhere", START)))
        except BaseException as error:
            failures.append(error)

    crowd = [threading.Thread(target=create, args=(store,)) for store in stores]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()
    assert failures == []
    assert made == [True] * 8
    assert len(stores[0].runs()) == 8
    for store in stores:
        store.close()


def test_a_schema_of_other_software_is_refused_and_left_untouched(store: PostgresStorage, url: str) -> None:
    with closing(psycopg.connect(postgres_dsn(), autocommit=True)) as connection:
        connection.execute(f'CREATE SCHEMA "{store.schema}"')
        connection.execute(f'CREATE TABLE "{store.schema}".runs (id TEXT)')
        for act in (lambda: store.run("r"), lambda: store.create_run(NEW)):
            with pytest.raises(ForeignStoreError, match="other software"):
                act()
        query = "SELECT table_name FROM information_schema.tables WHERE table_schema = %s"
        assert connection.execute(query, [store.schema]).fetchall() == [("runs",)]


def test_a_newer_schema_is_refused(store: PostgresStorage, url: str) -> None:
    store.create_run(NEW)
    change(url, "UPDATE schema_version SET version = version + 1")
    with closing(open_url(url)) as later, pytest.raises(ForeignStoreError, match="install a newer one"):
        later.run("r")


def test_schemas_of_one_database_share_nothing(tmp_path: Path) -> None:
    one, other = (open_url(new_url("postgres", tmp_path)) for _ in range(2))
    one.create_run(NEW)
    assert other.run("r") is None
    one.close()
    other.close()


@pytest.mark.parametrize("schema", ["", "x" * 64, "nul\0"])
def test_a_name_that_no_schema_may_have_is_refused(schema: str) -> None:
    with pytest.raises(ValueError, match="schema must have"):
        PostgresStorage(dsn="postgresql://h/d", schema=schema)


def test_odd_names_of_schemas_are_quoted(tmp_path: Path) -> None:
    odd = f'Odd "name"; -- {os.getpid()}'
    store = PostgresStorage(dsn=postgres_dsn(), schema=odd)
    store.create_run(NEW)
    assert [run.run_id for run in store.runs()] == ["r"]
    store.close()


def test_an_engine_of_ones_own_is_used(url: str) -> None:
    parsed = make_url(url)
    engine = create_engine(
        make_url(postgres_dsn()).set(drivername="postgresql+psycopg"), connect_args={"application_name": "mine"}
    )
    store = PostgresStorage(dsn=postgres_dsn(), schema=str(parsed.query["schema"]), engine=engine)
    assert store.create_run(NEW)
    store.close()
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW application_name").scalar_one() == "mine"
    engine.dispose()


def test_a_kind_takes_its_url_from_the_environment(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BATCHOR_POSTGRES_DSN", raising=False)
    with pytest.raises(ValueError, match="BATCHOR_POSTGRES_DSN"):
        registry().create(StorageKind.POSTGRES)
    monkeypatch.setenv("BATCHOR_POSTGRES_DSN", url)
    runner = BatchRunner(storage="postgres")
    assert isinstance(runner.storage, PostgresStorage)
    assert runner.storage.schema == make_url(url).query["schema"]
    runner.close()


def test_without_psycopg_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from batchor_engine import BatchRunner\n"
        "BatchRunner(storage='postgresql://u:hush@h/d')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "ImportError: PostgreSQL needs psycopg: pip install 'batchor-dagster[postgres]'" in done.stderr
    assert "hush" not in done.stderr


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg", "postgresql+psycopg2"])
def test_every_spelling_means_psycopg_three(scheme: str) -> None:
    store = open_url(f"{scheme}://u@h/d")
    assert isinstance(store, PostgresStorage)
    assert store.engine.url.drivername == "postgresql+psycopg"
    store.close()


def test_files_go_to_a_folder_of_this_store_alone() -> None:
    roots = [
        open_url(f"postgresql://u@{place}").default_artifact_root for place in ("h/d", "g/d", "h/e", "h/d?schema=x")
    ]
    assert len(set(roots)) == 4
    assert all(str(root).startswith(str(Path.home() / ".batchor")) for root in roots)


# --- passwords

SECRET_URLS = [
    "postgresql://someone:hush@127.0.0.1:1/d",
    "postgresql://someone@127.0.0.1:1/d?password=hush&sslpassword=hush",
    "postgresql://127.0.0.1:1/d?user=someone&password=hush",
]


@pytest.mark.parametrize("url", SECRET_URLS)
def test_a_password_is_in_no_repr_message_or_log(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    store = open_url(url)
    with pytest.raises(StoreError, match="cannot be reached") as caught:
        store.runs()
    told = "".join(traceback.format_exception(caught.value))
    seen = [repr(store), store.location, repr(store.engine), told, caplog.text, without_secrets(url)]  # type: ignore[attr-defined]
    assert [text for text in seen if "hush" in text] == []
    assert "127.0.0.1" in store.location


@pytest.mark.parametrize("url", ["postgresql://u:hush@h:port/d", "postgresql:/hush", "hush"])
def test_a_url_that_cannot_be_read_is_not_repeated(url: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        PostgresStorage(dsn=url)
    assert "hush" not in "".join(traceback.format_exception(caught.value))


def test_an_error_of_the_server_quotes_no_row(store: PostgresStorage) -> None:
    store.create_run(NEW)
    insert = f'INSERT INTO "{store.schema}".runs SELECT * FROM "{store.schema}".runs'
    with pytest.raises(StoreError, match="duplicate key value") as caught:
        store._write(lambda it: it.exec_driver_sql(insert))
    assert "nowhere" not in "".join(traceback.format_exception(caught.value))


# --- a server that goes away


def test_a_server_that_was_never_there_is_told_at_once() -> None:
    store = open_url("postgresql://u@127.0.0.1:1/d")
    with pytest.raises(StoreError, match="cannot be reached"):
        store.create_run(NEW)


def test_a_closed_connection_is_replaced(url: str) -> None:
    """Only this store's sessions are closed, known by a name of their own: the server is others' too."""
    mine = uuid.uuid4().hex
    query = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = %s"
    with (
        closing(open_url(f"{url}&application_name={mine}")) as store,
        closing(psycopg.connect(postgres_dsn(), autocommit=True)) as admin,
    ):
        store.create_run(NEW)
        for act in (lambda: store.run("r"), lambda: store.set_control("r", RunControlState.PAUSED, reason="x")):
            assert admin.execute(query, [mine]).fetchone() != (0,)
            assert act() is not None


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_commit_without_an_answer_happens_once(tmp_path: Path, when: str) -> None:
    """Adding to a counter shows a repetition, which a guarded write would hide."""
    cut, store = through_a_cut(tmp_path)
    store.create_run(NEW)
    before = store.run("r")
    lease = store.acquire("run:r", "me", 600)
    assert before is not None
    assert not isinstance(lease, str)
    cut.arm(when)
    store.mark_tidied(before.pk, lease)
    after = store.run("r")
    assert cut.cuts == 1
    assert after is not None
    assert after.revision == before.revision + 1
    store.close()
    cut.close()


def test_who_cannot_reach_the_server_any_more_gives_up_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions, "RECONNECT_SEC", 0.1)
    cut, store = through_a_cut(tmp_path)
    store.create_run(NEW)
    store.close()
    cut.close()
    with pytest.raises(StoreError, match="cannot be reached"):
        store.run("r")


# --- locks


def test_a_lock_that_never_ends_is_said_clearly(store: PostgresStorage) -> None:
    store.create_run(NEW)
    event.listen(store.engine, "begin", lambda connection: connection.exec_driver_sql("SET lock_timeout = 50"))
    with closing(psycopg.connect(postgres_dsn())) as blocker:
        blocker.execute(f'SELECT 1 FROM "{store.schema}".runs FOR UPDATE')
        with pytest.raises(StoreBusyError, match="stayed locked"):
            store.set_control("r", RunControlState.PAUSED, reason="manual")
    assert store.set_control("r", RunControlState.PAUSED, reason="manual").control is RunControlState.PAUSED


def test_a_reader_does_not_wait_for_a_writer(store: PostgresStorage) -> None:
    store.create_run(NEW)
    with closing(psycopg.connect(postgres_dsn())) as blocker:
        blocker.execute(f'LOCK TABLE "{store.schema}".runs IN ROW EXCLUSIVE MODE')
        blocker.execute(f'UPDATE "{store.schema}".runs SET revision = revision + 1')
        run = store.run("r")
    assert run is not None


def test_who_finds_a_lease_held_does_not_wait_for_its_owner_to_write(store: PostgresStorage) -> None:
    assert not isinstance(store.acquire("run:r", "first", 600), str)
    with closing(psycopg.connect(postgres_dsn())) as writer:
        writer.execute(f'SELECT 1 FROM "{store.schema}".leases FOR UPDATE')
        assert store.acquire("run:r", "second", 600) == "first"


def test_a_conflict_is_tried_again(store: PostgresStorage) -> None:
    """Two transactions that lock two rows in opposite order; the one that the server ends is done again."""
    for name in ("a", "b"):
        store.create_run(NewRun(name, {}, "/nowhere", START))
    both = threading.Barrier(2)
    tries: list[str] = []

    def lock(connection: Any, name: str) -> None:
        connection.exec_driver_sql(
            f'UPDATE "{store.schema}".runs SET revision = revision + 1 WHERE run_id = %s', (name,)
        )

    def crossing(first: str, second: str) -> None:
        def act(connection: Any) -> None:
            tries.append(first)
            lock(connection, first)
            if len(tries) <= 2:
                both.wait(60)
            lock(connection, second)

        store._write(act)

    crowd = [threading.Thread(target=crossing, args=names) for names in (("a", "b"), ("b", "a"))]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()
    # More than one further try where the other was not woken before it: the same two rows are then crossed once more.
    assert len(tries) >= 3
    assert [run.revision for run in store.runs()] == [2, 2]


# --- sessions and time


def test_sessions_are_durable_and_bounded(store: PostgresStorage) -> None:
    names = ("synchronous_commit", "lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
    shown = [store._write(lambda it, n=name: it.exec_driver_sql(f"SHOW {n}").scalar_one()) for name in names]
    assert shown == ["on", "1min", "5min", "1min"]
    level = store._write(lambda it: it.exec_driver_sql("SHOW transaction_isolation").scalar_one())
    assert level == "read committed"


def test_a_server_that_falls_silent_is_given_up_after_a_minute_or_as_the_url_says(url: str) -> None:
    for more, limit in (("", "60000"), ("&tcp_user_timeout=5000", "5000")):
        with closing(open_url(url + more)) as store:
            assert isinstance(store, PostgresStorage)
            driver = store._write(lambda it: it.connection.driver_connection)
            assert driver is not None
            assert driver.info.get_parameters()["tcp_user_timeout"] == limit


def test_a_url_sets_pool_and_timeout(url: str) -> None:
    store = open_url(f"{url}&pool_size=2&statement_timeout_sec=0.05")
    assert isinstance(store, PostgresStorage)
    assert store.engine.pool.size() == 2  # type: ignore[attr-defined]
    with pytest.raises(StoreBusyError):
        store._write(lambda it: it.exec_driver_sql("SELECT pg_sleep(5)"))
    store.close()


def test_time_is_the_servers(store: PostgresStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose clock is a day ahead agrees with all others about when a lease runs out."""
    real = time.time

    class Ahead:
        monotonic = staticmethod(time.monotonic)

        @staticmethod
        def time() -> float:
            return real() + 86_400

    assert not isinstance(store.acquire("run:r", "first", 600), str)
    monkeypatch.setattr(postgres_module, "time", Ahead)
    with closing(open_url(store_url(store))) as ahead:
        assert abs(ahead.now() - datetime.now(UTC)) < timedelta(minutes=5)
        assert ahead.acquire("run:r", "second", 600) == "first"


def store_url(store: PostgresStorage) -> str:
    dsn = postgres_dsn()
    return f"{dsn}{'&' if '?' in dsn else '?'}schema={store.schema}"


def test_a_forked_child_opens_connections_of_its_own(store: PostgresStorage) -> None:
    store.create_run(NEW)
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if store.run("r") is not None else 1)
        finally:
            os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0
    assert store.run("r") is not None


def test_an_old_fence_writes_nothing_although_its_owner_read_before(store: PostgresStorage) -> None:
    store.create_run(NEW)
    run = store.run("r")
    old = store.acquire("run:r", "first", 600)
    assert run is not None
    assert not isinstance(old, str)
    store.release(old)
    assert not isinstance(store.acquire("run:r", "second", 600), str)
    with pytest.raises(LeaseLostError):
        store.finish_ingest(run.pk, old)
