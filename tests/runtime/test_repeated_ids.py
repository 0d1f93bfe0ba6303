"""An item id that occurs twice: told before a cent is spent where rows are in memory, else as they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from batchor_engine import (
    BatchItem,
    ChunkPolicy,
    CompositeItemSource,
    CsvItemSource,
    DataFrameItemSource,
    DuplicateItemError,
    PromptBuildError,
    grouped_job,
)
from batchor_engine.sources.limited import first_items
from tests.runtime.conftest import World

IDS = ["a", "b", "c", "d", "b"]
ROWS = [{"id": one, "n": n} for n, one in enumerate(IDS)]
ONE_A_FILE = ChunkPolicy(max_requests=1)


def csv(folder: Path, ids: list[str]) -> CsvItemSource[Any]:
    path = folder / "rows.csv"
    path.write_text("id\n" + "".join(f"{one}\n" for one in ids))
    return CsvItemSource(path, item_id_from_row=lambda row: row["id"], payload_from_row=dict)


@pytest.mark.parametrize(
    "items",
    [
        [BatchItem(one, {"n": n}) for n, one in enumerate(IDS)],
        tuple(BatchItem(one, {"n": n}) for n, one in enumerate(IDS)),
        DataFrameItemSource(ROWS, item_id="id"),
        DataFrameItemSource(pd.DataFrame(ROWS), item_id=lambda row: str(row["id"])),
        DataFrameItemSource(pa.Table.from_pylist(ROWS), item_id="id"),
        first_items(DataFrameItemSource(ROWS, item_id="id"), 5),
    ],
    ids=["list", "tuple", "dicts", "pandas, by a function", "arrow", "first rows"],
)
def test_an_id_twice_in_memory_is_told_before_the_first_batch(world: World, items: Any) -> None:
    runner = world.runner()
    with pytest.raises(DuplicateItemError, match="'b' twice, as items 2 and 5 of the run") as refused:
        runner.start(world.job(items, chunk_policy=ONE_A_FILE), run_id="twice")
    assert refused.value.positions == (1, 4)
    assert runner.find_runs() == []
    assert world.stats()["calls_total"] == 0
    assert world.files() == []


def test_an_id_twice_in_a_part_of_the_source_names_the_part(world: World, tmp_path: Path) -> None:
    frame = DataFrameItemSource(ROWS, item_id="id")
    composite = CompositeItemSource([csv(tmp_path, ["a"]), frame])
    with pytest.raises(DuplicateItemError, match="__b' twice, as items 2 and 5 of source 2"):
        world.runner().start(world.job(composite), run_id="twice")
    listed = [BatchItem(one, {"n": n}) for n, one in enumerate(IDS)]
    for rows in (frame, listed):
        groups = grouped_job({1: world.job(1), 7: world.job(rows)})
        with pytest.raises(DuplicateItemError, match="'7__b' twice, as items 2 and 5 of group 7"):
            world.runner().start(groups, run_id="twice")
    with pytest.raises(DuplicateItemError, match="items 2 and 5 of source 2 of group 3"):
        world.runner().start(grouped_job({3: world.job(composite)}), run_id="twice")
    assert world.stats()["calls_total"] == 0


def test_first_rows_without_the_repeated_one_start(world: World) -> None:
    items = first_items(DataFrameItemSource(ROWS, item_id="id"), 4)
    assert world.runner().start(world.job(items), run_id="few").wait().summary().completed_items == 4


def test_an_id_twice_in_a_file_keeps_the_rows_before_it_and_names_both_rows(world: World, tmp_path: Path) -> None:
    job = world.job(csv(tmp_path, IDS), build_prompt=lambda item: item.item_id, chunk_policy=ONE_A_FILE)
    runner = world.runner()
    with pytest.raises(DuplicateItemError, match="'b' twice, as items 2 and 5 of the run"):
        runner.start(job, run_id="twice")
    run = runner.get_run("twice")
    assert run.summary().total_items == 4
    run.cancel(drain=True)
    assert run.wait().summary().completed_items == 4


def test_an_id_twice_in_the_rest_of_a_list_is_told_before_more_is_sent(world: World) -> None:
    def build(item: BatchItem[Any]) -> str:
        if item.item_id == "c":
            raise KeyError("no such column")
        return item.item_id

    def job(*ids: str, build_prompt: Any = lambda item: item.item_id) -> Any:
        items = [BatchItem(one, {"n": n}) for n, one in enumerate(ids)]
        return world.job(items, build_prompt=build_prompt, chunk_policy=ONE_A_FILE)

    with pytest.raises(PromptBuildError):
        world.runner().start(job("a", "b", "c", "d", build_prompt=build), run_id="later")
    sent = world.stats()["calls_total"]
    with pytest.raises(DuplicateItemError, match="'a' twice, as items 1 and 5"):
        world.runner().start(job("a", "b", "c", "d", "a"), run_id="later")
    assert world.stats()["calls_total"] == sent
    assert world.runner().start(job("a", "b", "c", "d"), run_id="later").wait().summary().completed_items == 4
