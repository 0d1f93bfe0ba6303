"""What a process finds that another one left half done: looked for at the provider, adopted, taken back, or named."""

from __future__ import annotations

import shutil
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from batchor_engine import (
    BatchRunner,
    ChunkPolicy,
    OpenAIConnection,
    OtherAccountError,
    RetryPolicy,
    RunSubmissionIndeterminateError,
)
from batchor_engine.core.records import BatchRecord, Lease
from batchor_engine.ports.providers import RemoteBatchPage
from batchor_engine.providers.openai import OpenAIBatchProvider
from batchor_engine.testing import CrashError, CrashPoints, ManualClock

from ..stores import open_at
from .conftest import World

ONE_ROW = ChunkPolicy(max_requests=1)
# Long enough for every delay of these runs.
LONG = 300.0


class Unlisting(OpenAIBatchProvider):
    """A provider that cannot say which batches exist."""

    @property
    def lists_batches(self) -> bool:
        return False


def elsewhere(world: World) -> BatchRunner:
    """A process that speaks for another account."""
    connection = OpenAIConnection(api_key="sk-test", base_url=world.sandbox.base_url, project="other")
    return world.runner(connection=connection)


def on_file(world: World, database: Path) -> BatchRunner:
    """A process on a database that a test copies as a whole."""
    storage = open_at(f"sqlite:///{database}", world.clock.now)
    return world.runner(storage=storage, artifacts_url=str(world.folder / "artifacts"))


def died_at(world: World, point: str, run_id: str) -> None:
    runner = world.runner()
    CrashPoints({point: 1}).install(runner)
    with pytest.raises(CrashError):
        runner.start(world.job(3), run_id=run_id)


@pytest.mark.parametrize("wish", ["pause", "cancel"])
def test_a_wish_during_a_recovery_stops_the_creations_behind_it(world: World, wish: str) -> None:
    # The uploaded files are not visible yet, so nothing is created.
    world.fault("http_error", on="batches.create", status=404, times=None)
    runner, other = world.runner(), world.runner()
    job = world.job(4, chunk_policy=ONE_ROW, retry_policy=RetryPolicy(base_backoff_sec=0.0))
    run = runner.start(job, run_id="r")
    assert [batch.state for batch in run.batches()] == ["uploaded"] * 4
    world.sandbox.faults.clear()
    world.clock.advance(60)
    wishes = [getattr(other.get_run("r"), wish)]

    def reached(name: str) -> None:
        if name == "submit.create_noted" and wishes:
            wishes.pop()()

    runner.host.reached = reached
    run.refresh()
    assert len(world.sandbox.batches()) == 1


def test_a_note_that_took_long_is_made_again_before_the_batch_is(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database held its answer back; another worker has looked, found nothing, and sent the rows itself."""
    late = world.runner()
    note = late.storage.note_batch
    notes: list[float] = []

    def slowly(batch: BatchRecord, lease: Lease, **facts: Any) -> None:
        note(batch, lease, **facts)
        notes.append(facts["create_at"])
        if len(notes) == 1:
            world.clock.advance(70)
            world.runner().get_run("r").refresh()
            assert len(world.sandbox.batches()) == 1

    monkeypatch.setattr(late.storage, "note_batch", slowly)
    run = late.start(world.job(3), run_id="r")
    assert len(world.sandbox.batches()) == 1
    assert run.wait(timeout=LONG).summary().completed_items == 3


@pytest.mark.parametrize("point", ["submit.claimed", "submit.intended", "submit.uploaded"])
def test_an_intent_of_another_account_that_was_never_created_is_taken_back(world: World, point: str) -> None:
    died_at(world, point, "r")
    run = elsewhere(world).get_run("r").wait(timeout=LONG)
    assert run.summary().completed_items == 3
    assert world.stats()["paid_lines"] == 3


@pytest.mark.parametrize("cancelled", [False, True])
def test_waiting_for_a_doubtful_batch_of_another_account_is_an_error(world: World, cancelled: bool) -> None:
    died_at(world, "submit.created", "r")
    run = elsewhere(world).get_run("r")
    if cancelled:
        run.cancel()
    with pytest.raises(OtherAccountError):
        run.wait(timeout=LONG)
    assert world.runner().get_run("r").wait().is_finished
    assert len(world.sandbox.batches()) == 1


def test_waiting_for_a_cancelled_run_with_a_batch_in_doubt_is_an_error(world: World) -> None:
    world.fault("lost_answer", on="batches.create")
    # The second batch waits for the first, so rows are pending when the run is cancelled.
    run = world.runner(provider_factory=Unlisting).start(world.job(2, chunk_policy=ONE_ROW), run_id="r")
    run.refresh()
    run.cancel()
    with pytest.raises(RunSubmissionIndeterminateError) as caught:
        run.wait(timeout=LONG)
    run.resolve_indeterminate_submission_as_not_created(intent_id=caught.value.intent_id)
    assert run.wait(timeout=LONG).is_finished


@pytest.mark.parametrize("point", ["submit.claimed", "submit.intended", "submit.uploaded"])
def test_a_restored_backup_adopts_what_was_created_after_it(world: World, point: str) -> None:
    database, backup = world.folder / "kept.sqlite3", world.folder / "backup.sqlite3"
    runner = on_file(world, database)

    def reached(name: str) -> None:
        if name == point and not backup.exists():
            source, target = sqlite3.connect(database), sqlite3.connect(backup)
            source.backup(target)
            source.close()
            target.close()

    runner.host.reached = reached
    runner.start(world.job(3), run_id="r")
    runner.close()
    for suffix in ("-wal", "-shm"):
        Path(f"{database}{suffix}").unlink(missing_ok=True)
    shutil.copy(backup, database)
    world.sandbox.finish()
    world.clock.advance(120)
    run = on_file(world, database).get_run("r").wait(timeout=LONG)
    assert run.summary().completed_items == 3
    assert (len(world.sandbox.batches()), world.stats()["paid_lines"]) == (1, 3)


class SmallPages(OpenAIBatchProvider):
    """A provider that lists two batches a page."""

    def list_batches(self, *, after: str | None = None, limit: int = 100) -> RemoteBatchPage:
        return super().list_batches(after=after, limit=min(limit, 2))


def lost_and_buried(world: World) -> BatchRunner:
    """The answer to a creation is lost while our clock is hours ahead; then others of the account go on."""
    world.clock = ManualClock(datetime.now(UTC) + timedelta(hours=5))
    world.fault("lost_answer", on="batches.create")
    runner = world.runner(provider_factory=SmallPages)
    runner.start(world.job(3), run_id="r")
    world.runner().start(world.job(4, chunk_policy=ONE_ROW), run_id="others")
    world.clock.advance(120)
    return runner


def test_a_clock_hours_ahead_does_not_hide_a_batch_from_recovery(world: World) -> None:
    runner = lost_and_buried(world)
    assert runner.get_run("r").wait().summary().completed_items == 3
    assert len(world.sandbox.batches()) == 5


def test_a_batch_that_may_be_on_a_page_not_read_is_left_to_an_operator(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchor_engine.runtime.recover._MAX_PAGES", 1)
    runner = lost_and_buried(world)
    with pytest.raises(RunSubmissionIndeterminateError):
        runner.get_run("r").wait()
    assert len(world.sandbox.batches()) == 5


def test_a_fresh_submission_lists_nothing(world: World) -> None:
    world.runner().start(world.job(4, chunk_policy=ONE_ROW), run_id="r")
    assert world.stats()["calls"].get("batches.list", 0) == 0
