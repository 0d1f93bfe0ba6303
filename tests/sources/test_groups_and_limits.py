"""Sources as the groups of one run, and the first rows of a source: both resume where any row ended."""

from __future__ import annotations

from typing import Any

import pytest

from batchor_engine.core.groups import in_group, out_of_group
from batchor_engine.models import GROUP_KEY, BatchItem
from batchor_engine.ports.sources import CheckpointedItemSource
from batchor_engine.sources.frames import DataFrameItemSource
from batchor_engine.sources.groups import GroupedItemSource, grouped_items
from batchor_engine.sources.limited import LimitedItemSource, first_items


def rows(*ids: str) -> DataFrameItemSource:
    return DataFrameItemSource([{"id": one, "text": f"about {one}"} for one in ids], item_id="id")


def from_every_checkpoint(source: CheckpointedItemSource[Any]) -> list[list[str]]:
    """What is read from the beginning, and again after each row."""
    checkpoints = [
        source.initial_checkpoint(),
        *(row.next_checkpoint for row in source.iter_from_checkpoint(source.initial_checkpoint())),
    ]
    return [[row.item.item_id for row in source.iter_from_checkpoint(one)] for one in checkpoints]


def test_groups_follow_each_other_and_equal_ids_stay_apart() -> None:
    grouped = grouped_items({2: rows("a", "b"), 1: rows("a")})
    assert [(item.item_id, item.metadata[GROUP_KEY]) for item in grouped] == [("1__a", 1), ("2__a", 2), ("2__b", 2)]


def test_groups_resume_after_any_row() -> None:
    source = GroupedItemSource({1: rows("a", "b"), 2: rows(), 3: rows("c")})
    assert from_every_checkpoint(source) == [["1__a", "1__b", "3__c"], ["1__b", "3__c"], ["3__c"], []]


def test_another_order_of_contents_is_another_source() -> None:
    one, other = GroupedItemSource({1: rows("a"), 2: rows("b")}), GroupedItemSource({1: rows("b"), 2: rows("a")})
    assert one.source_identity() != other.source_identity()
    assert one.source_identity() == GroupedItemSource({2: rows("b"), 1: rows("a")}).source_identity()


def test_the_last_group_says_when_all_is_read() -> None:
    source = GroupedItemSource({1: rows("a"), 2: rows("b")})
    ends = [row.next_checkpoint for row in source.iter_from_checkpoint(source.initial_checkpoint())]
    assert [source.checkpoint_is_complete(end) for end in ends] == [False, rows("b").checkpoint_is_complete(1)]
    empty = GroupedItemSource({})
    assert list(empty) == []
    assert empty.checkpoint_is_complete(empty.initial_checkpoint())


def test_lists_are_groups_that_can_be_read_again_and_generators_are_not() -> None:
    items = [BatchItem("a", 1)]
    again = grouped_items({1: items, 2: rows("b")})
    assert [item.item_id for item in again] == [item.item_id for item in again] == ["1__a", "2__b"]
    once = grouped_items({1: items, 2: iter(items)})
    assert iter(once) is once


@pytest.mark.parametrize("item_id", ["a", "1__a", "__", "12__", ""])
def test_an_item_comes_out_of_its_group_as_it_went_in(item_id: str) -> None:
    item = BatchItem(item_id, {"x": 1}, {"kept": True})
    assert out_of_group(in_group(item, 1)) == item
    assert in_group(item, 1).item_id != in_group(item, 12).item_id


@pytest.mark.parametrize(
    "checkpoint", [3, None, {"group": "1", "child_checkpoint": 0}, {"child_checkpoint": True, "group": True}]
)
def test_a_foreign_checkpoint_of_groups_is_refused(checkpoint: Any) -> None:
    with pytest.raises(TypeError, match="the checkpoint of GroupedItemSource is"):
        list(GroupedItemSource({1: rows("a")}).iter_from_checkpoint(checkpoint))


def test_the_first_rows_of_a_source_resume_after_any_row() -> None:
    limited = first_items(rows("a", "b", "c"), 2)
    assert isinstance(limited, LimitedItemSource)
    assert from_every_checkpoint(limited) == [["a", "b"], ["b"], []]
    ends = [row.next_checkpoint for row in limited.iter_from_checkpoint(limited.initial_checkpoint())]
    assert [limited.checkpoint_is_complete(end) for end in ends] == [False, True]


def test_a_limit_above_the_rows_takes_them_all() -> None:
    assert [item.item_id for item in first_items(rows("a", "b"), 9)] == ["a", "b"]
    assert [item.item_id for item in first_items([BatchItem("a", 1), BatchItem("b", 2)], 1)] == ["a"]


def test_another_limit_is_another_source() -> None:
    identities = {LimitedItemSource(rows("a", "b"), limit).source_identity() for limit in (1, 2)}
    assert len({*identities, rows("a", "b").source_identity()}) == 3


def test_no_rows_at_all_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, but is 0"):
        first_items([], 0)


@pytest.mark.parametrize(
    "checkpoint", [0, {"count": -1, "child_checkpoint": 0}, {"count": True, "child_checkpoint": 0}]
)
def test_a_foreign_checkpoint_of_a_limit_is_refused(checkpoint: Any) -> None:
    with pytest.raises(TypeError, match="the checkpoint of LimitedItemSource is"):
        list(LimitedItemSource(rows("a"), 1).iter_from_checkpoint(checkpoint))
