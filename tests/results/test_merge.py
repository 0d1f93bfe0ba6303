"""Segments come back as one stream in item order, each opened when it is due."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from batchor_engine.core.segment import SegmentRow
from batchor_engine.results.merge import MergeInput, merge_by_index, newest_per_item, segment_input
from batchor_engine.results.segments import SegmentWriter

runs_of_indexes = st.lists(st.lists(st.integers(0, 30)).map(sorted), max_size=6)


def row(index: int, name: str = "") -> SegmentRow:
    return SegmentRow(index, name, 0, True, "completed", 1, None, name, None, None, False, None, None, None, None)


def segment(path: Path, indexes: Sequence[int], *, final: bool = True) -> Path:
    with SegmentWriter(path) as writer:
        writer.extend(row(index, path.name)._replace(final=final) for index in indexes)
    return path


@given(runs_of_indexes)
def test_a_merge_is_a_stable_sort_of_everything(runs: list[list[int]]) -> None:
    sources = [[row(index, str(name)) for index in indexes] for name, indexes in enumerate(runs)]
    merged = list(merge_by_index(sources))
    assert merged == sorted((one for source in sources for one in source), key=lambda one: one.item_index)


@given(runs_of_indexes)
def test_known_first_indexes_change_nothing_in_the_result(runs: list[list[int]]) -> None:
    sources = [[row(index, str(name)) for index in indexes] for name, indexes in enumerate(runs)]
    lazy = [MergeInput(source[0].item_index if source else 7, lambda rows=source: iter(rows)) for source in sources]
    assert list(merge_by_index(lazy)) == list(merge_by_index(sources))


@given(runs_of_indexes)
def test_the_newest_row_of_an_item_is_the_one_of_the_last_source(runs: list[list[int]]) -> None:
    sources = [[row(index, str(name)) for index in indexes] for name, indexes in enumerate(runs)]
    newest = {one.item_index: one for source in sources for one in source}
    assert list(newest_per_item(merge_by_index(sources))) == [newest[index] for index in sorted(newest)]


def test_paths_and_iterators_merge_together(tmp_path: Path) -> None:
    sources = [segment(tmp_path / "a", [0, 4]), str(segment(tmp_path / "b", [1, 9])), iter([row(2, "c")]), []]
    assert [(one.item_index, one.item_id) for one in merge_by_index(sources)] == [
        (0, "a"),
        (1, "b"),
        (2, "c"),
        (4, "a"),
        (9, "b"),
    ]


def test_rows_that_did_not_end_their_item_are_left_out(tmp_path: Path) -> None:
    sources = [segment(tmp_path / "a", [0, 1], final=False), segment(tmp_path / "b", [0, 1])]
    assert [one.item_id for one in merge_by_index(sources)] == ["b", "b"]
    everything = [segment_input(path, final_only=False) for path in sources]
    assert [one.item_id for one in merge_by_index(everything)] == ["a", "b", "a", "b"]


def test_disjoint_sources_are_opened_one_after_the_other() -> None:
    open_now: set[int] = set()
    most: list[int] = []

    def source(number: int) -> Iterator[SegmentRow]:
        open_now.add(number)
        most.append(len(open_now))
        yield from (row(number * 10 + offset) for offset in range(10))
        open_now.discard(number)

    inputs = [MergeInput(number * 10, lambda number=number: source(number)) for number in reversed(range(1000))]
    assert [one.item_index for one in merge_by_index(inputs)] == list(range(10_000))
    assert max(most) == 1


def test_a_thousand_overlapping_segments_need_no_thousand_file_handles(tmp_path: Path) -> None:
    paths = [segment(tmp_path / str(number), [number, 2000 - number]) for number in range(1000)]
    handles = Path("/proc/self/fd")
    before = len(os.listdir(handles)) if handles.exists() else 0
    merged = merge_by_index(paths)
    first = [next(merged).item_index for _ in range(1000)]
    if handles.exists():
        assert len(os.listdir(handles)) <= before + 5
    assert [*first, *(one.item_index for one in merged)] == [*range(1000), *range(1001, 2001)]
