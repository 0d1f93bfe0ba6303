"""One list of stories, told twice: by the cloud of this folder and by the real sandbox behind a socket.

In each a worker dies in the middle. What must come of it is the same on both sides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from batchor_engine.sandbox import Fault, SandboxServer
from batchor_engine.testing import check_invariants

from .cloud import Fate, Trouble
from .profile import LONG
from .world import World, bury, make_job

ROWS = 6
DEATHS = (5, 17, 29, 41, 53) if LONG else (17, 41)


@dataclass(frozen=True)
class Story:
    """What goes wrong, in the words of the cloud and of the sandbox, and how often each row may be tried."""

    name: str
    fates: tuple[Fate, ...] = ()
    troubles: tuple[Trouble, ...] = ()
    faults: tuple[Fault, ...] = ()


STORIES = (
    Story("nothing goes wrong"),
    Story(
        "the answer to create is lost",
        troubles=(Trouble("batches.create", "lost"),),
        faults=(Fault("lost_answer"),),
    ),
    Story(
        "create is refused for now",
        troubles=(Trouble("batches.create", 429),),
        faults=(Fault("http_error", on="batches.create", status=429),),
    ),
    Story(
        "create may have happened and has not",
        troubles=(Trouble("batches.create", 500),),
        faults=(Fault("http_error", on="batches.create", status=500),),
    ),
    Story(
        "the upload's answer is lost",
        troubles=(Trouble("files.create", "lost"),),
        faults=(Fault("lost_answer", on="files.create"),),
    ),
    Story("a batch expires after two", fates=(Fate(end="expired", at=2),), faults=(Fault("expire", at=2),)),
    Story("a batch is cancelled after one", fates=(Fate(end="cancelled", at=1),), faults=(Fault("cancel", at=1),)),
    Story("a line is missing", fates=(Fate(lines={1: "missing"}),), faults=(Fault("missing_line", lines=(2,)),)),
    Story("a line is garbage", fates=(Fate(lines={1: "garbage"}),), faults=(Fault("garbage_line", lines=(2,)),)),
    Story("a line comes twice", fates=(Fate(lines={0: "duplicate"}),), faults=(Fault("duplicate_line", lines=(1,)),)),
    Story("an answer is empty", fates=(Fate(lines={0: "empty"}),), faults=(Fault("empty_answer", lines=(1,)),)),
    Story(
        "a download fails",
        troubles=(Trouble("files.content", 500),),
        faults=(Fault("http_error", on="files.content", status=500),),
    ),
    Story(
        "too many tokens are enqueued",
        fates=(Fate(end="failed", code="token_limit_exceeded"),),
        faults=(Fault("token_limit_exceeded"),),
    ),
)
NAMES = [story.name.replace(" ", "-") for story in STORIES]


@contextmanager
def told(world: World) -> Iterator[World]:
    try:
        world.jobs["run"] = make_job(ROWS, batch_rows=3)
        yield world
    finally:
        world.close()


def live_and_die(world: World, effect: int) -> None:
    """A life of the first worker that ends early, then one of the second that does not."""
    world.workers[0].die_in(effect)
    for at in (0, 1):
        for _ in range(25):
            for run_id in world.open_runs():
                if run_id not in world.workers[at].started:
                    world.act(at, "start", run_id)
                world.act(at, "refresh", run_id)
            world.cloud.work()
            world.clock.advance(20.0)
            if at == 0 and world.deaths:
                break
        bury(world.workers[1].storage)


@pytest.mark.parametrize("effect", DEATHS)
@pytest.mark.parametrize("story", STORIES, ids=NAMES)
def test_a_story_with_a_death_ends_well_on_the_cloud(story: Story, effect: int, store_kind: str) -> None:
    with told(World(kind=store_kind)) as world:
        world.cloud.fates += story.fates
        world.cloud.troubles += story.troubles
        live_and_die(world, effect)
        assert world.open_runs() == []
        world.heal()
        assert world.final_problems() == []


@pytest.mark.slow
@pytest.mark.parametrize("effect", DEATHS if LONG else DEATHS[:1])
@pytest.mark.parametrize("story", STORIES, ids=NAMES)
def test_a_story_with_a_death_ends_well_on_the_sandbox(story: Story, effect: int, store_kind: str) -> None:
    sandbox_of_story = SandboxServer(clock="polls", faults=story.faults)
    with sandbox_of_story as sandbox, told(World(sandbox.base_url, kind=store_kind)) as world:
        live_and_die(world, effect)
        assert world.open_runs() == []
        runner = world.workers[1].runner
        assert check_invariants(runner) == []
        results = runner.get_run("run").results()
        assert [one.item_id for one in results] == [f"row-{n}" for n in range(ROWS)]
        assert all(one.error is None for one in results)
        kept = [line for line in sandbox.paid() if line["dropped"] is None]
        ledger = world.ledger("run")
        assert {(line["batch_id"], line["custom_id"]) for line in kept} <= ledger
        assert max(Counter(line["custom_id"] for line in kept).values()) == 1
