"""The database itself is killed under load, again and again: nothing is lost, nothing is paid twice."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchor_engine.storage.registry import open_url

from ..servers.postgres import PostgresServer
from ..stores import STORES, new_home
from .torture import PATIENCE_SEC, STANDING_FAULTS, Process, Torture, new_sandbox

WORKERS, KILLS = 2, 3


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    made = PostgresServer(new_home())
    made.start()
    yield made
    made.destroy()


@pytest.mark.slow
@pytest.mark.skipif("postgres" not in STORES, reason="BATCHOR_TEST_STORES leaves PostgreSQL out")
def test_a_server_killed_under_load_loses_nothing_and_nothing_is_paid_twice(
    server: PostgresServer, tmp_path: Path
) -> None:
    with new_sandbox() as sandbox:
        sandbox.faults.add(*STANDING_FAULTS)
        torture = Torture(sandbox, tmp_path, seed=11, rows=80, kind="postgres", store=server.dsn)
        torture.runs += ["one", "two"]
        crowd = [torture.spawn(torture.runs, killed=False) for _ in range(WORKERS)]
        try:
            await_begun(server, torture.runs)
            kills = 0
            while kills < KILLS and any(one.running for one in crowd):
                time.sleep(torture.chance.uniform(0.2, 0.9))
                server.kill()
                time.sleep(torture.chance.uniform(0.0, 0.5))
                server.start()
                kills += 1
            ends = [one.end() for one in crowd]
        finally:
            for one in crowd:
                stop(one)
        assert [code for code, _, _ in ends] == [0] * WORKERS, ends
        assert kills == KILLS
        assert torture.problems() == []


def await_begun(server: PostgresServer, runs: list[str]) -> None:
    """Until every worker has met the server: who never has takes its absence for a wrong address."""
    store = open_url(server.dsn)
    deadline = time.monotonic() + PATIENCE_SEC
    while {run.run_id for run in store.runs()} != set(runs) or sessions(store) < WORKERS:
        assert time.monotonic() < deadline, "the workers never began"
        time.sleep(0.02)
    store.close()


def sessions(store: object) -> int:
    """How many processes have a session, this one left out."""
    others = "application_name = 'batchor' AND pid <> pg_backend_pid()"
    query = f"SELECT count(*) FROM pg_stat_activity WHERE {others}"
    return store._read(lambda it: it.exec_driver_sql(query).scalar_one(), 0)  # type: ignore[attr-defined]


def stop(process: Process) -> None:
    if process.running:
        process.kill()
        process.end()
