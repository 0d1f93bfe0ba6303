"""How a run is shown while it goes on."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from batchor_engine import BatchRunner, RunEvent, StoreError
from batchor_engine.cli.streams import note
from batchor_engine.cli.watch import Watch


def test_a_store_that_is_away_is_not_asked_at_every_event_and_is_told_by_the_command_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = tmp_path / "runs.sqlite3"
    store.write_bytes(b"hello " * 999)
    watch = Watch()
    runner = BatchRunner(storage=f"sqlite:///{store}", observer=watch)
    watch._shown = runner, "r"
    began = time.monotonic()
    for _ in range(3):
        runner.host.emit("r", "batch_poll_retry", message="Connection error.")
        assert watch._next > began
    assert caplog.text == ""
    with pytest.raises(StoreError), watch.over(runner, "r"):
        pass
    runner.close()


def test_words_of_a_provider_do_not_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    note("\x1b]0;owned\x07\x1b[2J The lamp\r\nstays dark\u2028for a day.")
    assert capsys.readouterr().err == "]0;owned [2J The lamp stays dark for a day.\n"


def test_events_of_other_runs_are_not_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    watch = Watch()
    runner = BatchRunner(storage=f"sqlite:///{tmp_path / 'runs.sqlite3'}", observer=watch)
    with watch.over(runner, "r"):
        watch(RunEvent("batch_submit_retry", "other", None, {"message": "down"}))
    runner.close()
    assert capsys.readouterr().err == ""
