"""Two starts of one new run id at once: one creates the run, the other joins it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from batchor_engine import DataFrameItemSource, SourceIdentity
from batchor_engine.errors import RunBusyError
from batchor_engine.runtime.hold import held, run_lease
from tests.runtime.conftest import World

ROWS = [{"id": f"row-{n}"} for n in range(3)]


class SlowFingerprint(DataFrameItemSource):
    """A source whose content takes until `may_end` to read, as a large file's does."""

    def __init__(self) -> None:
        super().__init__(ROWS, item_id="id")
        self.begun, self.may_end = threading.Event(), threading.Event()

    def source_identity(self) -> SourceIdentity:
        self.begun.set()
        assert self.may_end.wait(30)
        return super().source_identity()


def test_a_start_that_meets_the_creation_of_its_run_joins_it(world: World) -> None:
    slow = SlowFingerprint()
    with ThreadPoolExecutor(1) as beside:
        first = beside.submit(world.runner().start, world.job(slow), run_id="one")
        assert slow.begun.wait(30)

        def until_it_is_created(_seconds: float) -> None:
            slow.may_end.set()
            first.result(30)

        run = world.runner(sleep=until_it_is_created).start(
            world.job(DataFrameItemSource(ROWS, item_id="id")), run_id="one"
        )
    assert first.result().run_id == run.run_id
    assert world.runner().get_run("one").wait().summary().completed_items == 3
    assert len(world.sandbox.paid()) == 3


def test_a_start_that_meets_a_creation_without_end_says_so(world: World) -> None:
    runner = world.runner()
    began = world.clock.now()
    with held(runner.storage, run_lease("one")), pytest.raises(RunBusyError, match="'one' is just being created"):
        runner.start(world.job(), run_id="one")
    assert 0 < (world.clock.now() - began).total_seconds() < 10
    with held(runner.storage, run_lease("one")), pytest.raises(RunBusyError):
        runner.start(world.job(), run_id="one", deadline=0.0)
    assert runner.start(world.job(), run_id="one").wait().is_finished
