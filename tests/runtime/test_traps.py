"""Traps of the contract that no other file has a test for; each name is the trap."""

from __future__ import annotations

import pickle
import threading
from pathlib import Path
from typing import Any

import pytest

from batchor_engine import BatchItem, ChunkPolicy, RetryPolicy, RunControlState, RunEvent, errors
from batchor_engine.providers.openai import OpenAIBatchProvider
from batchor_engine.runtime import hold

from .conftest import World


def test_a_failed_row_waits_out_its_own_delay_and_the_others_do_not(world: World) -> None:
    """T3.4"""
    world.fault("line_error", custom_ids=("row-1:a1",), status=500)
    policy = RetryPolicy(max_attempts=3, base_backoff_sec=500, max_backoff_sec=500)
    run = world.runner().run_and_wait(world.job(3, retry_policy=policy))
    first, second = run.batches()
    assert (first.items, second.items) == (3, 1)
    assert first.ended_at is not None
    assert second.submitted_at is not None
    assert (second.submitted_at - first.ended_at).total_seconds() >= 500


def test_batches_that_fail_again_and_again_leave_the_same_request_files(world: World) -> None:
    """T3.8"""
    found: set[frozenset[str]] = set()
    world.fault("expire", at=0, times=None)

    def count(event: RunEvent) -> None:
        if event.event_type == "batch_terminal_failure":
            found.add(frozenset(file.name for file in world.files("r/requests/*")))

    run = world.runner(observer=count).start(world.job(2), run_id="r").wait(poll_interval=60)
    assert len(run.batches()) == 10
    assert len(found) == 1


def test_a_resume_at_the_end_of_the_source_builds_no_prompt_again(world: World) -> None:
    """T5.12"""
    world.runner().start(world.job(), run_id="r")

    def never(item: object) -> str:
        raise AssertionError(f"built again for {item}")

    run = world.runner().start(world.job(build_prompt=never), run_id="r").wait()
    assert run.summary().completed_items == 3


def test_batches_are_looked_at_while_a_slow_source_is_still_read(world: World) -> None:
    """T5.14"""
    looked: list[int] = []

    def slow(item: object) -> str:
        world.clock.sleep(20)
        # Uploads take real time, of which this clock knows nothing: the rows before the last one are there first.
        assert any(world.stats()["files"] >= len(looked) - 1 for _ in range(20_000))
        looked.append(len(world.happened("batch_polled")))
        return "Say it"

    world.runner().start(world.job(6, build_prompt=slow, chunk_policy=ChunkPolicy(max_requests=1)), run_id="r")
    assert looked[0] == 0
    assert looked[-1] > 0


def test_a_replayed_request_differs_in_its_id_alone(world: World) -> None:
    """T7.8"""
    sent: list[list[bytes]] = []

    class Keeping(OpenAIBatchProvider):
        def upload_input_file(self, input_path: str | Path) -> str:
            sent.append(Path(input_path).read_bytes().split(b"\n"))
            return super().upload_input_file(input_path)

    world.fault("line_error", custom_ids=("row-1:a1",), status=500)
    words = 'row-1:a1 said "row-1:a1"\u2028\u0085 \U0001f980 \\u0041'
    rows = [BatchItem(f"row-{n}", words) for n in range(3)]
    job = world.job(rows, build_prompt=lambda item: item.payload)
    world.runner(provider_factory=Keeping).run_and_wait(job)
    first, again = sent
    (original,) = (line for line in first if b'"custom_id":"row-1:a1"' in line)
    assert again == [original.replace(b'"custom_id":"row-1:a1"', b'"custom_id":"row-1:a2"'), b""]


def test_waiting_never_sleeps_past_its_deadline(world: World) -> None:
    """T8.2"""
    world.fault("stuck", phase="in_progress")
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        world.clock.sleep(seconds)

    run = world.runner(sleep=sleep).start(world.job(), run_id="r")
    before = world.clock.now()
    with pytest.raises(TimeoutError):
        run.wait(timeout=2.5, poll_interval=1.0)
    assert (world.clock.now() - before).total_seconds() == pytest.approx(2.5)
    assert slept[:3] == pytest.approx([1.0, 1.0, 0.5])


def test_two_runs_upload_at_the_same_time(world: World) -> None:
    """T8.8: nothing is locked while a file is on its way, so each upload may wait for the other."""
    gate = threading.Barrier(2, timeout=60)

    class Meeting(OpenAIBatchProvider):
        def upload_input_file(self, input_path: str | Path) -> str:
            gate.wait()
            return super().upload_input_file(input_path)

    runners = [world.runner(provider_factory=Meeting) for _ in range(2)]
    crowd = [
        threading.Thread(target=runner.start, args=(world.job(3),), kwargs={"run_id": f"r{n}"})
        for n, runner in enumerate(runners)
    ]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()
    assert not gate.broken
    assert [runners[0].get_run(f"r{n}").summary().active_batches for n in range(2)] == [1, 1]


def test_a_pause_while_rows_are_read_keeps_each_of_them(world: World) -> None:
    """T10.6"""
    built: list[str] = []
    stored = 0

    def build(item: BatchItem[Any]) -> str:
        built.append(item.item_id)
        if len(built) == 3 and not stored:
            world.runner().pause_run("r")
        return "Say it"

    job = world.job(6, build_prompt=build, chunk_policy=ChunkPolicy(max_requests=2))
    run = world.runner().start(job, run_id="r")
    assert run.control_state is RunControlState.PAUSED
    stored = run.summary().total_items
    assert 0 < stored < 6
    del built[:]
    run.resume()
    assert [result.item_id for result in run.wait().results()] == [f"row-{n}" for n in range(6)]
    assert built == [f"row-{n}" for n in range(stored, 6)]
    assert world.stats()["paid_lines"] == 6


