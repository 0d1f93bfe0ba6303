"""Readers beside a long write: they are never told that the database is locked, and see the last commit."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from batchor_engine import BatchItem, BatchJob, BatchRunner, MemoryStateStore, OpenAIProviderConfig, SQLiteStorage
from batchor_engine.providers.openai import OpenAIBatchProvider
from batchor_engine.testing import ManualClock, check_invariants

from ..properties.cloud import Client, Cloud

_READER = """
import sys
from batchor_engine import BatchRunner, SQLiteStorage
runner = BatchRunner(storage=SQLiteStorage(path=sys.argv[1]))
run = runner.get_run("run")
print(run.summary().total_items, len(runner.find_runs()), len(list(run.iter_results())), len(run.batches()))
"""


def job(rows: int = 4) -> BatchJob:  # type: ignore[type-arg]
    return BatchJob(
        items=[BatchItem(f"row-{n}", n) for n in range(rows)],
        build_prompt=lambda item: f"Say {item.payload}",
        provider_config=OpenAIProviderConfig(model="gpt-5-mini"),
    )


def runner_of(storage: SQLiteStorage | MemoryStateStore, cloud: Cloud, clock: ManualClock) -> BatchRunner:
    return BatchRunner(
        storage=storage,
        provider_factory=lambda config: OpenAIBatchProvider(config, client=Client(cloud, lambda _where: None)),
        sleep=clock.sleep,
    )


def test_readers_go_on_while_a_writer_holds_the_database(tmp_path: Path) -> None:
    clock = ManualClock()
    storage = SQLiteStorage(path=tmp_path / "runs.sqlite3", now=clock.now)
    runner_of(storage, Cloud(lambda: clock.now().timestamp()), clock).start(job(), run_id="run")
    with storage.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE runs SET revision = revision + 1")
        command = [sys.executable, "-W", "error", "-c", _READER, str(tmp_path / "runs.sqlite3")]
        other = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
        reader = SQLiteStorage(path=tmp_path / "runs.sqlite3", now=clock.now)
        stored = reader.run("run")
        reader.close()
    storage.close()
    assert (other.returncode, other.stdout) == (0, "4 1 0 1\n"), other.stderr
    assert stored is not None


@pytest.mark.parametrize("threads", [2, 6])
def test_threads_that_share_a_memory_store_send_every_row_once(threads: int) -> None:
    clock = ManualClock()
    cloud = Cloud(lambda: clock.now().timestamp())
    runner = runner_of(MemoryStateStore(now=clock.now), cloud, clock)
    failures: list[BaseException] = []

    def advance(name: str) -> None:
        try:
            run = runner.start(job(), run_id=name)
            for _ in range(20):
                run.refresh()
                cloud.work()
        except BaseException as error:
            failures.append(error)

    names = [f"run-{n % 2}" for n in range(threads)]
    crowd = [threading.Thread(target=advance, args=(name,)) for name in names]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    # A start that meets another one within its first moment is told to try again; nothing else may come out.
    assert [error for error in failures if "just being created" not in str(error)] == []
    for name in set(names):
        run = runner.start(job(), run_id=name)
        for _ in range(9):
            run.refresh()
            cloud.work()
        assert len(run.results()) == 4
    assert len(cloud.paid()) == 8
    assert check_invariants(runner) == []
    runner.close()
