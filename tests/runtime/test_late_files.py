"""Files whose rows were refused, or may have been: a late worker's are taken back, those of an unknown commit stay."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from batchor_engine import ItemStatus, LocalArtifactStore, StoreError

from .conftest import World


class StallingArtifacts(LocalArtifactStore):
    """A folder whose writer stalls right before its first results appear."""

    def __init__(self, root: Path, meanwhile: Callable[[], None]) -> None:
        super().__init__(root)
        self._meanwhile: Callable[[], None] | None = meanwhile

    @contextmanager
    def new_file(self, key: str) -> Generator[Path]:
        with super().new_file(key) as path:
            yield path
            if "/results/" in key and self._meanwhile is not None:
                meanwhile, self._meanwhile = self._meanwhile, None
                meanwhile()


def test_results_that_a_late_worker_wrote_after_the_end_of_the_run_are_taken_back(world: World) -> None:
    root = Path(world.artifacts_url)

    def another_ends_the_run() -> None:
        world.clock.advance(8 * 3600.0)
        assert world.runner().get_run("r").collect().completed_items == 3

    late = world.runner(artifacts_url=None, artifact_store=StallingArtifacts(root, another_ends_the_run))
    run = late.start(world.job(3), run_id="r").wait()
    assert {result.status for result in run.results()} == {ItemStatus.COMPLETED}
    assert len(list((root / "r" / "results").iterdir())) == 1


def test_a_part_whose_commit_got_no_answer_keeps_its_files(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = world.runner()
    append = runner.storage.append_part

    def unanswered(*args: Any, **named: Any) -> None:
        append(*args, **named)
        raise StoreError("the store was lost while it committed, and cannot say whether it did")

    monkeypatch.setattr(runner.storage, "append_part", unanswered)
    with pytest.raises(StoreError):
        runner.start(world.job(3), run_id="r")
    run = world.runner().start(world.job(3), run_id="r").wait()
    assert {result.status for result in run.results()} == {ItemStatus.COMPLETED}
