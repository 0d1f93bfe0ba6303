"""Runs are listed by what is the matter with them, and go without leaving anything half there."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import pytest

from batchor_engine import (
    BatchRunner,
    ChunkPolicy,
    OpenAIConnection,
    OpenAIEnqueueLimitConfig,
    OpenAIProviderConfig,
    RunLifecycleStatus,
    UnknownRunError,
)
from batchor_engine.core.records import DELETING
from batchor_engine.core.remote_files import RemoteCleanup
from batchor_engine.errors import ApiKeyMissingError, OtherAccountError, ProviderError, RunBusyError
from batchor_engine.runtime.housekeeping import RunHasLiveBatchesError, delete_run, list_runs
from batchor_engine.runtime.remote_cleanup import clean_remote
from batchor_engine.states import RunControlState
from batchor_engine.testing import CrashError, CrashPoints

from .conftest import World


def ids(runner: BatchRunner, **options: object) -> list[str]:
    return [run.run_id for run in list_runs(runner.host, **options).runs]  # type: ignore[arg-type]


@dataclass
class Mixed:
    """A store with one run of each kind."""

    runner: BatchRunner


@pytest.fixture
def mixed(world: World) -> Mixed:
    runner = world.runner()
    runner.run_and_wait(world.job(2), run_id="done")
    world.fault("refusal", custom_ids=("row-0:a1",))
    runner.run_and_wait(world.job(2), run_id="failed")
    runner.start(world.job(2), run_id="going", labels={"asset": "a"})
    runner.start(world.job(2), run_id="paused", labels={"asset": "a"}).pause()
    runner.start(world.job(2), run_id="cancelled").cancel()
    return Mixed(runner)


def test_runs_are_listed_newest_first_with_labels_and_counts(mixed: Mixed, world: World) -> None:
    page = list_runs(mixed.runner.host)
    assert [run.run_id for run in page.runs] == ["cancelled", "paused", "going", "failed", "done"]
    assert page.next_before is None
    assert page.runs[2].labels == {"asset": "a"}
    assert page.runs[4].summary.completed_items == 2
    assert page.runs[4].created_at.tzinfo is not None
    assert page.runs[4].created_at <= world.clock.now()


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("running", ["cancelled", "paused", "going"]),
        (RunLifecycleStatus.COMPLETED, ["done"]),
        ("completed_with_failures", ["failed"]),
        ("paused", ["paused"]),
        (RunControlState.CANCEL_REQUESTED, ["cancelled"]),
    ],
)
def test_runs_are_filtered_by_lifecycle_or_control(mixed: Mixed, status: str, expected: list[str]) -> None:
    assert ids(mixed.runner, status=status) == expected


def test_an_unknown_status_names_the_known_ones(mixed: Mixed) -> None:
    with pytest.raises(ValueError, match="cancel_requested, completed"):
        list_runs(mixed.runner.host, status="resting")
    with pytest.raises(ValueError, match="limit"):
        list_runs(mixed.runner.host, limit=0)


def test_pages_follow_each_other_without_a_gap(mixed: Mixed) -> None:
    seen: list[str] = []
    before: int | None = None
    while True:
        page = list_runs(mixed.runner.host, status="running", limit=2, before=before)
        seen += [run.run_id for run in page.runs]
        if page.next_before is None:
            break
        before = page.next_before
    assert seen == ["cancelled", "paused", "going"]
    assert ids(mixed.runner, labels={"asset": "a"}, limit=1) == ["paused"]


def test_a_page_goes_on_after_its_last_run_was_deleted(mixed: Mixed) -> None:
    page = list_runs(mixed.runner.host, limit=4)
    assert page.next_before is not None
    delete_run(mixed.runner.host, "failed")
    assert ids(mixed.runner, before=page.next_before) == ["done"]


def test_listing_an_absent_store_creates_nothing(world: World) -> None:
    assert ids(world.runner()) == []
    assert not list(world.folder.iterdir())


def test_a_deleted_run_leaves_no_row_and_no_file(world: World) -> None:
    runner = world.runner()
    runner.run_and_wait(world.job(3), run_id="kept")
    before = world.files()
    runner.run_and_wait(world.job(3), run_id="gone")
    gone = delete_run(runner.host, "gone")
    assert (gone.removed_files, gone.removed_remote_files, gone.left_batches) == (4, 0, ())
    assert world.files() == before
    assert runner.get_run("kept").results()
    with pytest.raises(UnknownRunError):
        delete_run(runner.host, "gone")
    assert world.happened("run_deleted")


def test_a_deleted_id_can_be_used_again(world: World) -> None:
    runner = world.runner()
    runner.run_and_wait(world.job(3), run_id="again")
    delete_run(runner.host, "again")
    assert len(runner.run_and_wait(world.job(5), run_id="again").results()) == 5


def test_a_run_with_live_batches_is_not_deleted_and_says_the_way_out(world: World) -> None:
    runner = world.runner()
    run = runner.start(world.job(3), run_id="live")
    with pytest.raises(RunHasLiveBatchesError, match="cancel the run"):
        delete_run(runner.host, "live")
    assert len(run.wait().results()) == 3


def test_a_cancelled_run_whose_batches_were_asked_to_stop_can_go(world: World) -> None:
    runner = world.runner()
    runner.start(world.job(3), run_id="stopped").cancel()
    assert delete_run(runner.host, "stopped").left_batches == ()
    assert {batch["status"] for batch in world.sandbox.batches()} <= {"cancelling", "cancelled"}
    assert world.files() == []


def test_a_drained_run_is_still_working_and_stays(world: World) -> None:
    runner = world.runner()
    runner.start(world.job(3), run_id="drained").cancel(drain=True)
    with pytest.raises(RunHasLiveBatchesError):
        delete_run(runner.host, "drained")


def test_force_cancels_at_the_provider_and_gives_the_budget_back(world: World) -> None:
    runner = world.runner()
    limits = OpenAIEnqueueLimitConfig(enqueued_token_limit=100_000)
    config = OpenAIProviderConfig(model="gpt-5-mini", enqueue_limits=limits)
    runner.start(world.job(3, provider_config=config), run_id="forced")
    scope = runner.storage.batches()[0].scope
    assert runner.storage.scope(scope).reserved > 0
    assert delete_run(runner.host, "forced", force=True).left_batches == ()
    assert runner.storage.scope(scope).reserved == 0
    assert {batch["status"] for batch in world.sandbox.batches()} <= {"cancelling", "cancelled"}


def test_force_without_a_key_says_which_batches_it_leaves_alive(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    world.runner().start(world.job(3), run_id="left")
    keyless = world.runner(connection=OpenAIConnection(base_url=world.sandbox.base_url))
    left = delete_run(keyless.host, "left", force=True).left_batches
    assert left == tuple(batch["id"] for batch in world.sandbox.batches())


def test_force_finds_and_cancels_a_batch_whose_creation_was_never_answered(world: World) -> None:
    runner = world.runner()
    world.fault("lost_answer")
    runner.start(world.job(3), run_id="unsure")
    world.clock.advance(60)
    assert delete_run(runner.host, "unsure", force=True).left_batches == ()
    assert {batch["status"] for batch in world.sandbox.batches()} <= {"cancelling", "cancelled"}


def test_a_run_that_another_worker_advances_is_not_deleted(world: World) -> None:
    runner = world.runner()
    runner.run_and_wait(world.job(3), run_id="busy")
    runner.storage.acquire("run:busy", "somebody/else", 60.0)
    with pytest.raises(RunBusyError):
        delete_run(runner.host, "busy")
    assert len(runner.get_run("busy").results()) == 3


@pytest.mark.parametrize("point", ["delete.marked", "delete.files_removed"])
def test_a_crash_in_a_deletion_is_seen_and_the_next_call_ends_it(world: World, point: str) -> None:
    runner = world.runner()
    runner.run_and_wait(world.job(3), run_id="crashed")
    CrashPoints({point: 1}).install(runner)
    with pytest.raises(CrashError):
        delete_run(runner.host, "crashed")
    fresh = world.runner()
    listed = list_runs(fresh.host).runs[0]
    assert (listed.run_id, listed.summary.control_reason) == ("crashed", DELETING)
    delete_run(fresh.host, "crashed")
    assert (ids(fresh), world.files()) == ([], [])


def test_remote_files_go_with_the_run_on_request(world: World) -> None:
    runner = world.runner()
    runner.run_and_wait(world.job(4, chunk_policy=ChunkPolicy(max_requests=2)), run_id="remote")
    assert world.stats()["files"] == 4
    assert delete_run(runner.host, "remote", remote=True).removed_remote_files == 4
    assert world.stats()["files"] == 0


def test_without_a_key_remote_files_stay_and_so_does_the_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    world.runner().run_and_wait(world.job(2), run_id="keyless")
    keyless = world.runner(connection=OpenAIConnection(base_url=world.sandbox.base_url))
    with pytest.raises(ApiKeyMissingError):
        delete_run(keyless.host, "keyless", remote=True)
    assert len(keyless.get_run("keyless").results()) == 2
    delete_run(keyless.host, "keyless")
    assert ids(keyless) == []


def test_a_late_collector_of_a_deleted_run_finds_its_lease_gone(world: World) -> None:
    runner = world.runner()
    runner.run_and_wait(world.job(2), run_id="late")
    batch = runner.storage.batches()[0]
    late = runner.storage.acquire(f"batch:{batch.pk}", "late/worker", 60.0)
    delete_run(runner.host, "late")
    assert not isinstance(late, str)
    assert [one.resource for one in runner.storage.held_leases()] == []


@pytest.mark.parametrize(
    ("policy", "left"), [(RemoteCleanup.NONE, 2), (RemoteCleanup.INPUT, 1), (RemoteCleanup.ALL, 0)]
)
def test_remote_files_are_cleaned_by_policy_once_they_are_collected(
    world: World, policy: RemoteCleanup, left: int
) -> None:
    runner = world.runner()
    run = runner.start(world.job(3), run_id="clean")
    stored = runner.storage.run("clean")
    assert stored is not None
    assert clean_remote(runner.host, stored, policy) == 0
    run.wait()
    assert clean_remote(runner.host, stored, policy) == 2 - left
    assert world.stats()["files"] == left
    assert clean_remote(runner.host, stored, policy) == 0
    assert all(result.raw_response for result in run.results())


def test_a_failed_cleaning_goes_on_with_the_next_call(world: World) -> None:
    runner = world.runner()
    runner.run_and_wait(world.job(2), run_id="again")
    stored = runner.storage.run("again")
    assert stored is not None
    world.fault("http_error", on="files.delete", nth=2, status=500)
    with pytest.raises(ProviderError):
        clean_remote(runner.host, stored)
    assert world.stats()["files"] == 1
    clean_remote(runner.host, stored)
    assert world.stats()["files"] == 0


def test_a_client_of_another_account_cleans_nothing(world: World) -> None:
    world.runner().run_and_wait(world.job(2), run_id="mine")
    other = world.runner(
        connection=OpenAIConnection(api_key="sk-other", base_url=world.sandbox.base_url, project="another")
    )
    stored = other.storage.run("mine")
    assert stored is not None
    with pytest.raises(OtherAccountError):
        clean_remote(other.host, stored)
    assert world.stats()["files"] == 2


def test_what_another_account_has_of_a_run_is_left_there_and_said(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.fault("line_error", lines=(1,), status=500)
    first = world.runner()
    run = first.start(world.job(3), run_id="moved")
    while not run.summary().completed_items:
        first.poll()
        run.collect()
    elsewhere = OpenAIConnection(api_key="sk-other", base_url=world.sandbox.base_url, project="another")
    other = world.runner(connection=elsewhere, remote_cleanup="all")
    theirs = world.stats()["files"]
    world.clock.advance(100)
    with caplog.at_level(logging.WARNING, "batchor_engine"):
        assert len(other.get_run("moved").wait().results()) == 3
    # The second batch has left nothing.
    assert world.stats()["files"] == theirs
    assert "remote files of run=moved are left at account" in caplog.text
    stored = first.storage.run("moved")
    assert stored is not None
    assert clean_remote(first.host, stored) == theirs


@dataclass(frozen=True)
class ExpiringConfig(OpenAIProviderConfig):
    """A config that says how long output files live."""

    output_expires_after_sec: int | None = None


@pytest.mark.parametrize("seconds", [None, 7200])
def test_output_files_are_created_with_the_expiry_that_the_config_names(world: World, seconds: int | None) -> None:
    config = ExpiringConfig(model="gpt-5-mini", output_expires_after_sec=seconds)
    world.runner().start(world.job(2, provider_config=config), run_id="expiring")
    created = [call for call in world.sandbox.journal() if call.get("operation") == "batches.create"]
    assert len(created) == 1
    batch = world.sandbox.desk.state.batches_before(None, 10)[0]
    assert batch.output_expires_sec == seconds
