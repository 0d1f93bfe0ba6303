"""Many segments of one run as one stream in item order.

Law: a segment is opened when its first item is due and let go after its last, so the number of segments costs nothing;
only segments whose ranges overlap are held together.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from batchor_engine.core.segment import SegmentRow
from batchor_engine.results.segments import index_range, read_rows

# (item index, source, row, how to go on): the source's position decides ties, so rows are never compared.
_Heap = list[tuple[int, int, SegmentRow, Iterator[SegmentRow]]]


@dataclass(frozen=True)
class MergeInput:
    """Rows sorted by item index from `first_index` on; `open` is called once, when that item is due."""

    first_index: int
    open: Callable[[], Iterator[SegmentRow]]


def segment_input(path: str | Path, *, final_only: bool = True) -> MergeInput:
    """The rows of one segment file as a merge input; reads the footer now and the rows when they are due."""
    first, _ = index_range(path)
    return MergeInput(first, lambda: read_rows(path, final_only=final_only))


def merge_by_index(sources: Iterable[MergeInput | str | Path | Iterable[SegmentRow]]) -> Iterator[SegmentRow]:
    """All rows by item index; rows of one item come in the order in which their sources were given."""
    inputs = [(position, _as_input(source)) for position, source in enumerate(sources)]
    waiting = sorted(inputs, key=lambda pair: pair[1].first_index, reverse=True)
    heap: _Heap = []
    while waiting or heap:
        while waiting and (not heap or waiting[-1][1].first_index <= heap[0][0]):
            position, source = waiting.pop()
            _push_next(heap, position, source.open())
        if heap:
            yield from _run_ahead(heap, waiting[-1][1].first_index if waiting else None)


def _run_ahead(heap: _Heap, next_opened: int | None) -> Iterator[SegmentRow]:
    """The rows of the first source up to where another one has a row, or one that waits begins.

    Retried rows are few, so nearly all rows come in long runs that need no heap.
    """
    _, position, row, rest = heapq.heappop(heap)
    others = [index for index in (heap[0][0] if heap else None, next_opened) if index is not None]
    end = min(others, default=None)
    yield row
    for row in rest:
        if end is not None and row.item_index >= end:
            heapq.heappush(heap, (row.item_index, position, row, rest))
            return
        yield row


def newest_per_item(rows: Iterable[SegmentRow]) -> Iterator[SegmentRow]:
    """Of neighbouring rows of one item only the last, as when retry_failed() superseded an older end."""
    held: SegmentRow | None = None
    for row in rows:
        if held is not None and held.item_index != row.item_index:
            yield held
        held = row
    if held is not None:
        yield held


def _as_input(source: MergeInput | str | Path | Iterable[SegmentRow]) -> MergeInput:
    if isinstance(source, MergeInput):
        return source
    if isinstance(source, str | Path):
        return segment_input(source)
    # Where an iterator begins is unknown, so it is due at once.
    return MergeInput(-1, lambda: iter(source))


def _push_next(heap: _Heap, position: int, rows: Iterator[SegmentRow]) -> None:
    row = next(rows, None)
    if row is not None:
        heapq.heappush(heap, (row.item_index, position, row, rows))
