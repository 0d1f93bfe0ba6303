"""What must hold between a store's counters, its rows and its files, and what does not.

Law: looking changes nothing and holds a few rows at a time. A finding names what is wrong so that a reader can act on
it without knowing the tables.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from batchor_engine.core.records import ItemRow, Lease, RunRecord, SegmentRecord
from batchor_engine.core.segment import SegmentRow
from batchor_engine.core.text import counted
from batchor_engine.ports.artifacts import ArtifactStore
from batchor_engine.ports.state import StateStore
from batchor_engine.results.merge import MergeInput, merge_by_index
from batchor_engine.results.segments import read_rows
from batchor_engine.runtime.hold import held, run_lease
from batchor_engine.runtime.host import Host
from batchor_engine.runtime.manifest import files_of, run_keys
from batchor_engine.runtime.signature import sharers
from batchor_engine.runtime.sweep import sweep
from batchor_engine.states import BATCH_HOLDS_BUDGET, BATCH_LIVE, ITEM_TERMINAL, ItemStatus

_CHUNK = 10_000
_NAMED = 5


class Severity(StrEnum):
    """A problem needs somebody; a note is good to know and settles itself, or costs nothing."""

    PROBLEM = "problem"
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be; `check` is its stable name, `repair` what a repair does about it."""

    check: str
    message: str
    run_id: str | None = None
    severity: Severity = Severity.PROBLEM
    repair: str | None = None
    repaired: bool = False


class Diagnosis(NamedTuple):
    """A finding, and how to repair it where that can lose neither a row nor money; True once it is repaired."""

    finding: Finding
    cure: Callable[[], bool] | None = None


def run_diagnoses(host: Host, run: RunRecord, *, files: bool, results: bool) -> Iterator[Diagnosis]:
    """Counters and sequences of a run; with `files` what is on disk, with `results` every stored answer too."""
    segments = host.store.segments(run.pk)
    yield from _counters(host, run)
    yield from _sequences(run, segments)
    if results:
        yield from _results(host, run, segments)
    if files:
        yield from _missing_files(host, run)
        yield from _orphan_files(host, run)


def _items(store: StateStore, run: RunRecord) -> Iterator[ItemRow]:
    for first in range(0, run.ingest.next_index, _CHUNK):
        yield from store.items_between(run.pk, first, first + _CHUNK - 1)


def _counters(host: Host, run: RunRecord) -> Iterator[Diagnosis]:
    found: Counter[ItemStatus] = Counter()
    for row in _items(host.store, run):
        found[row.status] += 1
    live = sum(batch.state in BATCH_LIVE for batch in host.store.batches(run_pk=run.pk))
    wrong = [
        f"{run.counts[one]} items as {one}, {found[one]} are" for one in ItemStatus if found[one] != run.counts[one]
    ]
    if live != run.live_batches:
        wrong.append(f"{run.live_batches} live batches, {live} are")
    if wrong:
        message, cure = (
            f"counted {'; '.join(wrong)}",
            _under_lease(host, run, lambda it: host.store.recount(run.pk, it)),
        )
        yield Diagnosis(Finding("counters", message, run.run_id, repair="count again"), cure)
    if found.total() != run.ingest.next_index:
        lost = run.ingest.next_index - found.total()
        yield Diagnosis(Finding("rows", f"{counted(lost, 'row')} missing before the checkpoint", run.run_id))


def _under_lease(host: Host, run: RunRecord, act: Callable[[Lease], bool]) -> Callable[[], bool]:
    def cure() -> bool:
        with held(host.store, run_lease(run.run_id)) as lease:
            return lease is not None and act(lease)

    return cure


def _sequences(run: RunRecord, segments: list[SegmentRecord]) -> Iterator[Diagnosis]:
    expected = 1
    for segment in segments:
        if segment.totals.final_rows and segment.first_sequence != expected:
            message = f"segment {segment.key} begins at sequence {segment.first_sequence}, not at {expected}"
            yield Diagnosis(Finding("sequence", message, run.run_id))
        expected += segment.totals.final_rows
    if expected - 1 != run.last_sequence:
        message = f"{run.last_sequence} sequences were given, {expected - 1} are in segments"
        yield Diagnosis(Finding("sequence", message, run.run_id))


def _results(host: Host, run: RunRecord, segments: list[SegmentRecord]) -> Iterator[Diagnosis]:
    """Every terminal row has exactly one result, of its own, and no other row has any."""
    finals = [segment for segment in segments if segment.totals.final_rows]
    merged = merge_by_index(
        [MergeInput(one.totals.first_index, lambda it=one: _final_rows(host, run, it)) for one in finals]
    )
    try:
        for message in _compared(_items(host.store, run), merged):
            yield Diagnosis(Finding("results", message, run.run_id))
    except FileNotFoundError as error:
        yield Diagnosis(Finding("results", f"its results cannot be read: {error}", run.run_id))


def _final_rows(host: Host, run: RunRecord, segment: SegmentRecord) -> Iterator[SegmentRow]:
    gone = host.store.superseded_indexes(run.pk, segment) if segment.superseded else set[int]()
    with host.artifacts(run).reading(segment.key) as file:
        yield from (row for row in read_rows(file) if row.item_index not in gone)


