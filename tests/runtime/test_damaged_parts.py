"""Request files that were written by half, or changed since: nothing wrong is sent, and nothing paid twice."""

from __future__ import annotations

import errno
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest

from batchor_engine import BatchItem, LocalArtifactStore
from batchor_engine.errors import StoreError
from batchor_engine.testing import CrashError, CrashPoints

from .conftest import World
from .files import StoredFile

ROWS = [BatchItem(f"row-{n}", n, {"n": n}) for n in range(6)]


class _BadSector:
    """A file that writes all but the line of one row, once."""

    def __init__(self, file: BinaryIO, of: FailingStore) -> None:
        self._file, self._of = file, of

    def write(self, data: bytes) -> int:
        if self._of.fails and b"row-3" in data:
            self._of.fails = False
            self._file.write(data[: len(data) // 2])
            raise OSError(errno.EIO, "Input/output error")
        return self._file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class FailingStore(LocalArtifactStore):
    """A disk that fails once while the files that end so are written."""

    def __init__(self, root: Path, suffix: str) -> None:
        super().__init__(root)
        self._suffix, self.fails = suffix, True

    @contextmanager
    def open_write(self, key: str) -> Generator[BinaryIO]:
        with super().open_write(key) as file:
            yield cast("BinaryIO", _BadSector(file, self)) if key.endswith(self._suffix) else file


@pytest.mark.parametrize("suffix", [".jsonl", ".items"])
def test_a_row_that_was_written_by_half_is_in_no_part(world: World, tmp_path: Path, suffix: str) -> None:
    disk = FailingStore(tmp_path / "root", suffix)
    runner = world.runner(artifact_store=disk)
    with pytest.raises(OSError, match="Input/output error"):
        runner.start(world.job(ROWS), run_id="r")
    assert not disk.fails
    assert list(disk.list_keys("")) == []
    run = runner.start(world.job(ROWS), run_id="r").wait()
    assert run.summary().completed_items == 6
    assert (world.stats()["paid_lines"], world.stats()["paid_twice"]) == (6, [])


def stop_before_upload(world: World, *, slow: bool) -> list[StoredFile]:
    """A run whose one batch is about to be sent, from one request file or, of a slow source, from several."""

    def build(item: BatchItem[int]) -> str:
        world.clock.advance(20 if slow else 0)
        return f"Say {item.payload}"

    runner = world.runner()
    CrashPoints({"submit.intended": 1}).install(runner)
    with pytest.raises(CrashError):
        runner.start(world.job(ROWS, build_prompt=build), run_id="r")
    return world.files("*.jsonl")


@pytest.mark.every_store
def test_bytes_behind_the_last_row_of_a_file_are_not_sent(world: World) -> None:
    (file,) = stop_before_upload(world, slow=False)
    content = file.read_bytes()
    file.write_bytes(content + content.splitlines(keepends=True)[-1].replace(b"row-5", b"row-6"))
    assert world.runner().get_run("r").wait().summary().completed_items == 6
    assert (world.stats()["paid_lines"], world.stats()["paid_twice"]) == (6, [])


@pytest.mark.every_store
@pytest.mark.parametrize("slow", [False, True])
def test_a_file_that_was_cut_is_named_and_nothing_sent_until_it_is_restored(world: World, slow: bool) -> None:
    files = stop_before_upload(world, slow=slow)
    assert (len(files) > 1) == slow
    content = files[0].read_bytes()
    files[0].write_bytes(content[:-20])
    run = world.runner().get_run("r")
    with pytest.raises(StoreError, match=r"requests/.* is shorter than the [0-9,]+ bytes .* restore that file"):
        run.refresh()
    assert world.stats()["paid_lines"] == 0
    files[0].write_bytes(content)
    assert run.wait().summary().completed_items == 6
    assert (world.stats()["paid_lines"], world.stats()["paid_twice"]) == (6, [])
