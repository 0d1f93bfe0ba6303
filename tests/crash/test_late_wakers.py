"""A worker sleeps past its lease at the worst moment, another finishes its run, and then it wakes up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchor_engine import BatchRunner, SQLiteStorage
from batchor_engine.sandbox import Phases, SandboxServer
from batchor_engine.testing import check_invariants

from .worker import ROWS

LEASE_SEC = 1.0


@pytest.fixture
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer(phases=Phases(0.02, 0.3, 0.02, 0.02)) as server:
        yield server


def begin(store: Path, base_url: str, **options: object) -> subprocess.Popen[str]:
    told = json.dumps({"store": str(store), "base_url": base_url, "lease_sec": LEASE_SEC, **options})
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("worker.py")), told],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("point", ["submit.intended", "submit.uploaded", "submit.create_noted", "submit.created"])
def test_a_worker_that_wakes_after_its_lease_changes_nothing(
    sandbox: SandboxServer, tmp_path: Path, point: str
) -> None:
    store = tmp_path / "runs.sqlite3"
    sleeper = begin(store, sandbox.base_url, at={point: 2}, signal="SIGSTOP")
    try:
        _, status = os.waitpid(sleeper.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        other = begin(store, sandbox.base_url)
        said, trouble = other.communicate(timeout=120)
        assert json.loads(said)["completed"] == ROWS, trouble
        assert sleeper.poll() is None
    finally:
        sleeper.send_signal(signal.SIGCONT)
    said, trouble = sleeper.communicate(timeout=120)
    assert json.loads(said)["completed"] == ROWS, trouble
    worked = {line["batch_id"] for line in sandbox.paid()}
    of_intent = [batch["metadata"]["batchor_intent"] for batch in sandbox.batches() if batch["id"] in worked]
    assert len(of_intent) == len(set(of_intent)) == 3
    assert len(sandbox.paid()) == ROWS
    assert check_invariants(BatchRunner(storage=SQLiteStorage(path=store))) == []
