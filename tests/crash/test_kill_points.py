"""SIGKILL at each crash point, then a fresh process: no row is lost, none is paid twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from batchor_engine import BatchRunner
from batchor_engine.sandbox import Phases, SandboxServer
from batchor_engine.testing import check_invariants

from .points import POINTS
from .worker import ROWS


def work(
    store: str, artifacts: str, base_url: str, at: dict[str, int] | None = None
) -> subprocess.CompletedProcess[str]:
    options = json.dumps({"store": store, "artifacts": artifacts, "base_url": base_url, "at": at})
    return subprocess.run(
        [sys.executable, str(Path(__file__).with_name("worker.py")), options],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.fixture(scope="module")
def sandbox():
    with SandboxServer(phases=Phases(0.02, 0.05, 0.02, 0.02)) as server:
        yield server


@pytest.mark.slow
@pytest.mark.every_store
@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("point", POINTS)
def test_sigkill_at_a_crash_point_loses_no_row_and_pays_no_row_twice(
    sandbox: SandboxServer, store_url: str, artifacts_url: str, point: str, nth: int
) -> None:
    before = len(sandbox.paid())
    killed = work(store_url, artifacts_url, sandbox.base_url, {point: nth})
    assert killed.returncode == -9, killed.stderr
    healed = work(store_url, artifacts_url, sandbox.base_url)
    assert healed.returncode == 0, healed.stderr
    assert json.loads(healed.stdout)["completed"] == ROWS
    assert len(sandbox.paid()) - before == ROWS
    runner = BatchRunner(storage=store_url)
    assert check_invariants(runner) == []
    results = runner.get_run("crashing").results()
    assert [result.item_id for result in results] == [f"row-{n}" for n in range(ROWS)]
    assert {result.attempt_count for result in results} == {1}


def test_every_crash_point_of_a_run_is_in_the_list(sandbox: SandboxServer, store_url: str, artifacts_url: str) -> None:
    done = work(store_url, artifacts_url, sandbox.base_url)
    assert set(json.loads(done.stdout)["seen"]) == set(POINTS)
