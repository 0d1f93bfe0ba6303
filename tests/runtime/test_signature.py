"""Two stores that are given one artifact root, and have a run of one id: whose files are whose."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchor_engine import BatchRunner, OpenAIConnection, PromptParts, SQLiteStorage
from batchor_engine.artifacts.local import LocalArtifactStore
from batchor_engine.artifacts.urls import open_artifacts
from batchor_engine.errors import PromptBuildError, RunMismatchError
from batchor_engine.testing import CrashError, CrashPoints

from .conftest import World

Maker = Callable[..., BatchRunner]


@pytest.fixture(params=["folder", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "shared") if request.param == "folder" else f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def runner_of(world: World, tmp_path: Path, root: str) -> Maker:
    """Runners of stores by name, all with the same artifact root."""

    def runner(name: str, **options: Any) -> BatchRunner:
        made = BatchRunner(
            storage=SQLiteStorage(path=tmp_path / f"{name}.sqlite3", now=world.clock.now),
            connection=OpenAIConnection(api_key="sk-test", base_url=world.sandbox.base_url),
            sleep=world.clock.sleep,
            **{"artifacts_url": root, **options},
        )
        world.runners.append(made)
        return made

    return runner


def keys(root: str) -> list[str]:
    return list(open_artifacts(root).list_keys(""))


def signature(root: str) -> str:
    (found,) = [key for key in keys(root) if "/owners/" in key]
    return found


def test_a_run_is_not_started_in_the_folder_of_another_stores_run(world: World, runner_of: Maker, root: str) -> None:
    prod, dev = runner_of("prod"), runner_of("dev")
    done = prod.run_and_wait(world.job(3), run_id="daily")
    before = keys(root)
    with pytest.raises(RunMismatchError, match=r"'daily' cannot be started.*prod\.sqlite3.*another run_id") as refused:
        dev.start(world.job(3), run_id="daily")
    assert root in str(refused.value)
    assert (dev.storage.run("daily"), keys(root)) == (None, before)
    assert len(done.results()) == 3
    assert len(dev.run_and_wait(world.job(3), run_id="other").results()) == 3
    assert world.stats()["paid_lines"] == 6


def test_of_two_stores_that_start_at_once_one_goes_on(world: World, runner_of: Maker, tmp_path: Path) -> None:
    class Late(LocalArtifactStore):
        def write_text(self, key: str, content: str, *, encoding: str = "utf-8") -> None:
            quick.start(world.job(3), run_id="daily")
            super().write_text(key, content, encoding=encoding)

    place = tmp_path / "at once"
    quick, late = runner_of("quick", artifacts_url=place), runner_of("late", artifact_store=Late(place))
    with pytest.raises(RunMismatchError, match=r"quick\.sqlite3"):
        late.start(world.job(3), run_id="daily")
    assert late.storage.run("daily") is None
    assert len(quick.get_run("daily").wait().results()) == 3
    assert quick.doctor().findings == ()


def test_a_run_that_failed_before_its_first_row_leaves_its_folder_free(
    world: World, runner_of: Maker, root: str
) -> None:
    def fail(_item: object) -> PromptParts:
        raise ValueError("no")

    with pytest.raises(PromptBuildError):
        runner_of("prod").start(world.job(3, build_prompt=fail), run_id="daily")
    assert keys(root) == []
    assert len(runner_of("dev").run_and_wait(world.job(3), run_id="daily").results()) == 3


def test_a_start_that_was_killed_is_begun_again_in_its_folder(world: World, runner_of: Maker, root: str) -> None:
    killed = runner_of("prod")
    CrashPoints({"ingest.part_written": 1}).install(killed)
    with pytest.raises(CrashError):
        killed.start(world.job(3), run_id="daily")
    with pytest.raises(RunMismatchError):
        runner_of("dev").start(world.job(3), run_id="daily")
    again = runner_of("prod")
    assert len(again.run_and_wait(world.job(3), run_id="daily").results()) == 3
    signature(root)
    again.delete_run("daily")
    assert keys(root) == []


def test_a_start_that_was_killed_before_it_signed_and_then_paused_signs_as_it_goes_on(
    world: World, runner_of: Maker, root: str
) -> None:
    killed = runner_of("prod")
    CrashPoints({"ingest.part_written": 1}).install(killed)
    with pytest.raises(CrashError):
        killed.start(world.job(3), run_id="daily")
    open_artifacts(root).remove(signature(root))
    again = runner_of("prod")
    again.pause_run("daily")
    run = again.start(world.job(3), run_id="daily")
    signature(root)
    run.resume()
    assert len(run.wait().results()) == 3


def test_a_start_that_was_killed_and_is_begun_again_elsewhere_leaves_its_first_folder_free(
    world: World, runner_of: Maker, root: str, tmp_path: Path
) -> None:
    killed = runner_of("prod")
    CrashPoints({"ingest.part_written": 1}).install(killed)
    with pytest.raises(CrashError):
        killed.start(world.job(3), run_id="daily")
    elsewhere = runner_of("prod", artifacts_url=tmp_path / "elsewhere")
    assert len(elsewhere.run_and_wait(world.job(3), run_id="daily").results()) == 3
    assert keys(root) == []
    elsewhere.delete_run("daily")
    assert len(runner_of("prod").run_and_wait(world.job(3), run_id="daily").results()) == 3


def test_a_start_that_was_killed_is_begun_again_elsewhere_where_its_first_folder_is_away(
    world: World, runner_of: Maker, tmp_path: Path
) -> None:
    place = tmp_path / "away"
    killed = runner_of("prod", artifacts_url=place)
    CrashPoints({"ingest.part_written": 1}).install(killed)
    with pytest.raises(CrashError):
        killed.start(world.job(3), run_id="daily")
    shutil.rmtree(place)
    place.write_text("no folder")
    elsewhere = runner_of("prod", artifacts_url=tmp_path / "elsewhere")
    assert len(elsewhere.run_and_wait(world.job(3), run_id="daily").results()) == 3
    assert place.read_text() == "no folder"


def test_a_folder_of_a_lost_database_is_not_said_to_be_that_of_the_new_one_at_its_path(
    world: World, runner_of: Maker, root: str, tmp_path: Path
) -> None:
    lost = runner_of("prod")
    lost.run_and_wait(world.job(3), run_id="daily")
    before = keys(root)
    lost.close()
    (tmp_path / "prod.sqlite3").unlink()
    with pytest.raises(RunMismatchError, match=r"prod\.sqlite3, which is not the store there now, and the answers"):
        runner_of("prod").start(world.job(3), run_id="daily")
    assert keys(root) == before


def test_a_restored_database_is_the_same_owner(world: World, runner_of: Maker, root: str, tmp_path: Path) -> None:
    before = runner_of("prod")
    before.start(world.job(3), run_id="daily")
    before.close()
    shutil.copy(tmp_path / "prod.sqlite3", tmp_path / "restored.sqlite3")
    open_artifacts(root).write_text("daily/results/orphan.parquet", "")
    after = runner_of("restored")
    assert len(after.get_run("daily").wait().results()) == 3
    assert "daily/results/orphan.parquet" not in keys(root)
    after.delete_run("daily")
    assert keys(root) == []


def test_a_folder_without_a_signature_is_its_runs_own_and_nobody_elses(
    world: World, runner_of: Maker, root: str
) -> None:
    prod = runner_of("prod")
    run = prod.start(world.job(3), run_id="daily")
    files = open_artifacts(root)
    files.remove(signature(root))
    files.write_text("daily/results/orphan.parquet", "")
    with pytest.raises(RunMismatchError, match="not empty"):
        runner_of("dev").start(world.job(3), run_id="daily")
    assert len(run.wait().results()) == 3
    assert "daily/results/orphan.parquet" not in keys(root)
    prod.delete_run("daily")
    assert keys(root) == []


def test_nothing_is_swept_in_a_folder_that_another_store_has_signed(world: World, runner_of: Maker, root: str) -> None:
    prod = runner_of("prod")
    run = prod.start(world.job(3), run_id="daily")
    files = open_artifacts(root)
    foreign = {"daily/owners/0.json", "daily/requests/theirs.jsonl", "daily/results/theirs.parquet"}
    for key in foreign:
        files.write_text(key, '{"store": "/there/dev.sqlite3"}')
    assert len(run.wait().results()) == 3
    run.prune_artifacts()
    (finding,) = prod.doctor(repair=True).findings
    assert (finding.check, "/there/dev.sqlite3" in finding.message) == ("shared_folder", True)
    prod.delete_run("daily")
    assert set(keys(root)) == foreign


def test_who_lost_a_run_before_its_first_row_leaves_its_folder_to_the_new_owner(
    world: World, runner_of: Maker, root: str
) -> None:
    slow, owner = runner_of("prod"), runner_of("prod")
    CrashPoints({"ingest.part_written": 1}).install(owner)

    def fail(_item: Any) -> PromptParts:
        world.clock.advance(61)
        with pytest.raises(CrashError):
            owner.start(world.job(3), run_id="daily")
        raise KeyError("body")

    with pytest.raises(PromptBuildError):
        slow.start(world.job(3, build_prompt=fail), run_id="daily")
    with pytest.raises(RunMismatchError, match=r"prod\.sqlite3"):
        runner_of("dev").start(world.job(3), run_id="daily")
    assert len(runner_of("prod").run_and_wait(world.job(3), run_id="daily").results()) == 3


def test_a_death_while_an_empty_run_is_taken_back_does_not_close_its_folder(
    world: World, runner_of: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_item: Any) -> PromptParts:
        raise KeyError("body")

    dying = runner_of("prod")
    discard = dying.storage.discard_empty_run

    def dies(*args: Any) -> bool:
        discard(*args)
        raise CrashError("discarded")

    monkeypatch.setattr(dying.storage, "discard_empty_run", dies)
    with pytest.raises(CrashError):
        dying.start(world.job(1, build_prompt=fail), run_id="daily")
    assert len(runner_of("prod").run_and_wait(world.job(3), run_id="daily").results()) == 3
