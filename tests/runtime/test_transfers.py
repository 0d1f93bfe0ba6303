"""Several uploads and downloads at once: they overlap, and nothing else changes."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from batchor_engine import (
    BatchItem,
    BatchJob,
    BatchRunner,
    ChunkPolicy,
    MemoryStateStore,
    OpenAIProviderConfig,
    RetryPolicy,
    RunControlState,
)
from batchor_engine.core.polling import PAGE_SIZE
from batchor_engine.providers.openai import OpenAIBatchProvider
from batchor_engine.runtime.hold import held
from batchor_engine.states import BatchState
from batchor_engine.testing import ManualClock, check_invariants

from ..properties.cloud import Client, Cloud, StatusError, Trouble

# A meeting that does not come about fails its test instead of holding it up for ever.
PATIENCE_SEC = 30.0


class PickyCloud(Cloud):
    """A provider that is out of order for the files that hold some bytes."""

    refuses = b""

    def upload(self, name: str, content: bytes) -> SimpleNamespace:
        if self.refuses and self.refuses in content:
            raise StatusError(503)
        return super().upload(name, content)


class Scene:
    """A provider in this process, a store in memory, and a word at every call."""

    def __init__(self, **options: Any) -> None:
        self.clock = ManualClock()
        self.cloud = PickyCloud(lambda: self.clock.now().timestamp())
        self.at_call: Callable[[str], None] = lambda _where: None
        self.runner = BatchRunner(
            storage=MemoryStateStore(now=self.clock.now),
            provider_factory=lambda config: OpenAIBatchProvider(config, client=Client(self.cloud, self._tell)),
            sleep=self.clock.sleep,
            **options,
        )

    def _tell(self, where: str) -> None:
        self.at_call(where)

    def job(self, batches: int, source: Iterator[BatchItem[int]] | None = None) -> BatchJob[Any, Any]:
        return BatchJob(
            items=source or [BatchItem(f"row-{n}", n) for n in range(batches)],
            build_prompt=lambda item: f"Say {item.payload}",
            provider_config=OpenAIProviderConfig(model="gpt-5-mini"),
            chunk_policy=ChunkPolicy(max_requests=1),
            retry_policy=RetryPolicy(base_backoff_sec=1.0, max_backoff_sec=1.0),
        )

    def created(self) -> list[str]:
        """Rows in the order in which their batches were created."""
        return [line.item_id for batch in self.cloud.batches for line in batch.lines]

    def states(self) -> list[BatchState]:
        return [batch.state for batch in self.runner.storage.batches()]

    def end(self, run_id: str = "run") -> None:
        for _ in range(5):
            self.cloud.work()
        self.clock.advance(5.0)
        run = self.runner.get_run(run_id).wait()
        assert len(run.results()) == run.summary().total_items == len(self.cloud.paid())
        assert check_invariants(self.runner) == []


def meeting(where: str, count: int) -> Callable[[str], None]:
    """Lets no call of this name go on before so many are under way."""
    barrier = threading.Barrier(count)

    def wait(place: str) -> None:
        if place == where:
            barrier.wait(PATIENCE_SEC)

    return wait


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.runner.close()


def test_four_uploads_are_under_way_at_once_and_batches_are_created_in_order(scene: Scene) -> None:
    scene.at_call = meeting("before upload", 4)
    scene.runner.start(scene.job(8), run_id="run")
    assert scene.created() == [f"row-{n}" for n in range(8)]
    scene.end()


def test_uploads_go_on_while_the_source_is_read(scene: Scene) -> None:
    uploading, read_on = threading.Event(), threading.Event()

    def at_call(where: str) -> None:
        if where == "before upload" and not uploading.is_set():
            uploading.set()
            assert read_on.wait(PATIENCE_SEC)

    def source() -> Iterator[BatchItem[int]]:
        yield from (BatchItem(f"row-{n}", n) for n in range(3))
        assert uploading.wait(PATIENCE_SEC)
        read_on.set()
        yield BatchItem("row-3", 3)

    scene.at_call = at_call
    scene.runner.start(scene.job(4, source()), run_id="run")
    assert scene.created() == [f"row-{n}" for n in range(4)]
    scene.end()


def test_four_downloads_are_under_way_at_once(scene: Scene) -> None:
    run = scene.runner.start(scene.job(8), run_id="run")
    for _ in range(4):
        scene.cloud.work()
    scene.at_call = meeting("before content", 4)
    run.refresh()
    assert run.is_finished
    scene.end()


def test_with_one_transfer_everything_happens_in_the_callers_thread() -> None:
    scene = Scene(max_transfers=1)
    seen: set[str] = set()
    scene.at_call = lambda _where: seen.add(threading.current_thread().name)
    scene.runner.start(scene.job(3), run_id="run")
    scene.end()
    assert seen == {threading.current_thread().name}
    scene.runner.close()


def test_fewer_than_one_transfer_is_refused() -> None:
    with pytest.raises(ValueError, match="max_transfers"):
        Scene(max_transfers=0)


def test_an_upload_that_fails_holds_back_those_behind_it_and_loses_none_of_their_work(scene: Scene) -> None:
    scene.cloud.refuses = b'"row-1:'
    scene.at_call = meeting("before upload", 4)
    run = scene.runner.start(scene.job(4), run_id="run")
    assert scene.created() == ["row-0"]
    assert scene.states().count(BatchState.UPLOADED) == 2
    scene.cloud.refuses = b""
    uploads = scene.cloud.calls["files.create"]
    scene.at_call = lambda _where: None
    scene.clock.advance(5.0)
    run.refresh()
    assert sorted(scene.created()) == [f"row-{n}" for n in range(4)]
    assert scene.cloud.calls["files.create"] - uploads == 1
    scene.end()


def test_a_pause_during_uploads_creates_nothing_more_and_a_resume_sends_what_is_there(scene: Scene) -> None:
    together = meeting("before upload", 4)

    def at_call(where: str) -> None:
        together(where)
        if where == "after create":
            scene.runner.pause_run("run")

    scene.at_call = at_call
    run = scene.runner.start(scene.job(4), run_id="run")
    assert scene.states() == [BatchState.SUBMITTED, *[BatchState.UPLOADED] * 3]
    scene.at_call = lambda _where: None
    run.resume()
    run.refresh()
    assert scene.created() == [f"row-{n}" for n in range(4)]
    assert scene.cloud.calls["files.create"] == 4
    scene.end()


def test_a_cancel_during_uploads_takes_their_files_back(scene: Scene) -> None:
    together = meeting("before upload", 4)

    def at_call(where: str) -> None:
        together(where)
        if where == "before create" and threading.current_thread() is threading.main_thread():
            scene.runner.storage.set_control("run", RunControlState.CANCEL_REQUESTED, reason="manual")

    scene.at_call = at_call
    run = scene.runner.start(scene.job(4), run_id="run")
    scene.at_call = lambda _where: None
    for _ in range(4):
        run.refresh()
        scene.cloud.work()
    assert run.is_finished
    assert len(scene.created()) == 1
    assert scene.cloud.calls["files.create"] == 4
    assert [name for name in scene.cloud.files if name.startswith("file-in")] == []
    assert check_invariants(scene.runner) == []


def test_a_failed_download_leaves_the_others_collected(scene: Scene) -> None:
    run = scene.runner.start(scene.job(6), run_id="run")
    for _ in range(4):
        scene.cloud.work()
    scene.cloud.troubles.append(Trouble("files.content", 503))
    run.refresh()
    assert run.summary().completed_items == 5
    scene.end()


def test_a_batch_that_another_worker_collects_is_left_to_it(scene: Scene) -> None:
    run = scene.runner.start(scene.job(3), run_id="run")
    for _ in range(4):
        scene.cloud.work()
    scene.runner.poll()
    (first, *_) = scene.runner.storage.batches()
    with held(scene.runner.storage, f"batch:{first.pk}") as lease:
        assert lease is not None
        run.refresh()
        assert run.summary().completed_items == 2
    run.refresh()
    assert run.is_finished
    scene.end()


def test_active_batches_are_polled_a_page_at_a_time_and_one_by_its_id() -> None:
    scene = Scene(max_transfers=1)
    scene.runner.start(scene.job(250), run_id="run")
    report = scene.runner.poll()
    assert (report.seen, report.complete) == (250, True)
    assert report.calls == math.ceil(250 / PAGE_SIZE) + 1
    scene.runner.close()
