"""Servers of a test session end with it, however it ends."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from . import session

ROOT = Path(__file__).parents[2]
_WITH_DATABASE = """
import time
from tests import stores
folder = stores.begin_session()
stores.own_dsn()
print(folder, flush=True)
time.sleep(600)
"""
_UNWATCHED = """
import subprocess, sys, time
from pathlib import Path
from tests.servers import session
folder = session.open_folder(Path(sys.argv[1]))
subprocess.Popen(["sleep", "600"], cwd=folder, stdout=subprocess.DEVNULL)
print(folder, flush=True)
time.sleep(600)
"""


def begin(code: str, *words: str) -> tuple[subprocess.Popen[str], Path]:
    """A session of its own in another process, and its folder."""
    process = subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def end(process: subprocess.Popen[str], number: int) -> None:
    process.send_signal(number)
    process.communicate(timeout=60)


def await_gone(folder: Path) -> None:
    deadline = time.monotonic() + 60
    while folder.exists():
        assert time.monotonic() < deadline, session._servers(folder)
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_the_database_of_a_killed_session_ends_and_leaves_nothing(number: int) -> None:
    process, folder = begin(_WITH_DATABASE)
    assert session._servers(folder)
    end(process, number)
    await_gone(folder)
    assert session._servers(folder) == []


def test_a_session_that_begins_beside_another_leaves_its_folder_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, other = fcntl.lockf, tmp_path / "batchor-other"

    def lock_late(*given: Any) -> None:
        monkeypatch.undo()
        end(begin(_UNWATCHED, str(other))[0], signal.SIGKILL)
        lock(*given)

    monkeypatch.setattr(fcntl, "lockf", lock_late)
    mine = session.open_folder(tmp_path / "batchor-mine")
    assert {path.name for path in mine.iterdir()} == {"session"}
    assert session.end_if_dead(other)
    session.close_folder(mine)


def test_the_next_session_ends_what_a_dead_one_left_and_nothing_of_a_living_one(tmp_path: Path) -> None:
    (tmp_path / "batchor-of-somebody").mkdir()
    (dead, left), (living, kept) = (begin(_UNWATCHED, str(tmp_path / f"batchor-{name}")) for name in ("dead", "living"))
    end(dead, signal.SIGKILL)
    assert session._servers(left)
    mine = session.open_folder(tmp_path / "batchor-mine")
    # A second look must not let go of the lock on the own folder.
    session.close_folder(session.open_folder(tmp_path / "batchor-second"))
    try:
        left_there = {path.name.removeprefix("batchor-") for path in tmp_path.iterdir()}
        assert left_there == {"living", "mine", "of-somebody"}
        assert session._servers(left) == []
        assert len(session._servers(kept)) == 1
    finally:
        session.close_folder(mine)
        end(living, signal.SIGKILL)
        assert session.end_if_dead(kept)
