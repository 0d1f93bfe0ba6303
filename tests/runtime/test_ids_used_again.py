"""A run id that is taken back, deleted or begun anew, and used again: what belongs to which run of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchor_engine import BatchItem, BatchRunner, ChunkPolicy, CsvItemSource, OpenAIProviderConfig, PromptParts, Run
from batchor_engine.core.records import NewRun
from batchor_engine.errors import PromptBuildError, RunIngestionSourceRequiredError, RunMismatchError
from batchor_engine.testing import CrashError, CrashPoints

from .conftest import World


def rows_of(folder: Path, name: str) -> CsvItemSource:
    path = folder / f"{name}.csv"
    path.write_text("id\n" + "".join(f"{name}-{n}\n" for n in range(6)))
    return CsvItemSource(path, item_id_from_row=lambda row: row["id"], payload_from_row=dict)


def job_of(world: World, name: str, **options: Any) -> Any:
    return world.job(rows_of(world.folder, name), chunk_policy=ChunkPolicy(max_requests=2), **options)


def fails_once(item: BatchItem[Any], failed: list[str]) -> PromptParts:
    if not failed:
        failed.append(item.item_id)
        raise KeyError("body")
    return PromptParts("old prompt")


def start_and_fail(world: World, runner: BatchRunner) -> None:
    failed: list[str] = []
    with pytest.raises(PromptBuildError):
        runner.start(job_of(world, "old", build_prompt=lambda item: fails_once(item, failed)), run_id="daily")


def taken_back(world: World, keeper: BatchRunner, _other: BatchRunner) -> None:
    start_and_fail(world, keeper)


def joined_and_taken_back(world: World, keeper: BatchRunner, other: BatchRunner) -> None:
    joined: list[Run] = []

    def fail(_item: BatchItem[Any]) -> PromptParts:
        joined.append(keeper.start(job_of(world, "old"), run_id="daily"))
        raise KeyError("body")

    with pytest.raises(PromptBuildError):
        other.start(job_of(world, "old", build_prompt=fail), run_id="daily")
    assert joined


def paused_and_deleted(world: World, keeper: BatchRunner, other: BatchRunner) -> None:
    def pause(name: str) -> None:
        if name == "ingest.part_stored":
            keeper.pause_run("daily")

    keeper.host.reached = pause
    keeper.start(job_of(world, "old"), run_id="daily")
    keeper.host.reached = lambda _name: None
    other.delete_run("daily", force=True)


@pytest.mark.parametrize("ended", [taken_back, joined_and_taken_back, paused_and_deleted])
def test_a_source_is_never_read_into_another_run_of_its_id(
    world: World, ended: Callable[[World, BatchRunner, BatchRunner], None]
) -> None:
    keeper, other = world.runner(), world.runner()
    ended(world, keeper, other)
    new = job_of(world, "new", provider_config=OpenAIProviderConfig(model="gpt-5"))
    CrashPoints({"ingest.part_stored": 1}).install(other)
    with pytest.raises(CrashError):
        other.start(new, run_id="daily")
    world.clock.advance(61)
    with pytest.raises(RunIngestionSourceRequiredError):
        keeper.get_run("daily").wait()
    run = keeper.run_and_wait(new, run_id="daily")
    assert [result.item_id for result in run.results()] == [f"new-{n}" for n in range(6)]


@pytest.mark.parametrize("moment", ["before", "meanwhile"])
def test_a_run_without_rows_that_was_paused_takes_its_own_job_only(
    world: World, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed, again = world.runner(), world.runner()
    CrashPoints({"ingest.part_written": 1}).install(killed)
    with pytest.raises(CrashError):
        killed.start(job_of(world, "old"), run_id="daily")
    create = again.storage.create_run

    def create_after_the_pause(new: NewRun) -> bool:
        world.runner().pause_run("daily")
        return create(new)

    if moment == "before":
        world.runner().pause_run("daily")
    else:
        monkeypatch.setattr(again.storage, "create_run", create_after_the_pause)
    with pytest.raises(RunMismatchError, match="'gpt-5-mini' stored, 'gpt-5' given"):
        again.start(job_of(world, "old", provider_config=OpenAIProviderConfig(model="gpt-5")), run_id="daily")
    with pytest.raises(RunMismatchError, match=r"new\.csv"):
        again.start(job_of(world, "new"), run_id="daily")
    run = again.start(job_of(world, "old"), run_id="daily")
    run.resume()
    assert len(run.wait().results()) == 6


@pytest.mark.parametrize("run_id", ["daily", "other"])
def test_a_start_that_is_taken_back_removes_nothing_of_a_run_that_begins_at_that_moment(
    world: World, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing, other = world.runner(), world.runner()
    discard = failing.storage.discard_empty_run

    def discard_and_begin(*args: Any) -> bool:
        # SQLite gives the number of the last row that was deleted to the next.
        discarded = discard(*args)
        other.start(job_of(world, "new"), run_id=run_id)
        return discarded

    monkeypatch.setattr(failing.storage, "discard_empty_run", discard_and_begin)
    start_and_fail(world, failing)
    assert len(other.get_run(run_id).wait().results()) == 6
    assert other.doctor().findings == ()
