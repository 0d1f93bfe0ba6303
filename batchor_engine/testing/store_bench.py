"""A store under test, and what a worker would do with it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from batchor_engine.core.records import (
    BatchRange,
    BatchRecord,
    IngestPosition,
    ItemMove,
    Lease,
    NewBatch,
    NewItem,
    NewPart,
    NewRun,
    NewSegment,
    Observation,
    RunRecord,
    Settlement,
)
from batchor_engine.core.segment import SegmentTotals
from batchor_engine.models import RunUsage
from batchor_engine.ports.state import StateStore
from batchor_engine.states import BatchState, ItemStatus
from batchor_engine.testing.clock import ManualClock

START = IngestPosition("iterable", "list", "", 0)
LENGTH, TOKENS = 10, 3
TTL_SEC = 60.0


class StoreBench:
    """A store under test, and what a worker does with it."""

    def __init__(self, store: StateStore, clock: ManualClock) -> None:
        self.store, self.clock = store, clock

    def lease(self, resource: str, owner: str = "me") -> Lease:
        taken = self.store.acquire(resource, owner, TTL_SEC)
        assert isinstance(taken, Lease), f"{resource} is held by {taken}"
        return taken

    def run(self, run_id: str = "r") -> RunRecord:
        found = self.store.run(run_id)
        assert found is not None
        return found

    def ingest(self, rows: int = 5, run_id: str = "r", *, failed: Sequence[int] = ()) -> tuple[RunRecord, Lease]:
        """A run with one part; rows in `failed` can never be sent."""
        assert self.store.create_run(NewRun(run_id, {"compared": {}}, "/nowhere", START, {"team": run_id}))
        lease = self.lease(f"run:{run_id}")
        items = [NewItem(n, f"row-{n}", n * LENGTH, LENGTH, TOKENS, n % 2, n in failed) for n in range(rows)]
        good = rows - len(failed)
        part = NewPart("part", "sidecar", 0, rows - 1, good, rows * LENGTH, good * TOKENS)
        self.store.append_part(
            self.run(run_id).pk,
            lease,
            part=part,
            items=items,
            position=replace(START, checkpoint=rows, next_index=rows, finished=True),
            failures=segment(0, len(failed), 0, rows - 1) if failed else None,
        )
        return self.run(run_id), lease

    def claim(
        self, run: RunRecord, lease: Lease, first: int, last: int, *, attempt: int = 1, budget: int | None = None
    ) -> BatchRecord | None:
        (part,) = self.store.parts(run.pk)
        count = last - first + 1
        lines = BatchRange(
            part.pk, first, last, first * LENGTH, count * LENGTH, count, count * TOKENS, attempt, attempt == 1
        )
        intent = f"{run.run_id}-{first}-{attempt}"
        until = self.clock.now().timestamp() + 1_000
        return self.store.claim(run.pk, lease, NewBatch(intent, "account", "scope", (lines,), until, budget))

    def planned(self, run: RunRecord, lease: Lease, first: int, last: int) -> BatchRecord:
        batch = self.claim(run, lease, first, last)
        assert batch is not None
        return batch

    def submitted(self, run: RunRecord, lease: Lease, first: int, last: int, *, attempt: int = 1) -> BatchRecord:
        batch = self.claim(run, lease, first, last, attempt=attempt)
        assert batch is not None
        for state in (BatchState.INTENDED, BatchState.UPLOADED):
            assert self.store.move_batch(batch, lease, state)
            batch = replace(batch, state=state)
        remote = f"remote-{batch.intent_id}"
        assert self.store.confirm_submitted(batch, lease, provider_batch_id=remote, status="validating")
        return self.again(batch)

    def ended(self, run: RunRecord, lease: Lease, first: int, last: int, *, attempt: int = 1) -> BatchRecord:
        batch = self.submitted(run, lease, first, last, attempt=attempt)
        assert self.store.observe([Observation(batch.pk, "completed", ended=True)]) == [batch.pk]
        return self.again(batch)

    def again(self, batch: BatchRecord) -> BatchRecord:
        """The batch as it is stored now."""
        return next(one for one in self.store.batches(run_pk=batch.run_pk) if one.pk == batch.pk)

    def settle(self, batch: BatchRecord, lease: Lease, moves: Sequence[ItemMove] = (), rows: int | None = None) -> None:
        completed = batch.items - len(moves) if rows is None else rows
        failed = sum(move.to is ItemStatus.FAILED_PERMANENT for move in moves)
        (lines,) = self.store.ranges(batch.pk)
        totals = segment(completed, failed, lines.first_index, lines.last_index)
        change = Settlement(batch.pk, BatchState.COLLECTED, totals, completed, tuple(moves), None)
        self.store.settle(batch.run_pk, lease, change)


def segment(completed: int, failed: int, first: int, last: int) -> NewSegment:
    usage = RunUsage(1, 0, 1, 0)
    return NewSegment("segment", 9, SegmentTotals(completed + failed, completed, failed, first, last, usage, {}))


def counts(run: RunRecord) -> dict[ItemStatus, int]:
    return {status: count for status, count in run.counts.items() if count}


@contextmanager
def refused(kind: type[BaseException]) -> Generator[None]:
    """The block must raise this."""
    try:
        yield
    except kind:
        return
    raise AssertionError(f"{kind.__name__} was not raised")
