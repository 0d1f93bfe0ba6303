"""One tick of the polling sensor, step by step."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime

import dagster as dg

from batchor_dagster.engine_runs import (
    ASSET_LABEL,
    Slot,
    SlotRange,
    newest_by_slot,
    slot_of,
    slots_of,
    target_of,
    views,
)
from batchor_dagster.ledger import Ledger
from batchor_dagster.metadata import REASON_TAG, REVISION_TAG, RUN_ID_TAG, SENSOR_TAG, BatchorMetadataSet
from batchor_dagster.orphans import idle_message, orphans, orphans_message
from batchor_dagster.partitions import digest_of, existing, pieces, range_tags
from batchor_dagster.reports import answered_of, in_doubt_message, progress_metadata, unseen_message, who_waits
from batchor_dagster.resources import job_name
from batchor_dagster.unread import is_idle, unread
from batchor_engine import BatchRunner, ProviderError, RunControlState, RunInfo, counted

DELIVER = "deliver"
LONGEST_PAUSE_SEC = 3600.0
# Dagster writes the observations of a tick one by one; the rest is reported by the next ticks.
MAX_OBSERVATIONS = 100
# Dagster starts the runs of a tick one by one, too; what is left is asked for by the next ticks.
MAX_REQUESTS = 100
# Of how many runs that were cut while they were read the line of a tick names the way out.
MAX_CUT_NAMED = 3

# Clocks of the machines that start runs may differ by this much.
CLOCK_MARGIN_SEC = 300.0

# By engine run: the slots that it is the latest run of, in order.
OwnSlots = dict[str, list[Slot]]
# By engine run: what is said about how far it is.
Progress = dict[str, BatchorMetadataSet]
# A run that has ended, and where that is not shown.
Undelivered = tuple[RunInfo, list[Slot]]


@dataclass(frozen=True)
class Cursor:
    """A digest of what was reported last, and the age before which every ended run is known to be delivered.

    `settled` is the fingerprint of those runs, so that one which was retried long after its end is noticed. `wiped` is
    when assets were wiped last, and `away` stands for the partitions that assets had which lacked one of an ended run.
    Losing the cursor costs look-ups, never a report or a request.
    """

    seen: str = ""
    settled_until: float = 0.0
    settled: str = ""
    wiped: Mapping[str, str] = field(default_factory=dict[str, str])
    away: Mapping[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def read(cls, text: str | None) -> Cursor:
        try:
            stored = json.loads(text or "{}")
            seen, settled = (str(stored.get(name, "")) for name in ("seen", "settled"))
            wiped, away = (dict[str, str](stored.get(name, {})) for name in ("wiped", "away"))
            return cls(seen, float(stored.get("settled_until", 0.0)), settled, wiped, away)
        except (ValueError, AttributeError, TypeError):
            return cls()

    def unless(self, wiped: Mapping[str, str]) -> Cursor:
        """This cursor; once something more was wiped, one that takes nothing for reported or delivered."""
        gone = any(wiped.get(asset) != when for asset, when in self.wiped.items())
        back = any(when for asset, when in wiped.items() if asset not in self.wiped)
        return Cursor(wiped=wiped) if gone or back else replace(self, wiped=wiped)

    def unless_back(self, partitions: Mapping[str, str]) -> Cursor:
        """This cursor; once an asset that lacked a partition has others, one that takes nothing for delivered."""
        return self if partitions == self.away else replace(self, settled_until=0.0, settled="", away={})

    def write(self) -> str:
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class History:
    """The runs that a tick has to know: all that are open, and those that ended since `since`, an age.

    What is older was found to be delivered, and its fingerprint `settled` has not changed since then. `others` are open
    runs of assets that the sensor does not watch.
    """

    working: Sequence[RunInfo]
    others: Sequence[RunInfo]
    ended: Sequence[RunInfo]
    since: float
    settled: tuple[int, int]
    reopened_before: float

    @classmethod
    def read(cls, runner: BatchRunner, assets: Collection[str], cursor: Cursor) -> History:
        """Read as little as the cursor allows; everything once something old has changed."""
        labels = [{ASSET_LABEL: asset} for asset in assets]
        settled = _fingerprint(runner, labels, cursor.settled_until)
        since, settled = (cursor.settled_until, settled) if str(settled) == cursor.settled else (0.0, (0, 0))
        # In this order: what ends between the two is found by the second.
        found = runner.find_runs(unfinished=True)
        recent = [info for one in labels for info in runner.find_runs(one, created_after=_moment(since))]
        ended = {info.run_id: info for info in recent if info.is_finished}
        working = [info for info in found if info.labels.get(ASSET_LABEL) in assets and info.run_id not in ended]
        others = [info for info in found if info.labels.get(ASSET_LABEL) not in assets]
        reopened_before = cursor.settled_until if cursor.settled else 0.0
        return cls(working, others, list(ended.values()), since, settled, reopened_before)

    def open_since(self) -> list[float]:
        """Ages of open runs whose end is awaited soon; the end of others shows in the fingerprint."""
        return [_age(info) for info in self.working if not _is_paused(info) and _age(info) >= self.reopened_before]

    def settled_at(self, until: float) -> str:
        """The fingerprint of what ended before `until`, as this tick saw it; none where that is in the past."""
        if until < self.since:
            return ""
        more = [info for info in self.ended if info.created_at < _moment(until)]
        return str((self.settled[0] + len(more), self.settled[1] + sum(info.revision for info in more)))


@dataclass
class Tick:
    """Poll, find what is open, request runs, report progress once per change; stops at `deadline` (monotonic)."""

    ledger: Ledger
    context: dg.SensorEvaluationContext
    runner: BatchRunner
    deadline: float

    def run(self) -> dg.SensorResult:
        """The result of the tick; with nothing to request, its skip reason says how far the runs are.

        An account that refuses us turns the tick red only when there is nothing to hand to Dagster: red hands nothing.
        """
        refusal, trouble = self._poll()
        stored = Cursor.read(self.context.cursor)
        before = stored.unless(self.ledger.wipes())
        before = before.unless_back({asset: self._keys_of(asset) for asset in before.away})
        history = History.read(self.runner, self.ledger.watch.keys, before)
        own = _own_slots([*history.working, *history.ended])
        self.ledger.foresee(ended=(slot for info in history.ended for slot in own.get(info.run_id, ())))
        away = dict(before.away)
        undelivered, settled_until = self._undelivered(history, own, away)
        requests = list(self._requests(history.working, own, undelivered))
        # A cut run that a later one answers again, and that has nothing more to fetch, is nobody's concern.
        flying = [info for info in history.working if info.run_id in own or not is_idle(info)]
        told = {info.run_id: self._progress(info, own) for info in flying}
        observations, seen = self._observations(flying, told, own, before.seen)
        until = min([settled_until, *(_age(info) for info, _ in undelivered), *history.open_since()])
        cursor = Cursor(seen, until, history.settled_at(until), before.wiped, away)
        if refusal is not None and not requests and not observations and replace(cursor, wiped=stored.wiped) == stored:
            raise refusal
        key = self.ledger.watch.resource_key
        nobodys = orphans(history.others, self.context.repository_def)
        if requests and nobodys:
            self.context.log.warning(orphans_message(nobodys, key).strip())
        line = _progress_line(flying, told, nobodys, key) if flying else idle_message(history.others, nobodys, key)
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else trouble + line,
            asset_events=observations,
            cursor=cursor.write(),
        )

    def _poll(self) -> tuple[Exception | None, str]:
        """Look at the provider; what only a person can mend, such as a refused key, for after the healthy accounts.

        And a sentence on what was not seen.
        """
        try:
            report = self.runner.poll(deadline=max(0.0, self.deadline - time.monotonic()))
        except (ProviderError, ValueError, TypeError) as error:
            self.context.log.error(f"The provider could not be asked: {error}")
            return error, f"The provider could not be asked: {error} "
        for error in report.errors:
            self.context.log.warning(f"The provider did not answer: {error}")
        return None, unseen_message(report.errors)

    def _undelivered(self, history: History, own: OwnSlots, away: dict[str, str]) -> tuple[list[Undelivered], float]:
        """Ended runs, the latest of a partition, that Dagster does not show there; and up to which age all are known.

        Where Dagster has forgotten a partition nothing is shown, nor asked for, until it is back: `away` is told.
        """
        ended = sorted(history.ended, key=_age)
        found: list[Undelivered] = []
        for info in ended:
            if self._late():
                return found, _age(info)
            parts = {slot: part for slot, (_, part) in views(self.runner, info, own.get(info.run_id, ())).items()}
            lost = self.ledger.undelivered(info, parts)
            where = self._there(lost)
            if len(where) < len(lost) and (asset := lost[0].asset) not in away:
                away[asset] = self._keys_of(asset)
                # What came back before they were read would never be seen to come back.
                where = self._there(lost)
            if where:
                found.append((info, where))
        return found, _age(ended[-1]) if ended else history.since

    def _there(self, slots: Sequence[Slot]) -> list[Slot]:
        """Those that Dagster still has; a partition may have been deleted, or its definition changed."""
        if self.context.repository_def is None or not slots:
            return list(slots)
        kept = existing(self._partitions(slots[0].asset), [slot.partition for slot in slots], self.ledger.instance)
        return [slot for slot in slots if slot.partition in kept]

    def _partitions(self, asset: str) -> dg.PartitionsDefinition | None:
        repository, key = self.context.repository_def, self.ledger.watch.keys.get(asset)
        return repository.assets_defs_by_key[key].partitions_def if repository and key else None

    def _keys_of(self, asset: str) -> str:
        """What stands for the partitions that an asset has now."""
        return digest_of(self._partitions(asset), self.ledger.instance)

    def _requests(
        self, working: Sequence[RunInfo], own: OwnSlots, undelivered: Sequence[Undelivered]
    ) -> Iterator[dg.RunRequest]:
        due = [
            (info, "+".join(sorted(info.due)), own.get(info.run_id) or slots_of(info)) for info in working if info.due
        ]
        due += [(info, DELIVER, where) for info, where in undelivered]
        if not due:
            return
        under_way = self.ledger.under_way()
        asked_for = self.ledger.asked_for(info for info, _, _ in due)
        count = 0
        for info, reason, where in due:
            if count >= MAX_REQUESTS:
                return
            earlier = asked_for.get(info.run_id, [])
            if info.run_id not in under_way and self._may_ask(earlier):
                places = self._places(info, where)
                # One run is enough to go on with; what has ended is delivered wherever it belongs.
                some = places if reason == DELIVER else places[:1]
                count += len(some)
                yield from (self._request(info, reason, earlier, one, alone=len(some) == 1) for one in some)

    def _places(self, info: RunInfo, slots: Sequence[Slot]) -> list[list[str]]:
        """The partitions to ask for, in pieces of one run each: a run that fails turns red whatever it was for."""
        there = [slot.partition for slot in self._there(slots)]
        if not there:
            self.context.log.warning(
                f"Dagster has no partition of {target_of(info)} any more: {info.run_id} is left alone. Job "
                f"{job_name('collect', self.ledger.watch.resource_key)} fetches what is paid."
            )
            return []
        partitions = self._partitions(slots[0].asset)
        if len(there) == 1 or partitions is None:
            return [there]
        return pieces(partitions, there, [slot.partition for slot in slots_of(info)], self.ledger.instance)

    def _may_ask(self, earlier: Sequence[dg.RunRecord]) -> bool:
        """Ask again for the same revision only after a pause that doubles."""
        if not earlier:
            return True
        pause = min(self.ledger.watch.interval_sec * 2 ** len(earlier), LONGEST_PAUSE_SEC)
        return time.time() - (earlier[0].end_time or 0.0) >= pause

    def _request(
        self, info: RunInfo, reason: str, earlier: Sequence[dg.RunRecord], keys: Sequence[str], *, alone: bool
    ) -> dg.RunRequest:
        several = len(keys) > 1
        # A count of those before would come again once one is deleted, and a key that a run has starts no other.
        after = f":{earlier[0].dagster_run.run_id}" if earlier else ""
        return dg.RunRequest(
            run_key=f"{info.run_id}:{info.revision}{after}" + _piece(keys, alone),
            asset_selection=self.ledger.watch.selection(slot_of(info).asset),
            # A round that delivers nothing would leave each planned check "Skipped"; one that delivers has its checks.
            asset_check_keys=[],
            partition_key=None if several else keys[0] or None,
            tags={
                **(range_tags(keys) if several else {}),
                SENSOR_TAG: self.ledger.watch.sensor,
                RUN_ID_TAG: info.run_id,
                REVISION_TAG: str(info.revision),
                REASON_TAG: reason,
            },
        )

    def _progress(self, info: RunInfo, own: OwnSlots) -> BatchorMetadataSet:
        """How far a run is; who reads the rest of its rows is said where no later run does."""
        watch = self.ledger.watch
        submitted_by = watch.submitted_by.get(slot_of(info).asset, "its batch asset")
        reading = unread(info, self.ledger.instance, submitted_by) if info.run_id in own else ""
        return progress_metadata(info, watch.resource_key, reading=reading)

    def _observations(
        self, working: Sequence[RunInfo], told: Progress, own: OwnSlots, seen: str
    ) -> tuple[list[dg.AssetObservation], str]:
        """What Dagster has not been told yet, and the digest to remember; the old one while something is left.

        A run is observed on the first partition that it is the latest of, for an older one would belie a newer.
        """
        working = [info for info in working if info.run_id in own]
        digest = _digest(told[info.run_id] for info in working)
        if digest == seen:
            return [], digest
        self.ledger.foresee(working=(own[info.run_id][0] for info in working))
        found: list[dg.AssetObservation] = []
        for info in working:
            if self._late() or len(found) == MAX_OBSERVATIONS:
                return found, seen
            progress = told[info.run_id]
            slot = own[info.run_id][0]
            if _facts(self.ledger.reported(slot)) != _facts(progress):
                where = target_of(info)
                several = BatchorMetadataSet(partitions=str(where) if isinstance(where, SlotRange) else None)
                found.append(
                    dg.AssetObservation(
                        asset_key=self.ledger.watch.keys[slot.asset],
                        partition=slot.partition or None,
                        description=" ".join(filter(None, [progress.paused, progress.reading])) or None,
                        metadata={**progress, **several},
                    )
                )
        return found, digest

    def _late(self) -> bool:
        return time.monotonic() >= self.deadline


def _piece(keys: Sequence[str], alone: bool) -> str:
    return "" if alone else f"@{keys[0]}"


def _own_slots(infos: Iterable[RunInfo]) -> OwnSlots:
    found: OwnSlots = {}
    for slot, info in newest_by_slot(infos).items():
        found.setdefault(info.run_id, []).append(slot)
    return found


def _age(info: RunInfo) -> float:
    return info.created_at.timestamp()


def _moment(until: float) -> datetime:
    """An age less what clocks may differ."""
    return datetime.fromtimestamp(max(0.0, until - CLOCK_MARGIN_SEC), UTC)


def _fingerprint(runner: BatchRunner, labels: Iterable[dict[str, str]], until: float) -> tuple[int, int]:
    found = [runner.fingerprint(one, created_before=_moment(until), finished=True) for one in labels]
    return sum(count for count, _ in found), sum(revisions for _, revisions in found)


def _is_paused(info: RunInfo) -> bool:
    return info.summary.control_state is RunControlState.PAUSED


def _facts(progress: BatchorMetadataSet) -> tuple[str | int | None, ...]:
    counts = progress.answered, progress.completed, progress.failed
    return progress.run_id, *counts, progress.control, progress.control_reason, progress.in_doubt, progress.reading


def _digest(told: Iterable[BatchorMetadataSet]) -> str:
    facts = sorted([str(fact) for fact in _facts(progress)] for progress in told)
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _progress_line(
    working: Sequence[RunInfo], progress: Progress, nobodys: Sequence[RunInfo], resource_key: str
) -> str:
    left = orphans_message(nobodys, resource_key)
    told = [progress[info.run_id] for info in working]
    answered, rows = sum(one.answered or 0 for one in told), sum(one.rows or 0 for one in told)
    doubts = in_doubt_message(sum(one.in_doubt or 0 for one in told), resource_key)
    all_read = all(info.reading_finished for info in working)
    line = f"{counted(len(working), 'run')} in flight: {answered_of(answered, rows, all_read=all_read)}."
    return "".join([line, *_pauses(told), who_waits(working), *_cuts(told), doubts, left])


def _cuts(told: Iterable[BatchorMetadataSet]) -> Iterator[str]:
    """A sentence for each of the first runs of which only a part was read."""
    cuts = [one.reading for one in told if one.reading]
    yield from (f" {reading}" for reading in cuts[:MAX_CUT_NAMED])
    if (more := len(cuts) - MAX_CUT_NAMED) > 0:
        yield f" {counted(more, 'more run')} {'was' if more == 1 else 'were'} read in part."


def _pauses(told: Iterable[BatchorMetadataSet]) -> Iterator[str]:
    """A sentence for each reason for which runs are paused."""
    for why, count in Counter(one.paused for one in told if one.paused).items():
        yield f" {counted(count, 'run')} {'is' if count == 1 else 'are'} paused. {why}"
