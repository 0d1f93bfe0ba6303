"""Writes lock rows in one order: whatever they do at once on PostgreSQL, the server never has to end one of them."""

from __future__ import annotations

import random
import threading
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from batchor_engine.core.records import (
    BatchRange,
    IngestPosition,
    Lease,
    NewBatch,
    NewItem,
    NewPart,
    NewRun,
    Observation,
)
from batchor_engine.errors import LeaseLostError
from batchor_engine.states import BATCH_HOLDS_BUDGET, BatchState, RunControlState
from batchor_engine.testing import ManualClock
from batchor_engine.testing.store_bench import LENGTH, START, TOKENS, StoreBench

from ..stores import STORES, new_url, open_at

RUNS, ROWS, THREADS, TURNS = 4, 60, 6, 40
SCOPES = ("a", "b")


class Hand:
    """One worker with connections of its own, which does one thing after another by chance."""

    def __init__(self, url: str, clock: ManualClock, seed: int) -> None:
        self.store: Any = open_at(url, clock.now)
        self.bench = StoreBench(self.store, clock)
        self.chance = random.Random(seed)
        self.name = f"hand-{seed}"
        self.deadlocks = 0
        event.listen(self.store.engine, "handle_error", self._count)

    def _count(self, context: Any) -> None:
        self.deadlocks += getattr(context.original_exception, "sqlstate", None) == "40P01"

    def turn(self) -> None:
        acts = [self.submit, self.submit, self.observe, self.observe, self.settle, self.control, self.keep, self.delete]
        with suppress(LeaseLostError):
            self.chance.choice(acts[:-1] if self.chance.random() < 0.9 else acts)()

    def _leased(self, resource: str) -> Lease | None:
        taken = self.store.acquire(resource, self.name, 600.0)
        return taken if isinstance(taken, Lease) else None

    def submit(self) -> None:
        run_id = f"run-{self.chance.randrange(RUNS)}"
        lease = self._leased(f"run:{run_id}")
        if lease is None:
            return
        if self.store.run(run_id) is None:
            make(self.store, run_id, lease)
        run = self.store.run(run_id)
        for part in self.store.fresh_parts(run.pk, limit=1):
            first = part.next_index
            lines = BatchRange(part.pk, first, first, first * LENGTH, LENGTH, 1, TOKENS, 1, True)
            # Some reservations have lapsed when they are made, so that the next claim of the scope gives them back.
            until = self.bench.clock.now().timestamp() + self.chance.choice([-1, 1_000])
            new = NewBatch(
                f"{self.name}-{self.chance.random()}", "acc", self.chance.choice(SCOPES), (lines,), until, 999
            )
            self._send(self.store.claim(run.pk, lease, new), lease)
        self.store.release(lease)

    def _send(self, batch: Any, lease: Lease) -> None:
        if batch is None:
            return
        self.store.move_batch(batch, lease, BatchState.INTENDED)
        intended = replace(batch, state=BatchState.INTENDED)
        if self.chance.random() < 0.3:
            self.store.release_batch(intended, lease, BatchState.ABANDONED, backoff=None)
            return
        self.store.move_batch(intended, lease, BatchState.UPLOADED)
        uploaded = replace(batch, state=BatchState.UPLOADED)
        self.store.confirm_submitted(uploaded, lease, provider_batch_id=batch.intent_id, status="validating")

    def observe(self) -> None:
        away = self.store.batches(states={BatchState.SUBMITTED})
        self.chance.shuffle(away)
        self.store.observe([Observation(one.pk, "seen", ended=self.chance.random() < 0.4) for one in away])

    def settle(self) -> None:
        ended = self.store.batches(states={BatchState.ENDED})
        for batch in self.chance.sample(ended, min(3, len(ended))):
            lease = self._leased(f"batch:{batch.pk}")
            if lease is not None and self.store.batches(run_pk=batch.run_pk, states={BatchState.ENDED}):
                now = [one for one in self.store.batches(run_pk=batch.run_pk) if one.pk == batch.pk]
                if now and now[0].state is BatchState.ENDED:
                    self.bench.settle(batch, lease)
                self.store.release(lease)

    def control(self) -> None:
        run_id = f"run-{self.chance.randrange(RUNS)}"
        wish = self.chance.choice([RunControlState.PAUSED, RunControlState.RUNNING, RunControlState.RUNNING])
        with suppress(LookupError):
            self.store.set_control(run_id, wish, reason="test")

    def keep(self) -> None:
        self.store.keep_places([run.pk for run in self.store.waiting_runs()])
        self.store.learn(self.store.scope(self.chance.choice(SCOPES)))
        self.store.recount_scope(self.chance.choice(SCOPES))

    def delete(self) -> None:
        run_id = f"run-{self.chance.randrange(RUNS)}"
        lease = self._leased(f"run:{run_id}")
        if lease is not None:
            self.store.delete_run(run_id, lease)


def make(store: Any, run_id: str, lease: Lease) -> None:
    store.create_run(NewRun(run_id, {"compared": {}}, "/nowhere", START))
    items = [NewItem(n, f"row-{n}", n * LENGTH, LENGTH, TOKENS, 0, False) for n in range(ROWS)]
    part = NewPart("part", "sidecar", 0, ROWS - 1, ROWS, ROWS * LENGTH, ROWS * TOKENS)
    position = IngestPosition("iterable", "list", "", ROWS, ROWS, finished=True)
    store.append_part(store.run(run_id).pk, lease, part=part, items=items, position=position, failures=None)


@pytest.mark.slow
@pytest.mark.skipif("postgres" not in STORES, reason="BATCHOR_TEST_STORES leaves PostgreSQL out")
def test_no_two_writes_ever_wait_for_each_other(tmp_path: Path) -> None:
    url, clock = new_url("postgres", tmp_path), ManualClock()
    hands = [Hand(url, clock, seed) for seed in range(THREADS)]
    failures: list[BaseException] = []
    seen: set[BatchState] = set()

    def work(hand: Hand) -> None:
        try:
            for _ in range(TURNS):
                hand.turn()
                seen.update(batch.state for batch in hand.store.batches())
        except BaseException as error:
            failures.append(error)

    crowd = [threading.Thread(target=work, args=(hand,)) for hand in hands]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()
    assert failures == []
    assert [hand.deadlocks for hand in hands] == [0] * THREADS
    for hand in hands:
        hand.store.close()
    with closing(open_at(url, clock.now)) as store:
        batches = store.batches()
        assert len(seen) > 2
        for name in SCOPES:
            held = [one.tokens for one in batches if one.scope == name and one.reserves]
            assert store.scope(name).reserved == sum(held)
        assert all(batch.state in BATCH_HOLDS_BUDGET for batch in batches if batch.reserves)
        for run in store.runs():
            lease = store.acquire(f"run:{run.run_id}", "checker", 600.0, dead_owner=None)
            if isinstance(lease, Lease):
                assert not store.recount(run.pk, lease)
