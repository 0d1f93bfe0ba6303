from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from batchor_engine.core.packing import spans
from batchor_engine.core.records import BatchRange


def ranges(*pairs: tuple[int, int]) -> list[BatchRange]:
    return [
        BatchRange(part=1, first_index=a, last_index=b, offset=0, length=1, items=1, tokens=1, attempt=2, fresh=False)
        for a, b in pairs
    ]


def test_rows_that_lie_close_are_read_together_and_distant_ones_apart() -> None:
    assert list(spans(ranges((3, 3), (40, 41), (1041, 1050), (2051, 2051)))) == [(3, 1050), (2051, 2051)]
    assert list(spans([])) == []


def test_ranges_that_go_back_are_not_joined() -> None:
    assert list(spans(ranges((10, 20), (5, 8)))) == [(10, 20), (5, 8)]


@given(st.lists(st.tuples(st.integers(0, 5_000), st.integers(0, 50)), max_size=30))
def test_spans_hold_every_row_once_and_few_others(found: list[tuple[int, int]]) -> None:
    pairs: list[tuple[int, int]] = []
    for gap, length in found:
        first = (pairs[-1][1] + 1 if pairs else 0) + gap
        pairs.append((first, first + length))
    covered = list(spans(ranges(*pairs)))
    assert all(before[1] < after[0] for before, after in pairwise(covered))
    assert all(sum(first <= at <= last for first, last in covered) == 1 for pair in pairs for at in pair)
    assert sum(last - first + 1 for first, last in covered) <= sum(b - a + 1 for a, b in pairs) + 1000 * len(pairs)