def test_an_event_is_told_after_its_commit_and_outside_of_any_transaction(world: World) -> None:
    """T12.1: at every event another process can write, and reads what the event says."""
    other = world.runner(observer=None)
    seen: dict[str, Any] = {}
    totals = {"completed": 0, "ingested": 0}

    def look(event: RunEvent) -> None:
        lease = other.storage.acquire("elsewhere", "me", 60.0)
        seen.setdefault("written", []).append(not isinstance(lease, str))
        other.storage.release(lease)
        run = other.get_run("r")
        told, batches = run.summary(), {batch.provider_batch_id for batch in run.batches()}
        match event.event_type:
            case "items_ingested":
                totals["ingested"] += int(str(event.data["chunk_item_count"]))
                seen["ingested"] = told.total_items == totals["ingested"]
            case "batch_submitted":
                seen["submitted"] = event.data["provider_batch_id"] in batches and told.active_batches > 0
            case "items_completed":
                totals["completed"] += int(str(event.data["completed_item_count"]))
                seen["completed"] = told.completed_items == totals["completed"]
            case "run_finished":
                seen["finished"] = run.is_finished
            case _:
                pass

    world.runner(observer=look).run_and_wait(world.job(3), run_id="r")
    assert all(seen.pop("written"))
    assert seen == {"ingested": True, "submitted": True, "completed": True, "finished": True}


def test_what_an_operator_does_is_told_to_the_observer_too(world: World) -> None:
    """T12.2"""
    run = world.runner().start(world.job(), run_id="r")
    run.pause()
    run.resume()
    run.cancel(drain=True)
    run.wait()
    told = [event.event_type for event in world.events if event.event_type.startswith("run_")]
    wanted = ["run_created", "run_paused", "run_control_resumed", "run_cancel_requested", "run_finished"]
    assert [name for name in told if name in wanted] == wanted


def test_an_observer_slower_than_the_lease_keeps_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """T12.4: time passes while it runs, the heartbeat prolongs the lease, and nobody else gets it."""
    monkeypatch.setattr(hold, "_HEARTBEAT_SEC", 0.001)
    other = world.runner(observer=None)
    got: list[object] = []

    def is_prolonged(resource: str) -> bool:
        ends = (lease.expires_at for lease in other.storage.held_leases() if lease.resource == resource)
        return next(ends, 0.0) >= world.clock.now().timestamp() + hold.LEASE_SEC

    def slow(event: RunEvent) -> None:
        for lease in other.storage.held_leases():
            for _ in range(3):
                # Three times half a lease is longer than one that nobody prolongs.
                world.clock.advance(hold.LEASE_SEC / 2)
                if None not in got and not any(is_prolonged(lease.resource) for _ in range(20_000)):
                    got.append(None)
            got.append(other.storage.acquire(lease.resource, "somebody/else", 60.0))

    run = world.runner(observer=slow).run_and_wait(world.job(4, chunk_policy=ChunkPolicy(max_requests=2)), run_id="r")
    assert got
    assert all(isinstance(holder, str) for holder in got)
    assert len(run.results()) == world.stats()["paid_lines"] == 4


def test_an_observer_that_outlasts_the_lease_loses_no_row_to_who_takes_it_over(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """T12.4: without a beat in time another worker goes on, and each row is still sent and paid once."""
    job = world.job(6, chunk_policy=ChunkPolicy(max_requests=2))

    def slow(event: RunEvent) -> None:
        world.clock.advance(2 * hold.LEASE_SEC)
        if event.event_type == "items_claimed_for_submission":
            world.runner(observer=None).start(job, run_id="r")

    world.runner(observer=slow).start(job, run_id="r")
    assert "another worker took over run=r" in caplog.text
    run = world.runner(observer=None).start(job, run_id="r").wait()
    assert [result.attempt_count for result in run.results()] == [1] * 6
    assert world.stats()["paid_lines"] == 6


@pytest.mark.parametrize(
    "error",
    [
        errors.ModelResolutionError("shop", "Dish"),
        errors.RunNotFinishedError("r"),
        errors.RunPausedError("r", "manual"),
        errors.UnknownRunError("r", "runs.sqlite3"),
        errors.RunIngestionSourceRequiredError("r"),
        errors.RunSubmissionIndeterminateError("r", "intent"),
        errors.RunBusyError("r"),
        errors.LeaseLostError("run:r"),
        errors.PromptBuildError("r", "a", "why"),
        errors.StructuredOutputError("invalid_json", "no JSON", raw_error="{"),
        errors.OtherAccountError("r", "one", "other"),
        errors.DuplicateItemError("r", "a"),
        errors.ArtifactMissingError("r/x", "/root", pruned=True),
        errors.ProviderError("no", kind=errors.ProviderErrorKind.QUOTA, status_code=429, retry_after_sec=2.0),
        errors.StoreError("no"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_survives_pickling_with_its_words_and_its_attributes(error: errors.BatchorError) -> None:
    """T11.2"""
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)
