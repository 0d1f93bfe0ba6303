"""Several runs and several workers over one store and one account."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from batchor_engine import (
    BatchItem,
    BatchRunner,
    ChunkPolicy,
    ItemStatus,
    OpenAIEnqueueLimitConfig,
    OpenAIProviderConfig,
    SQLiteStorage,
)
from batchor_engine.core.budget import SENDING_SEC
from batchor_engine.core.identity import INTENT_KEY
from batchor_engine.core.records import ScopeRecord
from batchor_engine.ports.providers import RemoteBatchPage
from batchor_engine.providers.openai import OpenAIBatchProvider
from batchor_engine.runtime.poll import keep_places
from batchor_engine.sandbox import SandboxConfig
from batchor_engine.states import BatchState
from batchor_engine.testing import CrashError, CrashPoints

from .conftest import World


def limited(tokens: int) -> OpenAIProviderConfig:
    limits = OpenAIEnqueueLimitConfig(enqueued_token_limit=tokens, target_ratio=1.0)
    return OpenAIProviderConfig(model="gpt-5-mini", enqueue_limits=limits)


def test_a_second_worker_finds_the_run_busy_and_submits_nothing(world: World) -> None:
    first, second = world.runner(), world.runner()
    run = first.start(world.job(3), run_id="one")
    held = first.storage.acquire("run:one", "somebody/else", 60.0)
    assert not isinstance(held, str)
    world.sandbox.finish()
    assert second.get_run("one").refresh().completed_items == 3
    first.storage.release(held)
    assert run.refresh().completed_items == 3


def test_start_of_a_busy_run_returns_its_summary(world: World) -> None:
    first = world.runner()
    first.start(world.job(3), run_id="busy")
    first.storage.acquire("run:busy", "somebody/else", 60.0)
    before = world.stats()["calls_total"]
    assert world.runner().start(world.job(3), run_id="busy").summary().total_items == 3
    assert world.stats()["calls_total"] == before


def test_a_job_that_met_a_busy_run_reads_on_when_the_other_worker_is_gone(world: World) -> None:
    job = world.job(6, chunk_policy=ChunkPolicy(max_requests=3))
    first = world.runner()
    CrashPoints({"ingest.part_stored": 1}).install(first)
    with pytest.raises(CrashError):
        first.start(job, run_id="joined")
    held = first.storage.acquire("run:joined", "somebody/else", 60.0)
    assert not isinstance(held, str)
    second = world.runner().start(world.job(6, chunk_policy=ChunkPolicy(max_requests=3)), run_id="joined")
    assert second.summary().total_items == 3
    with pytest.raises(TimeoutError):
        world.runner().get_run("joined").wait(timeout=5)
    first.storage.release(held)
    assert len(second.wait().results()) == 6


def test_a_lease_of_a_dead_owner_expires(world: World) -> None:
    first = world.runner()
    first.start(world.job(3), run_id="expired")
    first.storage.acquire("run:expired", "somebody/else", 60.0)
    world.sandbox.finish()
    world.clock.advance(61)
    assert len(world.runner().get_run("expired").wait().results()) == 3


def test_a_small_run_gets_its_turn_beside_a_large_one(world: World) -> None:
    runner = world.runner()
    config = limited(120)
    policy = ChunkPolicy(max_requests=1)
    large = runner.start(world.job(12, provider_config=config, chunk_policy=policy), run_id="large")
    small = runner.start(world.job(1, provider_config=config, chunk_policy=policy), run_id="small")
    assert small.summary().active_batches == 0
    rounds = 0
    while not small.is_finished:
        for run in (large, small):
            run.refresh()
        world.clock.advance(5)
        rounds += 1
        assert rounds < 100
    assert large.summary().completed_items < 12
    large.wait()
    assert runner.storage.scope(runner.storage.batches()[0].scope).reserved == 0


def test_a_dead_waiter_does_not_keep_the_others_waiting(world: World) -> None:
    runner = world.runner()
    config, policy = limited(120), ChunkPolicy(max_requests=1)
    large = runner.start(world.job(4, provider_config=config, chunk_policy=policy), run_id="large")
    runner.start(world.job(1, provider_config=config, chunk_policy=policy), run_id="abandoned")
    assert len(large.wait().results()) == 4


@pytest.mark.every_store
def test_a_host_that_only_polls_keeps_a_place_while_there_is_no_room_and_no_longer(world: World) -> None:
    """As Dagster's sensor does, which looks after runs that others drive."""
    runner = world.runner()
    config, policy = limited(40), ChunkPolicy(max_requests=1)
    first = runner.start(world.job(1, provider_config=config, chunk_policy=policy), run_id="first")
    runner.start(world.job(1, provider_config=config, chunk_policy=policy), run_id="abandoned")
    for _ in range(30):
        keep_places(runner.host)
        world.clock.advance(60)
    assert [run.run_id for run in runner.storage.waiting_runs()] == ["abandoned"]
    first.wait()
    second = runner.start(world.job(1, provider_config=config, chunk_policy=policy), run_id="second")
    assert second.summary().active_batches == 0
    for _ in range(15):
        runner.poll()
        second.refresh()
        world.clock.advance(60)
    assert second.is_finished
    assert runner.get_run("abandoned").wait().summary().completed_items == 1


