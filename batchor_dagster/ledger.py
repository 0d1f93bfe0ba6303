"""What Dagster's own records say about engine runs: reported, delivered, asked for. Reads only."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import dagster as dg

from batchor_dagster.engine_runs import Slot, is_lost, lost_outcome, slot_of, slots_of
from batchor_dagster.latest import IDS_AT_ONCE, Latest
from batchor_dagster.metadata import OUTCOME_TAG, REVISION_TAG, RUN_ID_TAG, SENSOR_TAG, BatchorMetadataSet
from batchor_dagster.partitions import is_within
from batchor_dagster.resources import RESOURCE
from batchor_engine import RunInfo

UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


# A run that began this long ago and has not ended is taken for dead.
GIVEN_UP_SEC = 1800.0
# Of the Dagster runs for one engine run, how many of the latest are looked at.
MAX_RECALLED = 100


def is_given_up(record: dg.RunRecord) -> bool:
    """True for a run that has begun and said nothing for so long that its worker must be gone; never while queued."""
    begun = record.dagster_run.status in {dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED}
    return begun and time.time() - record.update_timestamp.timestamp() > GIVEN_UP_SEC


@dataclass(frozen=True)
class Watch:
    """What a sensor looks after: its name, the result assets, its interval in seconds, the assets of failed rows, and
    the names of the assets that submit.

    Assets stand under the engine's label of the result asset. They are all of one resource.
    """

    sensor: str
    keys: Mapping[str, dg.AssetKey]
    interval_sec: float
    failures: Mapping[str, dg.AssetKey] = field(default_factory=dict[str, dg.AssetKey])
    submitted_by: Mapping[str, str] = field(default_factory=dict[str, str])
    resource_key: str = RESOURCE

    def selection(self, asset: str) -> list[dg.AssetKey]:
        """What is materialized for a result asset: itself, and the asset of its failed rows where it has one."""
        return [self.keys[asset], *([self.failures[asset]] if asset in self.failures else [])]


@dataclass(frozen=True)
class Ledger:
    """The records of one instance about what one sensor watches."""

    instance: dg.DagsterInstance
    watch: Watch

    def foresee(self, *, working: Iterable[Slot] = (), ended: Iterable[Slot] = ()) -> None:
        """Read what was reported of the one and shown of the other in a few queries, whatever their number."""
        for latest, slots in ((self._observed, working), (self._materialized, ended)):
            by_asset: dict[str, list[str]] = defaultdict(list)
            for slot in slots:
                by_asset[slot.asset].append(slot.partition)
            for asset, partitions in by_asset.items():
                latest.foresee(self.watch.keys[asset], partitions)

    def wipes(self) -> dict[str, str]:
        """When each watched asset was last wiped, "" for never; one that shows nothing since is not in it."""
        found = self.instance.get_asset_records(list(self.watch.keys.values()))
        details = {one.asset_entry.asset_key.to_user_string(): one.asset_entry.asset_details for one in found}
        return {name: str(one.last_wipe_timestamp or "") if one else "" for name, one in details.items()}

    def reported(self, slot: Slot) -> BatchorMetadataSet:
        """What the latest observation of an asset and partition says; an empty set without one."""
        return BatchorMetadataSet.extract(self._observed.of(*self._place(slot)))

    def undelivered(self, info: RunInfo, parts: Mapping[Slot, RunInfo]) -> list[Slot]:
        """Where an asset does not show the outcome of this ended run: its rows, or a red run where it has none.

        `parts` are the facts about its rows in each partition that has no later run.
        """
        lost = [slot for slot, part in parts.items() if is_lost(part)]
        told = self._turned_red(info, lost) if lost else set[Slot]()
        return [slot for slot, part in parts.items() if not (slot in told if slot in lost else self._shows(part))]

    def _shows(self, info: RunInfo) -> bool:
        shown = BatchorMetadataSet.extract(self._materialized.of(*self._place(slot_of(info))))
        outcome = (info.run_id, info.summary.completed_items, info.summary.failed_items)
        return (shown.run_id, shown.completed, shown.failed) == outcome

    def under_way(self) -> set[str]:
        """Engine runs for which a Dagster run of this sensor has not ended, as far as one can tell.

        A worker that was killed leaves its run "started" for ever where Dagster does not monitor runs. So a run that
        began long ago stands in nobody's way: should it live, the engine's leases keep the two apart.
        """
        mine = dg.RunsFilter(tags={SENSOR_TAG: self.watch.sensor}, statuses=UNFINISHED)
        return {
            record.dagster_run.tags[RUN_ID_TAG]
            for record in self.instance.get_run_records(mine)
            if not is_given_up(record)
        }

    def asked_for(self, infos: Iterable[RunInfo]) -> dict[str, list[dg.RunRecord]]:
        """By engine run: the Dagster runs that this sensor asked for at its present revision, newest first."""
        revisions = {info.run_id: str(info.revision) for info in infos}
        found: dict[str, list[dg.RunRecord]] = defaultdict(list)
        ids = list(revisions)
        for start in range(0, len(ids), IDS_AT_ONCE):
            for record in self._records_with(ids[start : start + IDS_AT_ONCE]):
                tags = record.dagster_run.tags
                if tags.get(REVISION_TAG) == revisions[tags[RUN_ID_TAG]]:
                    found[tags[RUN_ID_TAG]].append(record)
        return found

    def _records_with(self, run_ids: Sequence[str]) -> Sequence[dg.RunRecord]:
        return self.instance.get_run_records(dg.RunsFilter(tags={SENSOR_TAG: self.watch.sensor, RUN_ID_TAG: run_ids}))

    def _turned_red(self, info: RunInfo, lost: Iterable[Slot]) -> set[Slot]:
        """Those of which the last run that this sensor asked for said so; one that died on the way said nothing."""
        mine = {SENSOR_TAG: self.watch.sensor, RUN_ID_TAG: info.run_id}
        latest = self.instance.get_runs(dg.RunsFilter(tags=mine, statuses=ENDED), limit=MAX_RECALLED)
        stored = [slot.partition for slot in slots_of(info)]
        last = {
            slot: next((run for run in latest if is_within(run.tags, slot.partition, stored)), None) for slot in lost
        }
        outcome = lost_outcome(info)
        return {slot for slot, run in last.items() if run and run.is_failure and run.tags.get(OUTCOME_TAG) == outcome}

    @cached_property
    def _observed(self) -> Latest:
        return Latest(self.instance, dg.DagsterEventType.ASSET_OBSERVATION)

    @cached_property
    def _materialized(self) -> Latest:
        return Latest(self.instance, dg.DagsterEventType.ASSET_MATERIALIZATION)

    def _place(self, slot: Slot) -> tuple[dg.AssetKey, str]:
        return self.watch.keys[slot.asset], slot.partition
