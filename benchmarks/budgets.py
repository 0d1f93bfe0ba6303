"""DESIGN.md's budgets beside what each round of this run measured. It says whether they were kept; nothing fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.walk import LIST_PHASE, Walk

NAIVE, SQLITE, POSTGRES = "naive script", "batchor, SQLite", "batchor, PostgreSQL"


@dataclass(frozen=True)
class Round:
    """Everything once: the walks of every way and size, and what looking cost."""

    walks: list[Walk]
    looks: dict[str, Any]

    def walk(self, way: str, rows: int) -> Walk | None:
        return next((one for one in self.walks if one.way == way and one.rows == rows), None)


@dataclass(frozen=True)
class Line:
    """One budget: what each round measured (None: not measured), and the most it may be (None: told, not bounded)."""

    what: str
    measured: list[float | None]
    most: float | None

    @property
    def kept(self) -> bool | None:
        found = [one for one in self.measured if one is not None]
        return None if self.most is None or not found else all(one <= self.most for one in found)

    @property
    def spread(self) -> float | None:
        """The largest over the smallest, less one."""
        found = [one for one in self.measured if one]
        return max(found) / min(found) - 1 if len(found) > 1 else None


def budgets(rounds: Sequence[Round], rows: int, small: int) -> list[Line]:
    def line(what: str, most: float | None, measure: Callable[[Round], float | None]) -> Line:
        return Line(what, [measure(one) for one in rounds], most)

    return [
        line("time of the naive script's, clock", 1.5, lambda it: _ratio(it, SQLITE, rows, "wall_sec")),
        line("time of the naive script's, CPU", 1.5, lambda it: _ratio(it, SQLITE, rows, "cpu_sec")),
        line("the same on PostgreSQL, clock", None, lambda it: _ratio(it, POSTGRES, rows, "wall_sec")),
        line("the same on PostgreSQL, CPU of the client", None, lambda it: _ratio(it, POSTGRES, rows, "cpu_sec")),
        line("peak memory of any phase, MB", 250, lambda it: _peak(it, SQLITE, rows)),
        line("peak memory of any phase, PostgreSQL, MB", 250, lambda it: _peak(it, POSTGRES, rows)),
        line("summary while all is away, ms", 5, lambda it: _look(it, rows, "summary_ms")),
        line(f"the same over {small:,} rows', in turns", 1.2, lambda it: _over(it, rows, "summary_ms")),
        line("refresh with nothing new, calls left out, ms", 5, lambda it: _look(it, rows, "own_refresh_ms")),
        line(f"the same over {small:,} rows', in turns", 1.2, lambda it: _over(it, rows, "own_refresh_ms")),
        line(
            "calls of a poll over those allowed", 1, lambda it: it.looks["poll"]["calls"] / it.looks["poll"]["allowed"]
        ),
        line("database, bytes a row", 250, lambda it: _stored(it, rows, "database")),
        line("import batchor_engine, CPU s", 0.35, lambda it: it.looks["import"]["cpu_sec"]),
        line("sensor tick, first, s", 5, lambda it: it.looks["tick"]["first_sec"]),
        line("sensor tick, later, s", 5, lambda it: it.looks["tick"]["later_sec"]),
    ]


def _ratio(found: Round, way: str, rows: int, what: str) -> float | None:
    ours, floor = found.walk(way, rows), found.walk(NAIVE, rows)
    return ours.total(what) / floor.total(what) if ours and floor else None


def _peak(found: Round, way: str, rows: int) -> float | None:
    ours = found.walk(way, rows)
    return max(one.peak_mib for name, one in ours.phases.items() if name != LIST_PHASE) if ours else None


def _look(found: Round, rows: int, what: str) -> float | None:
    ours = found.walk(SQLITE, rows)
    return ours.phases["look"].made[what] if ours else None


def _over(found: Round, rows: int, what: str) -> float | None:
    ours = found.walk(SQLITE, rows)
    return ours.in_turns[what] if ours and ours.in_turns else None


def _stored(found: Round, rows: int, what: str) -> float | None:
    ours = found.walk(SQLITE, rows)
    return ours.stored.get(what) if ours else None
