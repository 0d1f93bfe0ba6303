"""Death, and a stall past the lease, at each effect of one eventful run: no boundary is left out.

The run has several batches, a retry, an early end and a lost answer. The default profile takes the first passing
of each kind of effect, the long one takes all. What must hold is World.final_problems().
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ..crash.points import POINTS
from ..stores import STORES
from .cloud import Cloud, Fate, Trouble
from .profile import LONG
from .world import LEASE_SEC, World, bury, make_job


@contextmanager
def eventful(kind: str = STORES[0]) -> Iterator[World]:
    """A run whose batches expire, lose lines and fail rows, and one lost answer to a create."""
    world = World(kind=kind)
    try:
        world.jobs["run"] = make_job(5, batch_rows=3)
        world.cloud.fates += [
            Fate(end="expired", at=2, lines={0: "error_500", 1: "odd_breaks"}),
            Fate(lines={0: "missing", 1: "garbage"}),
        ]
        world.cloud.troubles.append(Trouble("batches.create", "lost"))
        yield world
    finally:
        world.close()


def live(world: World, at: int = 0, rounds: int = 14) -> None:
    for _ in range(rounds):
        for run_id in world.open_runs():
            if run_id not in world.workers[at].started:
                world.act(at, "start", run_id)
            world.act(at, "refresh", run_id)
        world.cloud.work()
        world.clock.advance(3.0)


def chosen_effects(kind: str) -> list[int]:
    """Numbers of the effects at which something is to happen, from 1; in short, a third of them on a further store."""
    with eventful() as world:
        live(world)
        assert not world.open_runs()
        places = world.workers[0].mortality.places
    assert set(places) >= set(POINTS)
    chosen = [at for at, place in enumerate(places, 1) if LONG or place not in places[: at - 1]]
    return chosen if LONG or kind == STORES[0] else chosen[::3]


def test_the_eventful_run_ends_well_when_nobody_dies() -> None:
    with eventful() as world:
        live(world)
        world.heal()
        assert world.final_problems() == []
        assert {line.kind for line in world.cloud.lines} == {"ok", "error_500", "missing", "odd_breaks", "garbage", ""}


@pytest.mark.every_store
def test_death_at_any_effect_loses_no_row_and_pays_no_row_twice(store_kind: str) -> None:
    for effect in chosen_effects(store_kind):
        with eventful(store_kind) as world:
            world.workers[0].die_in(effect)
            live(world)
            assert world.deaths
            # Every other time the owner is found dead at once, else its lease must run out.
            if effect % 2:
                bury(world.workers[1].storage)
            else:
                world.clock.advance(LEASE_SEC + 1)
            world.heal()
            assert world.final_problems() == [], f"after a death at effect {effect}, {dict(world.deaths)}"


@pytest.mark.every_store
def test_a_stall_past_the_lease_at_any_effect_changes_nothing_after_the_take_over(store_kind: str) -> None:
    for effect in chosen_effects(store_kind):
        with eventful(store_kind) as world:
            world.stall_in(0, effect)
            live(world)
            assert world.stalls
            world.heal()
            assert world.final_problems() == [], f"after a stall at effect {effect}, {dict(world.stalls)}"


@pytest.mark.parametrize("after_sec", [1.0, 50.0, 100.0])
def test_a_create_that_arrives_late_is_adopted_and_not_repeated(after_sec: float) -> None:
    """As late as the call's own timeout and the margin allow; the world's margin is 120 seconds."""
    with eventful() as world:
        world.cloud.troubles[:] = [Trouble("batches.create", "late", after_sec=after_sec)]
        world.act(0, "start", "run")
        while world.cloud.under_way or not world.cloud.batches:
            world.clock.advance(5.0)
            world.act(0, "refresh", "run")
        world.heal()
        assert world.final_problems() == []
        intents = [batch.metadata["batchor_intent"] for batch in world.cloud.batches]
        assert len(intents) == len(set(intents))


def test_the_cloud_itself_bills_every_line_once() -> None:
    """The fake is strict: it refuses an id twice in a file, and counts what it answers."""
    cloud = Cloud(lambda: 0.0)
    line = b'{"custom_id":"a:a1"}\n'
    file_id = cloud.upload("batchor_x.jsonl", line).id
    cloud.create(file_id, {"batchor_intent": "x", "run_id": "r"})
    for _ in range(4):
        cloud.work()
    assert [one.kind for one in cloud.paid()] == ["ok"]
    twice = cloud.upload("batchor_y.jsonl", line + line).id
    with pytest.raises(AssertionError, match="custom id twice"):
        cloud.create(twice, {"batchor_intent": "y", "run_id": "r"})
