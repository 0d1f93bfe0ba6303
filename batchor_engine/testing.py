"""For tests of your own: a clock that only moves when told, crashes at named points, and a check of every law a store
must keep.

Law: the checker reads through the public port only, so it works on any store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from batchor_engine.runtime.invariants import Finding, Severity, budget_diagnoses, run_diagnoses
from batchor_engine.runtime.runner import BatchRunner

__all__ = ["CrashError", "CrashPoints", "ManualClock", "check_invariants"]


class ManualClock:
    """A clock for a store's `now` and a runner's `sleep`: sleeping moves it, nothing else does."""

    def __init__(self, start: datetime | None = None) -> None:
        self._now = start or datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self._now

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)


class CrashError(BaseException):
    """The process "died" here. Not an Exception, so nothing that handles errors can handle it."""


class CrashPoints:
    """Install with `install(runner)`; the runtime then reports each crash point it passes.

    `at` maps a name to the how-manieth passing that crashes; `seen` counts all passings. A crash raises CrashError,
    or calls `die`, which a test of real processes sets to kill its own.
    """

    def __init__(self, at: Mapping[str, int] | None = None, die: Callable[[str], None] | None = None) -> None:
        self.at = dict(at or {})
        self.seen: Counter[str] = Counter()
        self._die = die or _raise_crash

    def install(self, runner: BatchRunner) -> CrashPoints:
        runner.host.reached = self._reached
        return self

    def _reached(self, name: str) -> None:
        self.seen[name] += 1
        if self.at.get(name) == self.seen[name]:
            self._die(f"{name}, time {self.seen[name]}")


def _raise_crash(where: str) -> None:
    raise CrashError(f"crashed at {where}")


# What must hold at every instant, whoever was killed where. The other findings of doctor() are about time and people.
_LAWS = frozenset({"counters", "rows", "sequence", "results", "orphan_file", "missing_file", "budget"})


def check_invariants(runner: BatchRunner, *, files: bool = True) -> list[str]:
    """Every broken law of every run in the runner's store, as sentences; an empty list is the good answer.

    `files` also looks for files that no row points to, which a crash may leave until the run ends.
    """
    host = runner.host
    found = [
        one
        for run in host.store.runs(limit=1_000_000)
        for one, _ in run_diagnoses(host, run, files=files, results=True)
    ]
    found += [one for one, _ in budget_diagnoses(host.store)]
    return [f"run {one.run_id}: {one.message}" if one.run_id else one.message for one in found if _breaks_a_law(one)]


def _breaks_a_law(one: Finding) -> bool:
    return one.check in _LAWS and (one.severity is Severity.PROBLEM or one.check == "orphan_file")
