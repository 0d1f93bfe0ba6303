"""Two processes on one store, at one run and at several, from the first moment on."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchor_engine.sandbox import Phases, SandboxServer
from batchor_engine.testing import check_invariants

from ..crash.load import runner_for
from ..crash.torture import Process

ROWS = 40


@pytest.mark.slow
@pytest.mark.parametrize("runs", [["one"], ["one", "two", "three"]], ids=["one-run", "three-runs"])
def test_two_processes_send_every_row_once(tmp_path: Path, runs: list[str]) -> None:
    store = str(tmp_path / "runs.sqlite3")
    with SandboxServer(phases=Phases(0.02, 0.1, 0.02, 0.02)) as sandbox:
        options = {"store": store, "base_url": sandbox.base_url, "runs": runs, "rows": ROWS}
        # The second goes through the runs the other way round.
        both = [Process(options), Process({**options, "runs": runs[::-1]})]
        ends = [process.end() for process in both]
        assert [code for code, _, _ in ends] == [0, 0], ends
        runner = runner_for(store, sandbox.base_url)
        assert check_invariants(runner) == []
        for run_id in runs:
            results = runner.get_run(run_id).results()
            assert [one.item_id for one in results] == [f"row-{n}" for n in range(ROWS)]
        runner.close()
        assert len(sandbox.paid()) == ROWS * len(runs)
