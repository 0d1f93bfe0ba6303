"""For tests of your own: a clock that only moves when told, crashes at named points, and a check of every law a store
must keep.

Law: the checker reads through the public port only, so it works on any store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta

from batchor_engine.core.records import BatchRecord, ItemRow, RunRecord, SegmentRecord
from batchor_engine.core.segment import SegmentRow
from batchor_engine.ports.artifacts import ArtifactStore
from batchor_engine.ports.state import StateStore
from batchor_engine.results.segments import read_rows
from batchor_engine.runtime.runner import BatchRunner
from batchor_engine.runtime.sweep import pointed_keys, run_keys
from batchor_engine.states import BATCH_HOLDS_BUDGET, BATCH_LIVE, ITEM_TERMINAL, ItemStatus

__all__ = ["CrashError", "CrashPoints", "ManualClock", "check_invariants"]

_CHUNK = 10_000


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


def check_invariants(runner: BatchRunner, *, files: bool = True) -> list[str]:
    """Every broken law of every run in the runner's store, as sentences; an empty list is the good answer.

    `files` also looks for files that no row points to, which a crash may leave until the run ends.
    """
    store = runner.storage
    runs = store.runs(limit=1_000_000)
    broken = [problem for run in runs for problem in _run_problems(runner, run, files=files)]
    return [*broken, *_budget_problems(store)]


def _run_problems(runner: BatchRunner, run: RunRecord, *, files: bool) -> Iterator[str]:
    store, artifacts = runner.storage, runner.host.artifacts(run)
    batches = store.batches(run_pk=run.pk)
    segments = store.segments(run.pk)
    rows = list(_items(store, run))
    for problem in (
        *_count_problems(run, rows, batches),
        *_sequence_problems(run, segments),
        *_result_problems(store, run, segments, rows, artifacts),
        *(_file_problems(store, run, artifacts) if files else ()),
    ):
        yield f"run {run.run_id}: {problem}"


def _items(store: StateStore, run: RunRecord) -> Iterator[ItemRow]:
    for first in range(0, run.ingest.next_index, _CHUNK):
        yield from store.items_between(run.pk, first, first + _CHUNK - 1)


def _count_problems(run: RunRecord, rows: list[ItemRow], batches: list[BatchRecord]) -> Iterator[str]:
    found = Counter(row.status for row in rows)
    for status in ItemStatus:
        if found[status] != run.counts[status]:
            yield f"{run.counts[status]} items counted as {status}, {found[status]} are"
    live = sum(batch.state in BATCH_LIVE for batch in batches)
    if live != run.live_batches:
        yield f"{run.live_batches} live batches counted, {live} are"
    if [row.item_index for row in rows] != list(range(run.ingest.next_index)):
        yield "the item indexes have holes: rows before the checkpoint are missing"


def _sequence_problems(run: RunRecord, segments: list[SegmentRecord]) -> Iterator[str]:
    expected = 1
    for segment in segments:
        if segment.totals.final_rows and segment.first_sequence != expected:
            yield f"segment {segment.key} begins at sequence {segment.first_sequence}, not at {expected}"
        expected += segment.totals.final_rows
    if expected - 1 != run.last_sequence:
        yield f"{run.last_sequence} sequences given, {expected - 1} are in segments"


def _result_problems(
    store: StateStore, run: RunRecord, segments: list[SegmentRecord], rows: list[ItemRow], artifacts: ArtifactStore
) -> Iterator[str]:
    results: dict[int, SegmentRow] = {}
    for segment in segments:
        gone = store.superseded_indexes(run.pk, segment) if segment.superseded else set[int]()
        with artifacts.local_file(segment.key) as path:
            for row in read_rows(path):
                if row.item_index in gone:
                    continue
                if row.item_index in results:
                    yield f"item {row.item_id} has two results"
                results[row.item_index] = row
    for row in rows:
        result = results.pop(row.item_index, None)
        if (row.status in ITEM_TERMINAL) != (result is not None):
            yield f"item {row.item_id} is {row.status} and has {'a' if result else 'no'} result"
        elif result is not None and (result.status, result.item_id) != (row.status.value, row.item_id):
            yield f"item {row.item_id} is {row.status}, its result says {result.item_id} is {result.status}"
    yield from (f"a result for item {index}, which does not exist" for index in results)


def _file_problems(store: StateStore, run: RunRecord, artifacts: ArtifactStore) -> Iterator[str]:
    pointed = pointed_keys(store, run)
    present = set(run_keys(artifacts, run))
    yield from (f"nothing points to the file {key}" for key in sorted(present - pointed))


def _budget_problems(store: StateStore) -> Iterator[str]:
    held: Counter[str] = Counter()
    for batch in store.batches():
        if batch.reserves and batch.state not in BATCH_HOLDS_BUDGET:
            yield f"batch {batch.pk} is {batch.state} and still reserves {batch.tokens} tokens"
        held[batch.scope] += batch.tokens if batch.reserves else 0
    for name, tokens in held.items():
        reserved = store.scope(name).reserved
        if reserved != tokens:
            yield f"scope {name}: {reserved} tokens reserved, live batches hold {tokens}"