def _compared(items: Iterable[ItemRow], results: Iterator[SegmentRow]) -> Iterator[str]:
    ahead = next(results, None)
    for row in items:
        mine: list[SegmentRow] = []
        while ahead is not None and ahead.item_index <= row.item_index:
            if ahead.item_index == row.item_index:
                mine.append(ahead)
            else:
                yield f"a result for item {ahead.item_index}, which does not exist"
            ahead = next(results, None)
        yield from _of_one_row(row, mine)
    while ahead is not None:
        yield f"a result for item {ahead.item_index}, which does not exist"
        ahead = next(results, None)


def _of_one_row(row: ItemRow, results: list[SegmentRow]) -> Iterator[str]:
    if (row.status in ITEM_TERMINAL) != bool(results):
        yield f"item {row.item_id} is {row.status} and has {'a' if results else 'no'} result"
    if len(results) > 1:
        yield f"item {row.item_id} has {counted(len(results), 'result')}"
    for result in results[:1]:
        if row.status in ITEM_TERMINAL and (result.status, result.item_id) != (row.status.value, row.item_id):
            yield f"item {row.item_id} is {row.status}, its result says {result.item_id} is {result.status}"


def _missing_files(host: Host, run: RunRecord) -> Iterator[Diagnosis]:
    artifacts, files = host.artifacts(run), files_of(host.store, run)
    there = set(run_keys(artifacts, run.run_id))
    odd: list[str] = []

    def missing(keys: Iterable[str]) -> list[str]:
        # A store that cannot list is asked for each file.
        return [key for key in keys if key not in there and not _is_present(artifacts, key, odd)]

    if lost := missing(files.segments):
        message = f"{named(lost)} with results are gone from {artifacts.location}: bring them back from a copy"
        yield Diagnosis(Finding("missing_file", message, run.run_id))
    if lost := missing(files.requests + files.sidecars):
        needed = (
            "retry_failed() cannot send its rows again" if run.is_finished else "its rows cannot be sent or collected"
        )
        severity = Severity.NOTE if run.is_finished else Severity.PROBLEM
        message = f"{named(lost)} with requests are gone from {artifacts.location}: {needed}"
        yield Diagnosis(Finding("missing_file", message, run.run_id, severity))
    if lost := missing(files.raw):
        message = f"{named(lost)} of the provider are gone: results stay readable, without raw_response"
        yield Diagnosis(Finding("missing_file", message, run.run_id, Severity.NOTE))
    for message in odd:
        yield Diagnosis(Finding("odd_file", message, run.run_id))


def _is_present(artifacts: ArtifactStore, key: str, odd: list[str]) -> bool:
    """Whether a file is there; one that is a folder or leads out of the root is there and odd."""
    try:
        return artifacts.exists(key)
    except (ValueError, IsADirectoryError) as error:
        odd.append(str(error))
        return True


def _orphan_files(host: Host, run: RunRecord) -> Iterator[Diagnosis]:
    if others := sharers(host, run):
        message = f"its folder in {host.artifacts(run).location} is also that of a run of this id in {others}: "
        message += "no file there is called an orphan"
        yield Diagnosis(Finding("shared_folder", message, run.run_id, Severity.NOTE))
        return
    pointed = set(files_of(host.store, run).all)
    orphans = sorted(key for key in run_keys(host.artifacts(run), run.run_id) if key not in pointed)
    if not orphans:
        return
    message = f"nothing points to {named(orphans)}"
    if run.is_finished:
        cure = _under_lease(host, run, lambda _lease: _sweep_if_over(host, run.run_id))
        yield Diagnosis(Finding("orphan_file", message, run.run_id, repair="delete them"), cure)
    else:
        # Somebody may be about to point to it.
        later = f"{message}; they are deleted when the run ends"
        yield Diagnosis(Finding("orphan_file", later, run.run_id, Severity.NOTE))


def _sweep_if_over(host: Host, run_id: str) -> bool:
    """Sweep a run that is over still: rows retried since it was listed may have a segment that is being committed."""
    run = host.store.run(run_id)
    return run is not None and run.is_finished and sweep(host, run) > 0


def budget_diagnoses(store: StateStore) -> Iterator[Diagnosis]:
    """What scopes have reserved against what their batches hold."""
    held_by: Counter[str] = Counter()
    stale: Counter[str] = Counter()
    for batch in store.batches():
        held_by[batch.scope] += batch.tokens if batch.reserves else 0
        stale[batch.scope] += batch.reserves and batch.state not in BATCH_HOLDS_BUDGET
    names = {scope.name for scope in store.scopes()} | set(held_by)
    for name in sorted(names):
        reserved, cure = store.scope(name).reserved, lambda it=name: store.recount_scope(it)
        if stale[name]:
            ended = counted(stale[name], "batch")
            message = f"scope {name}: tokens are still reserved for {ended} that the provider has ended"
            yield Diagnosis(Finding("budget", message, repair="give them back"), cure)
        elif reserved != held_by[name]:
            message = f"scope {name}: {reserved} tokens are reserved, live batches hold {held_by[name]}"
            yield Diagnosis(Finding("budget", message, repair="count again"), cure)


def named(keys: list[str]) -> str:
    """How many files, and the first few by name."""
    more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
    return f"{counted(len(keys), 'file')} ({', '.join(keys[:_NAMED])}{more})"
