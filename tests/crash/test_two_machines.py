"""Two workers on one database and one bucket, each with a disk of its own: one is killed, the other one finishes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from batchor_engine import BatchRunner
from batchor_engine.sandbox import Phases, SandboxServer
from batchor_engine.testing import check_invariants

from ..stores import STORES, new_url
from .points import POINTS
from .worker import ROWS

WORKER = Path(__file__).with_name("worker.py")


def work(place: Path, options: dict[str, object]) -> subprocess.CompletedProcess[str]:
    """A process that sees no folder of another one: home, working directory and temporary files are its own."""
    place.mkdir()
    own = {"HOME": str(place), "TMPDIR": str(place)}
    command = [sys.executable, str(WORKER), json.dumps(options)]
    return subprocess.run(
        command, cwd=place, env={**os.environ, **own}, capture_output=True, text=True, timeout=200, check=False
    )


@pytest.mark.slow
@pytest.mark.skipif("postgres" not in STORES, reason="BATCHOR_TEST_STORES leaves PostgreSQL out")
@pytest.mark.parametrize("point", [point for point in POINTS if point.endswith(("_stored", "created", "downloaded"))])
def test_a_run_is_finished_without_the_disk_of_who_began_it(s3: object, tmp_path: Path, point: str) -> None:
    store, bucket = new_url("postgres", tmp_path), f"s3://runs/{tmp_path.name}"
    with SandboxServer(phases=Phases(0.02, 0.05, 0.02, 0.02)) as sandbox:
        options = {"store": store, "artifacts": bucket, "base_url": sandbox.base_url}
        killed = work(tmp_path / "one", {**options, "at": {point: 2}})
        assert killed.returncode == -9, killed.stderr
        (tmp_path / "one").rename(tmp_path / "gone")
        healed = work(tmp_path / "two", options)
        assert healed.returncode == 0, healed.stderr
        assert json.loads(healed.stdout)["completed"] == ROWS
        assert len(sandbox.paid()) == ROWS
    runner = BatchRunner(storage=store)
    assert check_invariants(runner) == []
    assert [one.item_id for one in runner.get_run("crashing").results()] == [f"row-{n}" for n in range(ROWS)]
    runner.close()
    # Who was killed cannot tidy up; who finished leaves nothing on this disk.
    assert [path for path in (tmp_path / "two").rglob("*") if path.is_file()] == []
