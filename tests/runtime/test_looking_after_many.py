"""What a host that looks after many runs may ask again and again: what is open, what has changed, what has room."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from batchor_engine import (
    BatchItem,
    BatchRunner,
    ItemSource,
    OpenAIEnqueueLimitConfig,
    OpenAIProviderConfig,
    UnknownRunError,
)
from tests.runtime.conftest import World


def ids(runner: BatchRunner, **options: object) -> list[str]:
    return [info.run_id for info in runner.find_runs({"asset": "a"}, **options)]  # type: ignore[arg-type]


def test_only_what_is_not_over_is_found(world: World) -> None:
    runner = world.runner()
    runner.start(world.job(2), run_id="over", labels={"asset": "a"}).wait()
    runner.start(world.job(2), run_id="open", labels={"asset": "a"})
    runner.start(world.job(2), run_id="elsewhere", labels={"asset": "b"})
    assert ids(runner) == ["open", "over"]
    assert ids(runner, unfinished=True) == ["open"]


def test_a_run_whose_rows_are_retried_is_not_over(world: World) -> None:
    world.fault("status_zero", lines=(1,), times=None)
    runner = world.runner()
    run = runner.start(world.job(2), run_id="again", labels={"asset": "a"}).wait()
    assert ids(runner, unfinished=True) == []
    run.retry_failed()
    assert ids(runner, unfinished=True) == ["again"]


def test_a_run_that_has_not_read_its_source_is_not_over(world: World) -> None:
    runner = world.runner()
    runner.start(world.job(2), run_id="reading", labels={"asset": "a"}, deadline=0)
    assert ids(runner, unfinished=True) == ["reading"]


def test_only_younger_runs_are_found(world: World) -> None:
    runner = world.runner()
    runner.start(world.job(1), run_id="old", labels={"asset": "a"})
    between = world.clock.now() + timedelta(seconds=5)
    world.clock.advance(10)
    runner.start(world.job(1), run_id="young", labels={"asset": "a"})
    assert ids(runner, created_after=between) == ["young"]


def test_one_run_is_told_as_in_the_list(world: World) -> None:
    runner = world.runner()
    runner.start(world.job(2), run_id="one", labels={"asset": "a"})
    assert [runner.info("one")] == runner.find_runs()
    with pytest.raises(UnknownRunError):
        runner.info("other")


def test_a_fingerprint_tells_any_change_to_older_runs(world: World) -> None:
    runner = world.runner()
    old = runner.start(world.job(1), run_id="old", labels={"asset": "a"}).wait()
    world.clock.advance(10)
    until = world.clock.now()
    world.clock.advance(10)
    before = runner.fingerprint({"asset": "a"}, created_before=until)
    runner.start(world.job(1), run_id="young", labels={"asset": "a"})
    assert runner.fingerprint({"asset": "a"}, created_before=until) == before
    old.export_artifacts(world.folder / "kept")
    changed = runner.fingerprint({"asset": "a"}, created_before=until)
    assert changed != before
    runner.delete_run("old")
    assert runner.fingerprint({"asset": "a"}, created_before=until) not in (before, changed)
    assert runner.fingerprint({"asset": "b"}) == (0, 0)


def test_a_fingerprint_of_what_is_over_changes_when_a_run_ends_or_opens_again(world: World) -> None:
    world.fault("status_zero", lines=(1,), times=None)
    runner = world.runner()
    run = runner.start(world.job(2), run_id="one", labels={"asset": "a"})
    assert runner.fingerprint(finished=True) == (0, 0)
    run.wait()
    ended = runner.fingerprint(finished=True)
    assert ended == (1, runner.info("one").revision)
    run.retry_failed()
    assert runner.fingerprint(finished=True) == (0, 0)
    run.wait()
    assert runner.fingerprint(finished=True) > ended


def test_attempts_add_up_as_the_results_say(world: World) -> None:
    world.fault("status_zero", lines=(1,))
    run = world.runner().start(world.job(3), run_id="counted").wait()
    assert run.attempts() == sum(one.attempt_count for one in run.results()) == 4


def test_headroom_is_the_limit_less_what_is_enqueued(world: World) -> None:
    runner = world.runner()
    limits = OpenAIEnqueueLimitConfig(enqueued_token_limit=100_000, target_ratio=0.5)
    config = OpenAIProviderConfig(model="gpt-5-mini", enqueue_limits=limits)
    run = runner.start(world.job(3, provider_config=config), run_id="limited")
    budget = runner.budget_of("limited")
    (batch,) = run.batches()
    assert (budget.limit, budget.reserved) == (50_000, batch.tokens)
    assert budget.headroom == 50_000 - batch.tokens
    assert batch.tokens > 0
    run.wait()
    assert runner.budget_of("limited").headroom == 50_000
    runner.start(world.job(1), run_id="unlimited")
    assert runner.budget_of("unlimited").headroom is None


def test_a_run_that_was_cut_while_it_was_read_says_that_its_counts_are_not_all(world: World) -> None:
    class Broken(ItemSource[Any]):
        def __iter__(self) -> Iterator[BatchItem[Any]]:
            yield BatchItem("a", {})
            raise RuntimeError("the connection is lost")

    runner = world.runner()
    with pytest.raises(RuntimeError, match="connection is lost"):
        runner.start(world.job(Broken()), run_id="cut")
    runner.start(world.job(1), run_id="whole")
    assert {info.run_id: (info.summary.total_items, info.reading_finished) for info in runner.find_runs()} == {
        "cut": (1, False),
        "whole": (1, True),
    }
