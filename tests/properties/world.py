"""What the state machine acts on: a store, a cloud, two workers, some runs; and what must hold whatever happens.

Law: the engine's books are read through public calls only, the provider's from the cloud itself.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from batchor_engine import (
    BatchItem,
    BatchJob,
    ChunkPolicy,
    OpenAIEnqueueLimitConfig,
    OpenAIProviderConfig,
    RetryPolicy,
    Run,
    RunControlState,
)
from batchor_engine.errors import LeaseLostError, RunBusyError
from batchor_engine.results.segments import read_rows
from batchor_engine.runtime.hold import LEASE_SEC
from batchor_engine.testing import CrashError, ManualClock, check_invariants

from ..stores import STORES, new_url
from .cloud import COUNTED, GOOD, PAID, Cloud, Line
from .mortal import Worker, bury

MARGIN_SEC = 120.0
ROUNDS = 400


class World:
    """Two workers, a cloud and the runs that were started."""

    def __init__(self, base_url: str | None = None, *, kind: str = STORES[0]) -> None:
        self.base_url = base_url
        self.folder = Path(tempfile.mkdtemp(prefix="batchor-machine-"))
        self.store_url = new_url(kind, self.folder)
        self.clock = ManualClock()
        self.cloud = Cloud(lambda: self.clock.now().timestamp())
        self.jobs: dict[str, BatchJob[Any, Any]] = {}
        self.cancelled: dict[str, int] = {}
        self.deaths: Counter[str] = Counter()
        self.stalls: Counter[str] = Counter()
        self.lost_leases = 0
        self._checked: list[tuple[str, int]] = []
        self.workers = [self.new_worker(), self.new_worker()]

    def new_worker(self) -> Worker:
        return Worker(
            self.store_url,
            self.folder / "artifacts",
            self.clock,
            self.cloud,
            late_call_margin_sec=MARGIN_SEC,
            base_url=self.base_url,
        )

    def close(self) -> None:
        for worker in self.workers:
            worker.close()
        shutil.rmtree(self.folder)

    # --- acting

    def act(self, at: int, what: str, run_id: str, **options: Any) -> None:
        """One call of one worker. It may die, or find that it was taken over; nothing else may come out."""
        worker = self.workers[at]
        try:
            self._do(worker, what, run_id, options)
        except CrashError:
            self.deaths[worker.mortality.place] += 1
            worker.close()
            self.workers[at] = self.new_worker()
        except (LeaseLostError, RunBusyError):
            self.lost_leases += 1
        self._note_cancel(run_id)

    def _do(self, worker: Worker, what: str, run_id: str, options: dict[str, Any]) -> None:
        if what == "start":
            self._start(worker, run_id)
        elif what == "poll":
            worker.runner.poll()
        elif (run := self.run(worker, run_id)) is not None:
            getattr(run, what)(**options)

    def _start(self, worker: Worker, run_id: str) -> None:
        try:
            worker.runner.start(self.jobs[run_id], run_id=run_id)
            worker.started.add(run_id)
        except RunBusyError as error:
            # The other worker died, or is stalled, within the first start of this run.
            if "just being created" not in str(error):
                raise

    def run(self, worker: Worker, run_id: str) -> Run | None:
        return None if worker.storage.run(run_id) is None else worker.runner.get_run(run_id)

    def _note_cancel(self, run_id: str) -> None:
        stored = self.workers[0].storage.run(run_id)
        if stored is None:
            return
        if stored.control is RunControlState.CANCEL_REQUESTED:
            self.cancelled.setdefault(run_id, self.sent(run_id))
        elif run_id in self.cancelled:
            raise AssertionError(f"cancelled run {run_id} is {stored.control} again")

    def sent(self, run_id: str) -> int:
        """How many batches of a run the provider has, those that are still on their way included."""
        arrived = sum(batch.metadata["run_id"] == run_id for batch in self.cloud.batches)
        return arrived + sum(metadata["run_id"] == run_id for _, _, metadata in self.cloud.under_way)

    def stall_in(self, at: int, effects: int) -> None:
        self.workers[at].mortality.arm(effects, lambda where: self._stall(at, where))

    def _stall(self, at: int, where: str) -> None:
        self.stalls[where] += 1
        self._takes_over(1 - at)

    def _takes_over(self, at: int) -> None:
        """Let the other worker do all it can after the lease of this one has run out."""
        self.clock.advance(LEASE_SEC + 1)
        for run_id in self.open_runs():
            self._do(self.workers[at], "start", run_id, {})
            self._do(self.workers[at], "refresh", run_id, {})
        self.cloud.work()

    # --- healing

    def heal(self) -> None:
        """No more faults; every run must come to its end, whoever died where."""
        self.cloud.heal()
        for worker in self.workers:
            worker.mortality.disarm()
            worker.close()
        self.workers = [self.new_worker(), self.new_worker()]
        # What is still on its way arrives, and the provider is quicker than the next poll.
        self.clock.advance(MARGIN_SEC)
        for _ in range(4):
            self.cloud.work()
        for round_ in range(ROUNDS):
            open_runs = self.open_runs()
            if not open_runs:
                self._touch_finished()
                return
            for run_id in open_runs:
                self._push(self.workers[round_ % 2], run_id)
            self.cloud.work()
            self.clock.advance(40.0)
        states = {run_id: self.workers[0].runner.get_run(run_id).summary() for run_id in open_runs}
        raise AssertionError(f"not finished after {ROUNDS} rounds: {states}")

    def _touch_finished(self) -> None:
        """Whoever died right after the last row left its tidying to the next one who looks."""
        for run_id in self.jobs:
            self.workers[0].runner.get_run(run_id).refresh()

    def open_runs(self) -> list[str]:
        stored = {run.run_id: run for run in self.workers[0].storage.runs()}
        return [run_id for run_id in self.jobs if run_id not in stored or not stored[run_id].is_finished]

    def _push(self, worker: Worker, run_id: str) -> None:
        run = self.run(worker, run_id)
        if run is not None and run.control_state is RunControlState.PAUSED:
            run.resume()
        if run is None or not run.is_finished:
            self._start(worker, run_id)
        run = self.run(worker, run_id)
        if run is not None:
            run.refresh()

    # --- what must hold

    def problems(self) -> list[str]:
        """Broken laws at any moment."""
        found = self._broken_books()
        twins = [intent for intent, count in self.cloud.intents().items() if count > 1]
        found += [f"intent {intent} was worked on twice" for intent in twins]
        found += [f"{item} was answered and paid {len(lines)} times" for item, lines in self._bought_again()]
        found += [
            f"run {run_id} was cancelled and sent again"
            for run_id, sent in self.cancelled.items()
            if self.sent(run_id) > sent
        ]
        return found

    def _broken_books(self) -> list[str]:
        """check_invariants(), once for each state that the store was in."""
        runner = self.workers[0].runner
        revisions = [(run.run_id, run.revision) for run in runner.storage.runs()]
        if revisions == self._checked:
            return []
        self._checked = revisions
        return check_invariants(runner, files=False)

    def _bought_again(self) -> list[tuple[str, list[Line]]]:
        """Rows with more than one line that a client could read as an answer."""
        good: dict[tuple[str, str], list[Line]] = defaultdict(list)
        for batch in self.cloud.batches:
            for line in batch.lines:
                if line.kind in GOOD:
                    good[batch.metadata["run_id"], line.item_id].append(line)
        return [(f"{run}/{item}", lines) for (run, item), lines in good.items() if len(lines) > 1]

    def final_problems(self) -> list[str]:
        """Broken laws once every run is over."""
        runner = self.workers[0].runner
        found = [*self.problems(), *check_invariants(runner)]
        for run_id, job in self.jobs.items():
            found += [f"run {run_id}: {problem}" for problem in self._final_problems_of(run_id, job)]
        return found

    def _final_problems_of(self, run_id: str, job: BatchJob[Any, Any]) -> list[str]:
        run = self.workers[0].runner.get_run(run_id)
        results = run.results()
        wanted = [item.item_id for item in job.items]
        got = [result.item_id for result in results]
        found = []
        if got != (wanted[: len(got)] if run_id in self.cancelled else wanted):
            found.append(f"rows out are {got}, rows in are {wanted}")
        if run_id in self.cancelled and run.control_state is not RunControlState.CANCEL_REQUESTED:
            found.append(f"cancelled, but the end is {run.control_state}")
        ledger = self.ledger(run_id)
        lines = [one for batch in self.cloud.batches if batch.metadata["run_id"] == run_id for one in batch.lines]
        paid = {(one.batch_id, one.custom_id) for one in lines if one.kind in PAID and one.readable}
        found += [f"paid line {key} is not in the ledger" for key in sorted(paid - ledger)]
        tried = Counter(one.item_id for one in lines if one.kind in COUNTED)
        found += [
            f"{one.item_id} has {one.attempt_count} attempts, {tried[one.item_id]} lines count"
            for one in results
            if one.attempt_count != tried[one.item_id]
        ]
        return found

    def ledger(self, run_id: str) -> set[tuple[str, str]]:
        """Every collected line of a run, as (remote batch, custom id)."""
        runner = self.workers[0].runner
        stored = runner.storage.run(run_id)
        assert stored is not None
        remote = {batch.pk: str(batch.provider_batch_id) for batch in runner.storage.batches(run_pk=stored.pk)}
        found: set[tuple[str, str]] = set()
        for segment in runner.storage.segments(stored.pk):
            with runner.host.artifacts(stored).local_file(segment.key) as path:
                rows = [row for row in read_rows(path, final_only=False) if row.ref is not None]
                found |= {(remote[segment.batch or 0], str(row.custom_id)) for row in rows}
        return found


def make_job(rows: int, *, batch_rows: int, budget: int = 0) -> BatchJob[Any, Any]:
    """A small job; `budget` in tokens, of which a row has about thirty."""
    limits = OpenAIEnqueueLimitConfig(enqueued_token_limit=budget, target_ratio=1.0)
    return BatchJob(
        items=[BatchItem(f"row-{n}", n, {"n": n}) for n in range(rows)],
        build_prompt=lambda item: f"Say {item.payload}",
        provider_config=OpenAIProviderConfig(model="no-tokenizer", enqueue_limits=limits),
        chunk_policy=ChunkPolicy(max_requests=batch_rows),
        retry_policy=RetryPolicy(max_attempts=3, base_backoff_sec=1.0, max_backoff_sec=30.0),
    )


__all__ = ["LEASE_SEC", "MARGIN_SEC", "World", "bury", "make_job"]
