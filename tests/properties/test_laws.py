"""Single laws, each in the smallest story that breaks without it. They kill mutants, so each must be quick."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from batchor_engine import BatchItem, OpenAIConnection, StateStore
from batchor_engine.core.records import Observation
from batchor_engine.providers.lines import read_line
from batchor_engine.sandbox import Fault, SandboxServer
from batchor_engine.states import BATCH_HOLDS_BUDGET, BatchState
from batchor_engine.testing import CrashError, check_invariants

from .cloud import Fate, Trouble
from .mortal import bury
from .world import World, make_job

pytestmark = pytest.mark.every_store


@pytest.fixture
def world(store_kind: str) -> Iterator[World]:
    made = World(kind=store_kind)
    yield made
    made.close()


def live(world: World, rounds: int = 40, *, at: int = 0) -> None:
    for _ in range(rounds):
        for run_id in world.open_runs():
            if run_id not in world.workers[at].started:
                world.act(at, "start", run_id)
            world.act(at, "refresh", run_id)
        world.cloud.work()
        world.clock.advance(5.0)


def begun(world: World, rows: int = 3, **options: Any) -> None:
    world.jobs["run"] = make_job(rows, **{"batch_rows": 3, **options})
    world.act(0, "start", "run")


def test_a_create_is_sent_once_whatever_it_comes_to(tmp_path: Any) -> None:
    with SandboxServer(clock="polls", faults=[Fault("http_error", on="batches.create", status=503)]) as sandbox:
        world = World()
        world.workers[0].runner.host.make_provider = _real_provider()
        world.workers[0].runner.host.connection = OpenAIConnection(api_key="sk-test", base_url=sandbox.base_url)
        begun(world)
        assert sandbox.stats()["calls"]["batches.create"] == 1
        world.close()


def _real_provider() -> Any:
    from batchor_engine.providers.registry import build_default_provider_registry

    return build_default_provider_registry().create


def test_a_busy_run_is_left_alone(world: World) -> None:
    world.jobs["run"] = make_job(6, batch_rows=3)
    seen: list[dict[str, int]] = []

    def look_in(name: str) -> None:
        if name == "submit.claimed":
            before = dict(world.cloud.calls)
            other = world.workers[1].runner.start(world.jobs["run"], run_id="run")
            other.advance()
            assert dict(world.cloud.calls) == before
            seen.append(before)

    world.workers[0].runner.host.reached = look_in
    world.act(0, "start", "run")
    assert len(seen) == len(world.cloud.batches) == 2


def test_a_fence_grows_with_every_owner(world: World) -> None:
    store = world.workers[0].storage
    fences = []
    for owner in ("a", "b", "c"):
        lease = store.acquire("thing", owner, 60.0)
        assert not isinstance(lease, str)
        fences.append(lease.fence)
        store.release(lease)
    assert fences == sorted(set(fences))


def test_a_provably_dead_owner_is_followed_at_once(world: World) -> None:
    world.jobs["run"] = make_job(3, batch_rows=3)
    worker = world.workers[0]
    worker.runner.host.reached = lambda name: worker.die(name) if name == "submit.intended" else None
    with pytest.raises(CrashError):
        worker.runner.start(world.jobs["run"], run_id="run")
    assert bury(world.workers[1].storage) == 1
    world.act(1, "start", "run")
    assert len(world.cloud.batches) == 1


def test_a_late_observation_does_not_reopen_a_collected_batch(world: World) -> None:
    begun(world)
    live(world)
    store = world.workers[0].storage
    (batch,) = store.batches()
    assert store.observe([Observation(batch.pk, "completed", ended=True)]) == []
    assert store.batches()[0].state is BatchState.COLLECTED
    assert check_invariants(world.workers[0].runner) == []


def test_a_batch_moves_once_from_where_it_was_seen(world: World) -> None:
    worker = world.workers[0]
    world.jobs["run"] = make_job(3, batch_rows=3)
    worker.die_in(1_000)
    worker.runner.host.reached = lambda name: worker.die(name) if name == "submit.claimed" else None
    with pytest.raises(CrashError):
        worker.runner.start(world.jobs["run"], run_id="run")
    bury(world.workers[1].storage)
    store = world.workers[1].storage
    (planned,) = store.batches()
    lease = store.acquire("run:run", "me", 60.0, dead_owner=_owner_of(store))
    assert not isinstance(lease, str)
    assert store.move_batch(planned, lease, BatchState.INTENDED)
    intended = replace(planned, state=BatchState.INTENDED)
    assert store.move_batch(intended, lease, BatchState.UPLOADED)
    # Whoever still believes that it is planned moves nothing.
    assert not store.move_batch(planned, lease, BatchState.INTENDED)
    assert store.batches()[0].state is BatchState.UPLOADED


def _owner_of(store: StateStore) -> str:
    owner = store.acquire("run:run", "me", 60.0)
    assert isinstance(owner, str)
    return owner


def test_every_paid_line_is_in_the_ledger(world: World) -> None:
    world.cloud.fates += [Fate(lines={0: "empty", 1: "duplicate", 2: "stranger"}), Fate(lines={0: "empty"})]
    begun(world)
    live(world)
    assert world.final_problems() == []
    assert len(world.ledger("run")) == 5


def test_a_row_without_an_answer_is_sent_as_often_as_the_policy_says(world: World) -> None:
    world.cloud.fates += [Fate(lines={0: "garbage"})] * 30
    begun(world, rows=1)
    live(world, 90)
    assert len(world.cloud.batches) == 3
    (result,) = world.workers[0].runner.get_run("run").results()
    assert result.error is not None
    assert (result.error.error_class, result.attempt_count) == ("batch_output_missing_row", 0)


def test_a_row_that_always_fails_is_tried_as_often_as_the_policy_says(world: World) -> None:
    world.cloud.fates += [Fate(lines={0: "error_500"})] * 30
    begun(world, rows=1)
    live(world, 30)
    assert len(world.cloud.batches) == 3
    (result,) = world.workers[0].runner.get_run("run").results()
    assert result.attempt_count == 3


def test_a_paused_run_is_not_polled(world: World) -> None:
    """One batch has ended and could be collected, one is still away; both are left alone."""
    begun(world, rows=6)
    world.cloud.batches[1].status = "dreaming"
    for _ in range(4):
        world.cloud._step(world.cloud.batches[0])
    runner = world.workers[0].runner
    runner.poll()
    assert [batch.state for batch in world.workers[0].storage.batches()] == [BatchState.ENDED, BatchState.SUBMITTED]
    runner.get_run("run").pause()
    before = dict(world.cloud.calls)
    runner.poll()
    runner.get_run("run").refresh()
    assert dict(world.cloud.calls) == before


@pytest.mark.parametrize("line", [b"\xff\xfe", b"{", b"[1]", b"null", b"", b'{"custom_id": 3}', b"\x00" * 9])
def test_bytes_that_are_no_text_cost_nothing(line: bytes) -> None:
    assert read_line(line).custom_id is None


class _Counted(list[Any]):
    """Rows that know how far they were read."""

    read = 0

    def __iter__(self) -> Iterator[Any]:
        for row in super().__iter__():
            self.read += 1
            yield row


def test_a_source_is_read_no_further_than_the_part_in_hand(world: World) -> None:
    rows = _Counted(BatchItem(f"row-{n}", n) for n in range(12))
    world.jobs["run"] = replace(make_job(1, batch_rows=2), items=rows)
    worker = world.workers[0]
    ahead: list[int] = []

    def look(name: str) -> None:
        if name == "ingest.part_stored":
            stored = worker.storage.run("run")
            assert stored is not None
            ahead.append(rows.read - stored.total_items)

    worker.runner.host.reached = look
    world.act(0, "start", "run")
    # The one row that did not fit any more is in hand.
    assert ahead == [1, 1, 1, 1, 1, 0]


def test_no_more_tokens_are_enqueued_than_the_budget_allows(world: World) -> None:
    for name in ("one", "two"):
        world.jobs[name] = make_job(8, batch_rows=2, budget=160)
    most = 0
    for _ in range(60):
        live(world, 1)
        held = [batch.tokens for batch in world.workers[0].storage.batches() if batch.state in BATCH_HOLDS_BUDGET]
        most = max(most, sum(held))
    assert 0 < most <= 160
    assert world.open_runs() == []
    assert world.final_problems() == []


def test_a_reservation_is_given_back_once(world: World) -> None:
    """An old reservation lapses while its batch still runs; when that ends, nothing is given back."""
    begun(world, budget=160)
    world.clock.advance(31 * 3600.0)
    world.jobs["next"] = make_job(3, batch_rows=3, budget=160)
    world.act(0, "start", "next")
    live(world)
    store = world.workers[0].storage
    assert store.scope(store.batches()[0].scope).reserved == 0


def test_a_poll_that_fails_changes_nothing(world: World) -> None:
    begun(world)
    before = world.workers[0].storage.batches()
    for call in ("batches.list", "batches.retrieve"):
        world.cloud.troubles += [Trouble(call, what) for what in ("before", 500, 429)]
    for _ in range(3):
        world.workers[0].runner.poll()
    assert world.workers[0].storage.batches() == before


def test_an_unknown_status_means_still_running(world: World) -> None:
    begun(world)
    world.cloud.batches[0].status = "dreaming"
    world.workers[0].runner.poll()
    (batch,) = world.workers[0].storage.batches()
    assert (batch.state, batch.remote_status) == (BatchState.SUBMITTED, "dreaming")


def test_no_key_is_in_any_file_of_a_run(world: World) -> None:
    job = make_job(3, batch_rows=3)
    world.jobs["run"] = replace(job, provider_config=replace(job.provider_config, api_key="sk-hush-hush-hush"))
    live(world, 6)
    world.workers[0].close()
    assert world.open_runs() == []
    files = [path for path in world.folder.rglob("*") if path.is_file()]
    assert len(files) > 3
    assert [path.name for path in files if b"hush-hush" in path.read_bytes()] == []
