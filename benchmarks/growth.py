"""How the cost grows with the rows: a straight line through what was measured, and how well it fits."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.walk import Walk


@dataclass(frozen=True)
class Growth:
    """`fixed_sec` for starting at all and `row_us` for each row, by least squares over the sizes that were measured.

    `exponent` is the slope of the logarithms between the two largest sizes, once what the quickest smaller one takes is
    subtracted: 1 is linear, 2 quadratic.
    """

    way: str
    what: str
    rows: tuple[int, ...]
    fixed_sec: float
    row_us: float
    r_squared: float
    exponent: float


def growth(walks: Sequence[Walk], way: str, what: str = "cpu_sec") -> Growth | None:
    """The fit of one way; None with fewer than three sizes, through which any line would fit."""
    totals: dict[int, list[float]] = {}
    for one in walks:
        if one.way == way:
            totals.setdefault(one.rows, []).append(one.total(what))
    if len(totals) < 3:
        return None
    rows = sorted(totals)
    seconds = [statistics.mean(totals[size]) for size in rows]
    slope, fixed = statistics.linear_regression(rows, seconds)
    # What starting takes is most of a small run; the first one also waits for a cold disk, so the least one tells it.
    start, least = min(zip(seconds[:-2], rows[:-2], strict=True))
    grown = [max(sec - start, 1e-9) for sec in seconds[-2:]]
    exponent = math.log(grown[1] / grown[0]) / math.log((rows[-1] - least) / (rows[-2] - least))
    return Growth(way, what, tuple(rows), fixed, slope * 1e6, statistics.correlation(rows, seconds) ** 2, exponent)