@pytest.mark.every_store
def test_a_run_that_cannot_send_keeps_no_other_waiting(world: World) -> None:
    runner = world.runner()
    config, policy = limited(40), ChunkPolicy(max_requests=1)
    first = runner.start(world.job(1, provider_config=config, chunk_policy=policy), run_id="first")
    waiting = runner.start(world.job(1, provider_config=config, chunk_policy=policy), run_id="waiting")
    first.wait()
    waiting.pause()
    assert runner.start(world.job(1, provider_config=config), run_id="second").summary().active_batches == 1


@pytest.mark.every_store
@pytest.mark.parametrize("then", ["killed", "paused"])
def test_a_run_that_nobody_looks_after_gives_its_budget_back_when_its_batch_ends(world: World, then: str) -> None:
    config, policy = limited(40), ChunkPolicy(max_requests=1)
    left = world.runner().start(world.job(3, provider_config=config, chunk_policy=policy), run_id="left")
    assert left.summary().active_batches == 1
    if then == "paused":
        left.pause()
    other = world.runner().start(world.job(3, provider_config=config, chunk_policy=policy), run_id="other")
    assert other.summary().active_batches == 0
    assert len(other.wait(timeout=3600, poll_interval=60).results()) == 3
    if then == "paused":
        left.resume()
    assert len(left.wait().results()) == 3
    assert world.stats()["paid_lines"] == 6


@pytest.mark.every_store
@pytest.mark.parametrize("point", ["submit.claimed", "submit.intended", "submit.uploaded", "submit.created"])
def test_a_run_that_died_while_it_sent_keeps_its_budget_half_an_hour(world: World, point: str) -> None:
    config, policy = limited(40), ChunkPolicy(max_requests=1)
    dying = world.runner()
    CrashPoints({point: 1}).install(dying)
    with pytest.raises(CrashError):
        dying.start(world.job(1, provider_config=config, chunk_policy=policy), run_id="dead")
    runner = world.runner()
    other = runner.start(world.job(3, provider_config=config, chunk_policy=policy), run_id="other")
    began = world.clock.now()
    assert len(other.wait(timeout=7200, poll_interval=60).results()) == 3
    assert (world.clock.now() - began).total_seconds() >= SENDING_SEC

    dead = runner.get_run("dead")
    dead.refresh()
    (batch,) = runner.storage.batches(states={BatchState.SUBMITTED})
    assert runner.storage.scope(batch.scope).reserved == batch.tokens
    assert len(dead.wait().results()) == 1
    assert world.stats()["paid_lines"] == 4
    assert runner.storage.scope(batch.scope).reserved == 0


def looked_after(runner: BatchRunner, run_id: str, world: World, hours: float) -> None:
    """As Dagster's sensor does: polls, and lets go on what is due; until the run is over."""
    end = world.clock.now() + timedelta(hours=hours)
    while not runner.get_run(run_id).is_finished:
        assert world.clock.now() < end, runner.budget_of(run_id)
        runner.poll()
        if runner.info(run_id).due:
            runner.get_run(run_id).refresh()
        world.clock.advance(300)


