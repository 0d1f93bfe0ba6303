"""Query plans of the hot statements, on tables with enough rows and fresh statistics: none reads a table through."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event

from batchor_engine.core.records import ItemMove, Observation
from batchor_engine.states import BatchState, ItemStatus
from batchor_engine.storage import schema
from batchor_engine.testing import ManualClock
from batchor_engine.testing.store_bench import StoreBench

from ..stores import STORES, new_url, open_at

ROWS, OTHERS = 12_000, 2_000
# What grows with use; the other tables stay small.
LARGE = ("items", "batches", "batch_ranges", "parts", "segments", "runs", "run_labels")
SCANNED = re.compile(rf"(?:Seq Scan on|\bSCAN) (?:{'|'.join(LARGE)})\b(?!.* USING (?:COVERING )?INDEX)")


class Planned:
    """A store with a large run and many small ones, whose statements can be listened to."""

    def __init__(self, url: str) -> None:
        self.bench = StoreBench(open_at(url, ManualClock().now), ManualClock())
        self.store: Any = self.bench.store
        self.is_sqlite = url.startswith("sqlite")
        self.run, self.lease = self.bench.ingest(ROWS)
        self._add_neighbours()
        with self.store.engine.begin() as connection:
            connection.exec_driver_sql("ANALYZE")

    def _add_neighbours(self) -> None:
        values = {
            schema.runs: {
                "run_id": "{n}", "created_at": 0.0, "config": "null", "artifact_root": "", "control": "running",
                "source_kind": "", "source_ref": "", "source_fingerprint": "", "checkpoint": "null",
            },
            schema.batches: {
                "run": 0, "state": "collected", "intent_id": "{n}", "account": "", "scope": "other", "items": 1,
                "bytes": 1, "tokens": 1, "reserve_until": 0.0, "created_at": 0.0,
            },
            schema.parts: {
                "run": 0, "key": "", "sidecar_key": "", "first_index": 0, "last_index": 0, "bytes": 0,
                "next_index": 0, "next_offset": 0, "left_items": 0, "left_tokens": 0,
            },
            schema.segments: {
                "run": 0, "key": "", "bytes": 0, "first_sequence": 1, "rows": 1, "completed": 1, "failed": 0,
                "first_index": 0, "last_index": 0, "input_tokens": 0, "cached_tokens": 0, "output_tokens": 0,
                "reasoning_tokens": 0, "failures": "{}",
            },
            schema.run_labels: {"run": 0, "key": "team", "value": "{n}"},
            schema.batch_ranges: {
                "batch": 0, "position": 0, "part": 1, "first_index": 0, "last_index": 0, "line_offset": 0, "length": 1,
                "items": 1, "tokens": 1, "attempt": 1, "fresh": True,
            },
        }  # fmt: skip
        with self.store.engine.begin() as connection:
            for table, plain in values.items():
                rows = [{k: f"other-{n}" if v == "{n}" else v for k, v in plain.items()} for n in range(OTHERS)]
                for n, row in enumerate(rows):
                    row |= {name: 100_000 + n for name in ("run", "batch") if name in row}
                connection.execute(table.insert(), rows)

    @contextmanager
    def listening(self) -> Iterator[list[tuple[str, Any]]]:
        """The statements of the block, with the parameters of each."""
        said: list[tuple[str, Any]] = []

        def hear(_connection: Any, _cursor: Any, statement: str, values: Any, _context: Any, many: bool) -> None:
            said.append((statement, values[0] if many else values))

        engines = [self.store.engine, self.store._reading_engine() if self.is_sqlite else self.store._snapshots]
        for engine in engines:
            event.listen(engine, "before_cursor_execute", hear)
        yield said
        for engine in engines:
            event.remove(engine, "before_cursor_execute", hear)

    def plans(self, act: Callable[[], object]) -> list[str]:
        with self.listening() as said:
            act()
        explain = "EXPLAIN QUERY PLAN" if self.is_sqlite else "EXPLAIN"
        plans: list[str] = []
        with self.store.engine.connect() as connection:
            for statement, values in said:
                if not statement.startswith(("SELECT", "UPDATE", "DELETE")):
                    continue
                lines = connection.exec_driver_sql(f"{explain} {statement}", values)
                plans.append(statement + "\n" + "\n".join(str(row[-1]) for row in lines))
        assert plans
        return plans


@pytest.fixture(scope="module", params=STORES)
def planned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planned]:
    made = Planned(new_url(request.param, tmp_path_factory.mktemp("plans")))
    yield made
    made.store.close()


# By name, what reads, and the index that serves it in SQLite's words and in PostgreSQL's.
READS: dict[str, tuple[Callable[[Any], object], str, str]] = {
    "reopened_items": (lambda store: store.reopened_items(1, limit=5), "items_reopened", "items_reopened"),
    "next_retry_at": (lambda store: store.next_retry_at(1), "items_waiting", "items_waiting"),
    "items_between": (lambda store: store.items_between(1, 0, 30, batch=1), "PRIMARY KEY", "items_pkey"),
    "batches of a run": (
        lambda store: store.batches(run_pk=1, states={BatchState.ENDED}), "batches_by_run", "batches_by_",
    ),
    "batches of a state": (
        lambda store: store.batches(states={BatchState.SUBMITTED}), "batches_by_state", "batches_by_state",
    ),
    "what a poll reads of a run": (lambda store: store.away(1), "batches_by_run", "batches_by_"),
    "what a poll reads of all": (lambda store: store.away(), "batches_by_state", "batches_by_state"),
    "batches of intents": (lambda store: store.batches(intents=["other-1"]), "autoindex_batches", "intent_id_key"),
    "segments": (lambda store: store.segments(1), "segments_by_run", "segments_by_run"),
    "fresh_parts": (lambda store: store.fresh_parts(1, limit=5), "parts_by_run", "parts_by_run"),
    "runs by label": (
        lambda store: store.runs(labels={"team": "other-7"}), "run_labels_by_value", "run_labels_by_value",
    ),
    "scope": (lambda store: store.scope("scope"), "batches_by_scope", "batches_by_scope"),
    "run": (lambda store: store.run("r"), "autoindex_runs", "runs_run_id_key"),
    "ranges": (lambda store: store.ranges(1), "PRIMARY KEY", "batch_ranges_pkey"),
}  # fmt: skip


@pytest.mark.parametrize("name", READS)
def test_a_hot_read_uses_its_index(planned: Planned, name: str) -> None:
    act, *indexes = READS[name]
    plans = planned.plans(lambda: act(planned.store))
    assert [plan for plan in plans if SCANNED.search(plan)] == []
    assert any(indexes[0 if planned.is_sqlite else 1] in plan for plan in plans), plans


def test_the_life_of_a_batch_uses_indexes(planned: Planned) -> None:
    """Claim, submission, end, settlement with failures, and the rows that go again."""
    bench, run, lease = planned.bench, planned.run, planned.lease

    def life() -> None:
        batch = bench.submitted(run, lease, 0, 999)
        bench.store.observe([Observation(batch.pk, "in_progress", ended=False, completed=1)])
        bench.store.observe([Observation(batch.pk, "completed", ended=True)])
        moves = [ItemMove(n, ItemStatus.FAILED_RETRYABLE, 1, 0, 0.0) for n in range(0, 1000, 7)]
        bench.settle(bench.again(batch), bench.lease(f"batch:{batch.pk}"), moves)
        assert bench.store.reopen_due(run.pk, lease) == len(moves)
        again = bench.planned(run, lease, 1_000, 1_999)
        assert bench.store.move_batch(again, lease, BatchState.INTENDED)
        released = replace(again, state=BatchState.INTENDED)
        assert bench.store.release_batch(released, lease, BatchState.ABANDONED, backoff=None)

    plans = planned.plans(life)
    assert [plan for plan in plans if SCANNED.search(plan)] == []
