"""Traps of the contract that no other file has a test for; each name is the trap."""

from __future__ import annotations

import pickle

import pytest

from batchor_engine import ChunkPolicy, errors

from .conftest import World


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
        looked.append(len(world.happened("batch_polled")))
        return "Say it"

    world.runner().start(world.job(6, build_prompt=slow, chunk_policy=ChunkPolicy(max_requests=1)), run_id="r")
    assert looked[0] == 0
    assert looked[-1] > 0


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