@pytest.mark.every_store
@pytest.mark.parametrize("away_hours", [0, 2])
def test_a_host_that_only_polls_sees_the_batch_of_a_paused_run_end_that_another_run_waits_for(
    world: World, away_hours: int
) -> None:
    config, policy = limited(40), ChunkPolicy(max_requests=1)
    left = world.runner().start(world.job(1, provider_config=config, chunk_policy=policy), run_id="left")
    left.pause()
    runner = world.runner()
    before = world.stats()["calls_total"]
    runner.poll()
    assert world.stats()["calls_total"] == before, "nobody waits, and a paused run is left alone"
    runner.start(world.job(1, provider_config=config, chunk_policy=policy), run_id="other")
    world.clock.advance(away_hours * 3600.0)
    looked_after(runner, "other", world, hours=2)
    assert left.summary().completed_items == 0
    left.resume()
    assert len(left.wait().results()) == 1
    assert world.stats()["paid_lines"] == 2


@pytest.mark.every_store
@pytest.mark.parametrize("paused", [True, False])
def test_a_host_that_only_polls_has_room_where_a_run_died_while_it_sent_once_its_budget_has_run_out(
    world: World, paused: bool
) -> None:
    config, policy = limited(40), ChunkPolicy(max_requests=1)
    dying = world.runner()
    CrashPoints({"submit.claimed": 1}).install(dying)
    with pytest.raises(CrashError):
        dying.start(world.job(1, provider_config=config, chunk_policy=policy), run_id="dead")
    runner = world.runner()
    if paused:
        runner.get_run("dead").pause()
    runner.start(world.job(1, provider_config=config, chunk_policy=policy), run_id="other")
    full = runner.budget_of("other")
    world.clock.advance(SENDING_SEC + 61)
    assert (full.reserved > 0, runner.budget_of("other").headroom) == (True, 40)
    looked_after(runner, "other", world, hours=1)
    if paused:
        runner.get_run("dead").resume()
    assert len(runner.get_run("dead").wait().results()) == 1
    assert world.stats()["paid_lines"] == 2


def test_a_limit_the_provider_names_is_learned_and_splits_what_follows(world: World) -> None:
    world.fault("token_limit_exceeded", limit=200)
    run = world.runner().run_and_wait(world.job(12))
    assert len(run.batches()) > 2
    assert [result.attempt_count for result in run.results()] == [1] * 12


def test_a_row_above_a_learned_limit_fails_alone(world: World) -> None:
    world.fault("token_limit_exceeded", limit=300)
    items = [BatchItem(f"row-{n}", {"n": "x" * (3000 if n == 2 else 1)}) for n in range(5)]
    run = world.runner().run_and_wait(world.job(items))
    failed = {result.item_id: result.error.error_class for result in run.results() if result.error}
    assert failed == {"row-2": "openai_request_exceeds_inflight_token_limit"}


def test_a_row_that_failed_unsent_is_not_sent_with_the_rest_of_its_part(world: World) -> None:
    world.fault("token_limit_exceeded", limit=300)
    items = [BatchItem(f"row-{n}", {"n": "x" * (4000 if n == 4 else 40)}) for n in range(6)]
    job = world.job(items, provider_config=limited(1150), chunk_policy=ChunkPolicy(max_requests=3))
    run = world.runner().run_and_wait(job)
    assert [result.item_id for result in run.results() if result.error] == ["row-4"]
    assert world.stats()["paid_lines"] == 5


def mixed(rows: int = 6) -> list[BatchItem[Any]]:
    return [BatchItem(f"row-{n}", {"n": "y" * (2000 if n % 2 else 40)}) for n in range(rows)]


def test_a_limit_that_another_run_learned_fails_no_row(world: World) -> None:
    world.fault("token_limit_exceeded", limit=300)
    runner = world.runner()
    runner.run_and_wait(world.job(1))
    run = runner.run_and_wait(world.job(mixed()))
    assert {result.status for result in run.results()} == {ItemStatus.COMPLETED}
    learned = runner.storage.scope(runner.storage.batches()[0].scope).learned_limit
    assert learned is not None
    assert learned > 500


