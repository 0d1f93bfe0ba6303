"""Real processes that are stopped, or asked to stop: SIGSTOP past the lease, Ctrl-C, SIGTERM."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchor_engine.sandbox import Phases, SandboxServer
from batchor_engine.testing import check_invariants

from .load import runner_for
from .torture import PATIENCE_SEC, Process

ROWS = 30
LEASE_SEC = 1.0


@pytest.fixture
def sandbox() -> Iterator[SandboxServer]:
    # Long enough in progress for a poll to meet a twin before it works.
    with SandboxServer(phases=Phases(0.4, 0.6, 0.02, 0.02)) as server:
        yield server


@pytest.fixture
def place(store_url: str, artifacts_url: str) -> dict[str, str]:
    return {"store": store_url, "artifacts": artifacts_url}


def options(sandbox: SandboxServer, place: dict[str, str], **more: Any) -> dict[str, Any]:
    return {**place, "base_url": sandbox.base_url, "runs": ["run"], "rows": ROWS, "lease_sec": LEASE_SEC, **more}


def await_stopped(process: Process) -> None:
    """Until the kernel says that the process is stopped."""
    deadline = time.monotonic() + PATIENCE_SEC
    stat = Path(f"/proc/{process.pid}/stat")
    while stat.read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < deadline, "it was never stopped"
        assert process.running, process.end()
        time.sleep(0.01)


def problems(sandbox: SandboxServer, place: dict[str, str]) -> list[str]:
    """Broken books, rows that are not there, and intents on which two batches worked."""
    runner = runner_for(**place, base_url=sandbox.base_url)
    found = check_invariants(runner)
    results = runner.get_run("run").results()
    runner.close()
    if [one.item_id for one in results] != [f"row-{n}" for n in range(ROWS)]:
        found.append("rows out are not rows in")
    paid = Counter(line["custom_id"] for line in sandbox.paid())
    found += [f"{custom_id} was paid {count} times" for custom_id, count in paid.items() if count > 1]
    worked = Counter(batch["metadata"]["batchor_intent"] for batch in sandbox.stats()["batches"] if batch["paid"])
    return found + [f"two batches worked on {intent}" for intent, count in worked.items() if count > 1]


@pytest.mark.slow
@pytest.mark.every_store
@pytest.mark.parametrize("point", ["submit.uploaded", "submit.create_noted"])
def test_a_process_stopped_past_its_lease_and_continued_leaves_one_batch_of_its_intent(
    sandbox: SandboxServer, place: dict[str, str], point: str
) -> None:
    """Between upload and create the fence refuses the late waker; after the note its twin is found and cancelled."""
    sleeper = Process(options(sandbox, place, at={point: 2}, **{"with": signal.SIGSTOP}))
    other: Process | None = None
    try:
        assert sleeper.await_ready()
        await_stopped(sleeper)
        other = Process(options(sandbox, place))
        await_second_submission(sandbox, place, other)
        os.kill(sleeper.pid, signal.SIGCONT)
        ends = [process.end() for process in (other, sleeper)]
    finally:
        for process in (sleeper, other):
            if process is not None and process.running:
                process.kill()
                process.end()
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert problems(sandbox, place) == []


def await_second_submission(sandbox: SandboxServer, place: dict[str, str], other: Process) -> None:
    """Until the other process has taken over and sent the batch in which the sleeper stopped."""
    runner = runner_for(**place, base_url=sandbox.base_url)
    deadline = time.monotonic() + PATIENCE_SEC
    while sum(batch.provider_batch_id is not None for batch in runner.storage.batches()) < 2:
        assert other.running, other.end()
        assert time.monotonic() < deadline, "nobody took over"
        time.sleep(0.02)
    runner.close()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
@pytest.mark.parametrize("point", ["ingest.part_written", "submit.uploaded", "collect.downloaded"])
def test_a_signal_leaves_a_resumable_run(
    sandbox: SandboxServer, place: dict[str, str], number: signal.Signals, point: str
) -> None:
    first = Process(options(sandbox, place, at={point: 1}, **{"with": number}))
    code, _, errors = first.end()
    assert code in (-number, 1, 130), errors
    again = Process(options(sandbox, place))
    code, _, errors = again.end()
    assert code == 0, errors
    assert problems(sandbox, place) == []
