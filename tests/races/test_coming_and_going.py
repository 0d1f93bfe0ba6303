"""Processes that open and leave one SQLite file all the time: what was acknowledged is there."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

COMMITS = 40
_PROCESS = f"""
import random, sys
from batchor_engine import SQLiteStorage
from batchor_engine.core.records import IngestPosition, NewRun

name, path = sys.argv[1:]
draw, store = random.Random(name), SQLiteStorage(path=path)
for n in range({COMMITS}):
    if draw.random() < 0.4:
        store.close()
    store.run("nobody")
    assert store.create_run(NewRun(f"{{name}}-{{n}}", {{"compared": {{}}}}, "/", IngestPosition("iterable", "", "", 0)))
"""


@pytest.mark.slow
def test_no_commit_is_lost_where_processes_come_and_go(tmp_path: Path) -> None:
    path, names = tmp_path / "runs.sqlite3", ("a", "b", "c", "d")
    crowd = [subprocess.Popen([sys.executable, "-c", _PROCESS, name, str(path)]) for name in names]
    assert [one.wait(120) for one in crowd] == [0] * len(names)
    with closing(sqlite3.connect(path)) as database:
        found = {run_id for (run_id,) in database.execute("SELECT run_id FROM runs")}
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert found == {f"{name}-{n}" for name in names for n in range(COMMITS)}
