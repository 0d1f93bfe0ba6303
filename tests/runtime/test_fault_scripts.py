"""The public testing kit as its users meet it: every script of faults, a moved clock, and the check of all laws."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchor_engine import BatchItem, BatchJob, BatchRunner, OpenAIConnection, OpenAIProviderConfig, SQLiteStorage
from batchor_engine.testing import FAULT_SCRIPTS, ManualClock, check_invariants, faulty_sandbox


@pytest.mark.parametrize("script", FAULT_SCRIPTS)
def test_a_run_gets_through_a_bad_day_with_a_result_for_every_row(tmp_path: Path, script: str) -> None:
    clock = ManualClock()
    with faulty_sandbox(script) as sandbox:
        runner = BatchRunner(
            storage=SQLiteStorage(path=tmp_path / "runs.sqlite3", now=clock.now),
            connection=OpenAIConnection(api_key="sk-test", base_url=sandbox.base_url),
            sleep=clock.sleep,
        )
        items = [BatchItem(f"row-{n}", n) for n in range(4)]
        job = BatchJob(items, lambda item: f"Say {item.payload}", OpenAIProviderConfig(model="gpt-5-mini"))
        results = runner.run_and_wait(job, run_id="bad-day").results()
        assert [result.item_id for result in results] == ["row-0", "row-1", "row-2", "row-3"]
        assert check_invariants(runner) == []
        assert all(fault["fired"] for fault in sandbox.faults.listing())
