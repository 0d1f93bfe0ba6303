"""Several processes on one store, at one run and at many, from the first moment on."""

from __future__ import annotations

import pytest

from batchor_engine.sandbox import Phases, SandboxServer
from batchor_engine.testing import check_invariants

from ..crash.load import runner_for
from ..crash.torture import Process

ROWS = 40


@pytest.mark.slow
@pytest.mark.every_store
@pytest.mark.parametrize("runs", [["one"], ["one", "two", "three"]], ids=["one-run", "three-runs"])
def test_two_processes_send_every_row_once(store_url: str, artifacts_url: str, runs: list[str]) -> None:
    place = {"store": store_url, "artifacts": artifacts_url}
    with SandboxServer(phases=Phases(0.02, 0.1, 0.02, 0.02)) as sandbox:
        options = {**place, "base_url": sandbox.base_url, "runs": runs, "rows": ROWS}
        # The second goes through the runs the other way round.
        both = [Process(options), Process({**options, "runs": runs[::-1]})]
        ends = [process.end() for process in both]
        assert [code for code, _, _ in ends] == [0, 0], ends
        runner = runner_for(**place, base_url=sandbox.base_url)
        assert check_invariants(runner) == []
        for run_id in runs:
            results = runner.get_run(run_id).results()
            assert [one.item_id for one in results] == [f"row-{n}" for n in range(ROWS)]
        runner.close()
        assert len(sandbox.paid()) == ROWS * len(runs)


@pytest.mark.slow
@pytest.mark.every_store
@pytest.mark.parametrize(("runs", "rows"), [(1, 60), (50, 1)], ids=["one-run", "fifty-runs"])
def test_eight_processes_send_every_row_once(store_url: str, artifacts_url: str, runs: int, rows: int) -> None:
    """Each goes through the runs from another one on, so that they meet everywhere."""
    place = {"store": store_url, "artifacts": artifacts_url}
    names = [f"run-{n}" for n in range(runs)]
    with SandboxServer(phases=Phases(0.02, 0.1, 0.02, 0.02)) as sandbox:
        options = {**place, "base_url": sandbox.base_url, "rows": rows}
        turns = [names[at:] + names[:at] for at in range(0, 8 * 6, 6)]
        crowd = [Process({**options, "runs": turn or names}) for turn in turns]
        ends = [process.end() for process in crowd]
        assert [code for code, _, _ in ends] == [0] * 8, ends
        runner = runner_for(**place, base_url=sandbox.base_url)
        assert check_invariants(runner) == []
        for run_id in names:
            results = runner.get_run(run_id).results()
            assert [one.item_id for one in results] == [f"row-{n}" for n in range(rows)]
        runner.close()
        assert len(sandbox.paid()) == rows * runs
