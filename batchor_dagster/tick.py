"""One tick of the polling sensor, step by step."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import dagster as dg

from batchor_dagster.engine_runs import newest_by_slot, runs_of, slot_of
from batchor_dagster.ledger import Ledger
from batchor_dagster.metadata import REASON_TAG, REVISION_TAG, RUN_ID_TAG, SENSOR_TAG, BatchorMetadataSet
from batchor_dagster.reports import progress_metadata
from batchor_engine import BatchRunner, RunInfo

LONGEST_PAUSE_SEC = 3600.0
# Dagster writes the observations of a tick one by one; the rest is reported by the next ticks.
MAX_OBSERVATIONS = 100

# Clocks of the machines that start runs may differ by this much.
CLOCK_MARGIN_SEC = 300.0


@dataclass(frozen=True)
class Cursor:
    """A digest of what was reported last, and the age before which every ended run is known to be delivered.

    Losing it costs look-ups, never a report or a request.
    """

    seen: str = ""
    settled_until: float = 0.0

    @classmethod
    def read(cls, text: str | None) -> Cursor:
        try:
            stored = json.loads(text or "{}")
            return cls(str(stored.get("seen", "")), float(stored.get("settled_until", 0.0)))
        except (ValueError, AttributeError, TypeError):
            return cls()

    def write(self) -> str:
        return json.dumps({"seen": self.seen, "settled_until": self.settled_until})


@dataclass
class Tick:
    """Poll, find what is open, request runs, report progress once per change; stops at `deadline` (monotonic)."""

    ledger: Ledger
    context: dg.SensorEvaluationContext
    runner: BatchRunner
    deadline: float

    def run(self) -> dg.SensorResult:
        """The result of the tick; with nothing to request, its skip reason says how far the runs are."""
        self._poll()
        before = Cursor.read(self.context.cursor)
        infos = [info for label in self.ledger.watch.keys for info in runs_of(self.runner, label)]
        working = [info for info in infos if not info.is_finished]
        undelivered, settled_until = self._undelivered(infos, before.settled_until)
        requests = list(self._requests(working, undelivered))
        observations, seen = self._observations(working, before.seen)
        open_since = min((_age(info) for info in [*working, *undelivered]), default=settled_until)
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else _progress_line(working),
            asset_events=observations,
            cursor=Cursor(seen, min(open_since, settled_until)).write(),
        )

    def _poll(self) -> None:
        report = self.runner.poll(deadline=max(0.0, self.deadline - time.monotonic()))
        for error in report.errors:
            self.context.log.warning(f"The provider did not answer: {error}")

    def _undelivered(self, infos: Sequence[RunInfo], settled_until: float) -> tuple[list[RunInfo], float]:
        """Ended runs, the latest of their partition, that Dagster does not show; and up to which age all are known."""
        latest = {info.run_id for info in newest_by_slot(infos).values()}
        since = settled_until - CLOCK_MARGIN_SEC
        ended = sorted((info for info in infos if info.is_finished and _age(info) >= since), key=_age)
        found: list[RunInfo] = []
        for info in ended:
            if self._late():
                return found, _age(info)
            if info.run_id in latest and not self.ledger.is_delivered(info):
                found.append(info)
        return found, _age(ended[-1]) if ended else settled_until

    def _requests(self, working: Sequence[RunInfo], undelivered: Sequence[RunInfo]) -> Iterator[dg.RunRequest]:
        due = [(info, "+".join(sorted(info.due))) for info in working if info.due]
        due += [(info, "deliver") for info in undelivered]
        if not due:
            return
        under_way = self.ledger.under_way()
        asked_for = self.ledger.asked_for(info for info, _ in due)
        for info, reason in due:
            earlier = asked_for.get(info.run_id, [])
            if info.run_id not in under_way and self._may_ask(earlier):
                yield self._request(info, reason, len(earlier))

    def _may_ask(self, earlier: Sequence[dg.RunRecord]) -> bool:
        """Ask again for the same revision only after a pause that doubles."""
        if not earlier:
            return True
        pause = min(self.ledger.watch.interval_sec * 2 ** len(earlier), LONGEST_PAUSE_SEC)
        return time.time() - (earlier[0].end_time or 0.0) >= pause

    def _request(self, info: RunInfo, reason: str, earlier: int) -> dg.RunRequest:
        slot = slot_of(info)
        return dg.RunRequest(
            run_key=f"{info.run_id}:{info.revision}" + (f":{earlier}" if earlier else ""),
            asset_selection=[self.ledger.watch.keys[slot.asset]],
            partition_key=slot.partition or None,
            tags={
                SENSOR_TAG: self.ledger.watch.sensor,
                RUN_ID_TAG: info.run_id,
                REVISION_TAG: str(info.revision),
                REASON_TAG: reason,
            },
        )

    def _observations(self, working: Sequence[RunInfo], seen: str) -> tuple[list[dg.AssetObservation], str]:
        """What Dagster has not been told yet, and the digest to remember; the old one while something is left."""
        digest = _digest(working)
        if digest == seen:
            return [], digest
        found: list[dg.AssetObservation] = []
        for info in working:
            if self._late() or len(found) == MAX_OBSERVATIONS:
                return found, seen
            progress = progress_metadata(info)
            if _facts(self.ledger.reported(info)) != _facts(progress):
                found.append(self._observation(info, progress))
        return found, digest

    def _observation(self, info: RunInfo, progress: BatchorMetadataSet) -> dg.AssetObservation:
        slot = slot_of(info)
        return dg.AssetObservation(
            asset_key=self.ledger.watch.keys[slot.asset], partition=slot.partition or None, metadata={**progress}
        )

    def _late(self) -> bool:
        return time.monotonic() >= self.deadline


def _age(info: RunInfo) -> float:
    return info.created_at.timestamp()


def _facts(progress: BatchorMetadataSet) -> tuple[str | int | None, ...]:
    told = progress
    return told.run_id, told.answered, told.completed, told.failed, told.control, told.control_reason


def _digest(working: Sequence[RunInfo]) -> str:
    facts = sorted([str(fact) for fact in _facts(progress_metadata(info))] for info in working)
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _progress_line(working: Sequence[RunInfo]) -> str:
    if not working:
        return "No run is in flight."
    told = [progress_metadata(info) for info in working]
    answered, rows = sum(one.answered or 0 for one in told), sum(one.rows or 0 for one in told)
    return f"{len(working)} runs in flight: {answered} of {rows} rows answered."