def test_a_limit_that_was_lowered_long_ago_asks_the_provider_again(world: World) -> None:
    runner = world.runner()
    world.fault("token_limit_exceeded", limit=300)
    run = runner.start(world.job(mixed()), run_id="old")
    while run.batches()[0].remote_status != "failed":
        runner.poll()
    run.collect()
    run.pause()
    world.clock.advance(25 * 3600.0)
    run.resume()
    assert {result.status for result in run.wait().results()} == {ItemStatus.COMPLETED}


def test_a_refusal_without_a_number_sets_no_limit_and_fails_nothing(world: World) -> None:
    world.fault("token_limit_exceeded", message="Too many enqueued tokens for this model; try again later.")
    runner = world.runner()
    runner.run_and_wait(world.job([BatchItem("small", {"n": 1})]))
    (scope,) = runner.storage.scopes()
    assert (scope.learned_limit, scope.scale) == (None, 0.625)
    run = runner.run_and_wait(world.job(mixed(30)))
    assert {result.status for result in run.results()} == {ItemStatus.COMPLETED}
    assert [batch.items for batch in run.batches()] == [18, 9, 2, 1]
    assert runner.storage.scopes()[0].scale == 1.0


def test_batches_refused_together_are_one_reason_for_caution(world: World) -> None:
    world.fault("token_limit_exceeded", message="Too many enqueued tokens.", times=6)
    runner = world.runner()
    run = runner.start(world.job(6, chunk_policy=ChunkPolicy(max_requests=1)), run_id="flood")
    while any(batch.remote_status != "failed" for batch in run.batches()):
        runner.poll()
    run.collect()
    assert runner.storage.scopes()[0].scale == 0.5
    assert {result.status for result in run.wait().results()} == {ItemStatus.COMPLETED}


def test_what_two_workers_learn_at_once_is_both_kept(world: World, tmp_path: Path) -> None:
    class Shared(SQLiteStorage):
        """A store in which another worker learns a limit when this one has just read what is known."""

        others: tuple[int, ...] = ()

        def scope(self, name: str) -> ScopeRecord:
            known, (others, self.others) = super().scope(name), (self.others, ())
            for limit in others:
                self.learn(replace(known, learned_limit=limit))
            return known

    store = Shared(path=tmp_path / "shared.sqlite3", now=world.clock.now)
    world.fault("token_limit_exceeded", message="Too many enqueued tokens.")
    runner = world.runner(storage=store)
    run = runner.start(world.job(1), run_id="both")
    while run.batches()[0].remote_status != "failed":
        runner.poll()
    store.others = (500,)
    run.collect()
    (known,) = store.scopes()
    assert (known.learned_limit, known.scale) == (500, 0.5)


class TestAtALimitThatIsReal:
    @pytest.fixture
    def sandbox_config(self) -> SandboxConfig:
        return SandboxConfig(clock="polls", enqueued_token_limits={"*": 300})

    def test_a_row_above_it_asks_once_and_fails_by_the_providers_word(self, world: World) -> None:
        runner = world.runner()
        runner.storage.learn(replace(runner.storage.scope(self.scope(runner, world)), learned_limit=300))
        run = runner.run_and_wait(world.job(mixed(8)))
        failed = {result.item_id: result.error for result in run.results() if result.error}
        assert sorted(failed) == ["row-1", "row-3", "row-5", "row-7"]
        assert {error.error_class for error in failed.values()} == {"openai_request_exceeds_inflight_token_limit"}
        assert all("Limit: 300 enqueued tokens" in error.message for error in failed.values())
        assert sum(batch.tokens > 300 for batch in run.batches()) == 1

    def scope(self, runner: BatchRunner, world: World) -> str:
        run = runner.run_and_wait(world.job(1))
        return runner.budget_of(run.run_id).scope


