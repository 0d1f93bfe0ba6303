"""A project that is moved: the database and the folders below it go together, and nothing else is asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchor_engine import BatchRunner, OpenAIConnection, SQLiteStorage
from batchor_engine.artifacts.urls import found_place, recorded_place

from .conftest import World


@pytest.fixture
def runner_in(world: World) -> Callable[..., BatchRunner]:
    def runner(folder: Path, **options: Any) -> BatchRunner:
        made = BatchRunner(
            storage=SQLiteStorage(path=folder / "runs.sqlite3", now=world.clock.now),
            connection=OpenAIConnection(api_key="sk-test", base_url=world.sandbox.base_url),
            sleep=world.clock.sleep,
            **options,
        )
        world.runners.append(made)
        return made

    return runner


@pytest.mark.parametrize("files", [None, "files/of/runs"])
def test_a_run_moves_with_its_folder(
    world: World, tmp_path: Path, runner_in: Callable[..., BatchRunner], files: str | None
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    before = runner_in(old, artifacts_url=str(old / files) if files else None)
    before.run_and_wait(world.job(3), run_id="over")
    before.start(world.job(3), run_id="under way")
    before.close()
    shutil.move(old, new)
    after = runner_in(new)
    assert len(after.get_run("over").results()) == 3
    assert len(after.get_run("under way").wait().results()) == 3
    assert world.stats()["paid_lines"] == 6
    assert after.get_run("over").artifact_root == str(new / (files or "runs_artifacts"))
    after.get_run("over").export_artifacts(str(new / "export"))
    assert after.doctor(provider=False).healthy
    assert not old.exists()


def test_a_run_in_a_folder_elsewhere_stays_there(
    world: World, tmp_path: Path, runner_in: Callable[..., BatchRunner]
) -> None:
    before = runner_in(tmp_path / "old", artifacts_url=str(tmp_path / "files"))
    before.run_and_wait(world.job(3), run_id="r")
    before.close()
    shutil.move(tmp_path / "old", tmp_path / "new")
    run = runner_in(tmp_path / "new").get_run("r")
    assert run.artifact_root == str(tmp_path / "files")
    assert len(run.results()) == 3


def test_a_link_to_the_database_is_another_name_of_it(
    world: World, tmp_path: Path, runner_in: Callable[..., BatchRunner]
) -> None:
    runner_in(tmp_path / "real").run_and_wait(world.job(3), run_id="r")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "runs.sqlite3").symlink_to(tmp_path / "real" / "runs.sqlite3")
    (tmp_path / "linked").symlink_to(tmp_path / "real", target_is_directory=True)
    for folder in ("links", "linked"):
        assert len(runner_in(tmp_path / folder).get_run("r").results()) == 3


@pytest.mark.parametrize(
    ("place", "recorded"),
    [
        ("/a/b/files", "./files"),
        ("/a/b", "./."),
        ("/a/files", "/a/files"),
        ("/a/bc/files", "/a/bc/files"),
        ("s3://bucket/files", "s3://bucket/files"),
        ("a place of somebody's own store", "a place of somebody's own store"),
    ],
)
def test_a_place_is_recorded_by_the_way_from_the_state(place: str, recorded: str) -> None:
    assert recorded_place(place, "/a/b") == recorded
    assert found_place(recorded, "/a/b") == place
    assert recorded_place(place, None) == found_place(place, None) == place


_WRITER = """
import sys
from batchor_engine import BatchItem, BatchJob, BatchRunner, OpenAIProviderConfig
runner = BatchRunner(storage="sqlite:///runs.sqlite3")
config = OpenAIProviderConfig(model="gpt-5-mini", base_url=sys.argv[1], poll_interval_sec=0.01)
run = runner.start(BatchJob([BatchItem("a", 1)], build_prompt=str, provider_config=config), run_id="r")
exec(sys.argv[2])
"""


@pytest.mark.parametrize(
    "end",
    [
        "run.wait()",
        "run.wait(); runner.close()",
        "run.wait(); list(run.iter_results())",
        "runner.close(); runner.get_run('r').wait(); runner.close()",
        "run.summary(); 1 / 0",
    ],
)
def test_a_process_that_ends_leaves_one_file_that_can_be_copied(world: World, tmp_path: Path, end: str) -> None:
    """Without the write-ahead log beside it, a copy of the database would be of an earlier moment, and pay again."""
    process = subprocess.run(
        [sys.executable, "-c", _WRITER, world.sandbox.base_url, end],
        cwd=tmp_path,
        env={**os.environ, "OPENAI_API_KEY": "sk-test"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert process.returncode == ("1 / 0" in end), process.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs.sqlite3", "runs_artifacts"]
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(tmp_path / "runs.sqlite3", copy)
    assert BatchRunner(storage=f"sqlite:///{copy}/runs.sqlite3").get_run("r").is_finished == ("1 / 0" not in end)