class TestAgainstAProviderThatCountsOtherwise:
    @pytest.fixture
    def sandbox_config(self) -> SandboxConfig:
        return SandboxConfig(clock="polls", chars_per_token=0.05, enqueued_token_limits={"*": 1000})

    def test_counts_that_are_far_too_low_end_in_batches_that_fit(self, world: World) -> None:
        run = world.runner().run_and_wait(world.job(12))
        assert {result.status for result in run.results()} == {ItemStatus.COMPLETED}
        assert {result.attempt_count for result in run.results()} == {1}
        assert 2 < len(run.batches()) < 30


def test_a_late_twin_of_a_batch_is_cancelled_by_the_next_listing(world: World) -> None:
    runner = world.runner()
    run = runner.start(world.job(3), run_id="twins")
    mine = runner.storage.batches()[0]
    provider = runner.host.provider_of(runner.storage.run("twins"))
    twin = provider.create_batch(
        input_file_id=str(mine.input_file_id), metadata={"run_id": "twins", INTENT_KEY: mine.intent_id}
    )
    run.wait()
    status = {batch["id"]: batch["status"] for batch in world.sandbox.batches()}
    assert status[mine.provider_batch_id] == "completed"
    assert status[twin["id"]] in {"cancelling", "cancelled"}
    assert len(world.happened("twin_batch_cancelled")) >= 1


@pytest.mark.parametrize("sandbox_config", [SandboxConfig(clock="manual")])
@pytest.mark.parametrize("batches", [1, 12])
def test_a_refresh_that_finds_nothing_new_reads_four_times_and_writes_nothing(world: World, batches: int) -> None:
    run = world.runner().start(world.job(batches, chunk_policy=ChunkPolicy(max_requests=1)), run_id="waits")
    run.refresh()
    assert statements(run.refresh) == ["SELECT"] * 4
    assert statements(run.summary) == ["SELECT"]
    assert run.summary().active_batches == batches


def statements(act: Callable[[], object]) -> list[str]:
    """The first word of each statement of an action, over any engine; not of those that begin a transaction."""
    said: list[str] = []

    def hear(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        said.extend(word for word in statement.split()[:1] if word != "BEGIN")

    event.listen(Engine, "before_cursor_execute", hear)
    try:
        act()
    finally:
        event.remove(Engine, "before_cursor_execute", hear)
    return said


def test_one_poll_of_many_batches_is_one_page_and_one_look(world: World) -> None:
    runner = world.runner()
    runner.start(world.job(30, chunk_policy=ChunkPolicy(max_requests=1)), run_id="many")
    report = runner.poll()
    assert (report.calls, report.seen) == (2, 30)


def test_due_names_what_a_host_should_start(world: World) -> None:
    runner = world.runner()
    run = runner.start(world.job(3), run_id="due", labels={"asset": "a"})
    info = runner.find_runs({"asset": "a"})[0]
    assert (info.due, info.is_finished) == (frozenset(), False)
    world.sandbox.finish()
    runner.poll()
    ended = runner.find_runs({"asset": "a"})[0]
    assert ended.due == {"collect"}
    assert ended.revision > info.revision
    run.collect()
    assert runner.find_runs({"asset": "a"})[0].is_finished
    assert runner.find_runs({"asset": "b"}) == []


def test_what_fails_is_due_again_only_after_its_delay(world: World) -> None:
    world.fault("status_zero", lines=(1,))
    runner = world.runner()
    run = runner.start(world.job(3), run_id="delayed")
    world.sandbox.finish()
    run.collect()
    assert runner.find_runs()[0].due == frozenset()
    world.clock.advance(2)
    assert runner.find_runs()[0].due == {"advance"}
    run.advance()
    assert runner.find_runs()[0].due == frozenset()


def test_a_list_that_lags_behind_for_ever_does_not_keep_a_run_waiting(world: World) -> None:
    class Lagging(OpenAIBatchProvider):
        def list_batches(self, *, after: str | None = None, limit: int = 100) -> RemoteBatchPage:
            page = super().list_batches(after=after, limit=limit)
            return page._replace(records=[{**record, "status": "validating"} for record in page.records])

    runner = world.runner(provider_factory=Lagging)
    run = runner.run_and_wait(world.job(6, chunk_policy=ChunkPolicy(max_requests=2)))
    assert len(run.results()) == 6
