"""Which engine run belongs to which asset and partition: the one place that reads and writes run labels.

Law: the same asset, partition and generation always give the same run id, so that a repeated submission resumes a run
and never pays for a second one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any

import dagster as dg

from batchor_dagster.metadata import GENERATION_TAG
from batchor_engine import BatchRunner, Run, RunControlState, RunInfo

ASSET_LABEL = "asset"
PARTITION_LABEL = "partition"
GENERATION_LABEL = "generation"
# Of a run for several partitions: their keys as a JSON list, and one label for each, to find the run by it.
PARTITIONS_LABEL = "partitions"
_MEMBER_LABEL, _IS_MEMBER = "partition:{}", "yes"
# How generations of submission sensors begin.
DUE = "due:"
# In this order: a re-executed backfill starts new runs, which share nothing with the old ones but these tags.
_GENERATION_TAGS = (GENERATION_TAG, "dagster/root_backfill_id", "dagster/backfill")


@dataclass(frozen=True)
class Slot:
    """An asset and one of its partitions; the empty partition means that the asset has none."""

    asset: str
    partition: str = ""

    def labels(self, **more: str) -> dict[str, str]:
        return {ASSET_LABEL: self.asset, PARTITION_LABEL: self.partition, **more}

    def run_id(self, generation: str) -> str:
        """A readable id that is stable for this slot and generation."""
        return _run_id(self.asset, self.partition, [self.asset, self.partition, generation])

    def __str__(self) -> str:
        return f"{self.asset}[{self.partition}]" if self.partition else self.asset


@dataclass(frozen=True)
class SlotRange:
    """An asset and several of its partitions, in order, that one engine run answers together."""

    asset: str
    partitions: tuple[str, ...]

    def labels(self, **more: str) -> dict[str, str]:
        labels = {ASSET_LABEL: self.asset, PARTITIONS_LABEL: self.keys_label()}
        for key in self.partitions:
            labels |= member_label(key)
        return {**labels, **more}

    def keys_label(self) -> str:
        return json.dumps(self.partitions)

    def run_id(self, generation: str) -> str:
        """Stable for the ends of the range: other partitions between the same ends are a clash, never a second run."""
        first, last = self.partitions[0], self.partitions[-1]
        return _run_id(self.asset, f"{_slug(first)[:28]}--{_slug(last)[:28]}", [self.asset, [first, last], generation])

    def __str__(self) -> str:
        return f"{self.asset}[{self.partitions[0]}...{self.partitions[-1]}]"


def target(asset: str, partitions: Collection[str]) -> Slot | SlotRange:
    """What one engine run is for: an asset without partitions, with one, or with several."""
    return SlotRange(asset, tuple(partitions)) if len(partitions) > 1 else Slot(asset, *partitions)


def member_label(partition: str) -> dict[str, str]:
    """The label of a run for several partitions that this one is among."""
    return {_MEMBER_LABEL.format(partition): _IS_MEMBER}


def asset_label(key: dg.AssetKey) -> str:
    """The label under which the engine knows a result asset."""
    return key.to_user_string()


def target_of(info: RunInfo) -> Slot | SlotRange:
    """What a run was started for."""
    asset = info.labels.get(ASSET_LABEL, "")
    if PARTITIONS_LABEL in info.labels:
        return SlotRange(asset, tuple(json.loads(info.labels[PARTITIONS_LABEL])))
    return Slot(asset, info.labels.get(PARTITION_LABEL, ""))


def slots_of(info: RunInfo) -> list[Slot]:
    """Every slot that a run answers; their position, from 1, is the number of their group of rows."""
    found = target_of(info)
    return [found] if isinstance(found, Slot) else [Slot(found.asset, key) for key in found.partitions]


def slot_of(info: RunInfo) -> Slot:
    """The slot that a run answers, the first one where there are several."""
    return slots_of(info)[0]


def generation_of(run: dg.DagsterRun, instance: dg.DagsterInstance) -> str:
    """What a Dagster run, its re-executions and those of its backfill have in common."""
    root = instance.get_run_by_id(run.root_run_id) if run.root_run_id else run
    # Dagster copies the tags of a run to its re-executions, so they still tell when the root was deleted.
    tags = (root or run).tags
    fallback = run.root_run_id or run.run_id
    return next((tags[tag] for tag in _GENERATION_TAGS if tag in tags), fallback)


def due_prefix(asset: str) -> str:
    """How the generations of an asset begin that submission sensors submit."""
    return f"{DUE}{asset}["


def due_generation(slot: Slot) -> str:
    """The generation in which a submission sensor submits a slot; with "@" and a mark behind it, again."""
    return f"{due_prefix(slot.asset)}{slot.partition}]"


def runs_of(runner: BatchRunner, asset: str) -> list[RunInfo]:
    return runner.find_runs(labels={ASSET_LABEL: asset})


def newest_run(runner: BatchRunner, slot: Slot) -> RunInfo | None:
    """The run of the latest generation, finished or not, for this slot alone or for others too."""
    member = {ASSET_LABEL: slot.asset, **member_label(slot.partition)}
    shared = runner.find_runs(labels=member, limit=1) if slot.partition else []
    return max([*runner.find_runs(labels=slot.labels(), limit=1), *shared], key=_age_key, default=None)


def latest_for(runner: BatchRunner, where: Slot | SlotRange) -> RunInfo | None:
    """The latest run that was started for exactly these partitions."""
    which = {PARTITION_LABEL: where.partition} if isinstance(where, Slot) else {PARTITIONS_LABEL: where.keys_label()}
    return next(iter(runner.find_runs(labels={ASSET_LABEL: where.asset, **which}, limit=1)), None)


def newest_by_slot(infos: Iterable[RunInfo]) -> dict[Slot, RunInfo]:
    """The latest generation of each slot."""
    return {slot: info for info in sorted(infos, key=_age_key) for slot in slots_of(info)}


def views(runner: BatchRunner, info: RunInfo, slots: Iterable[Slot]) -> dict[Slot, tuple[Run, RunInfo]]:
    """For each of these slots of a run: a handle on its rows alone, and the facts with its counts."""
    run, members = runner.get_run(info.run_id), slots_of(info)
    if isinstance(target_of(info), Slot):
        return dict.fromkeys(slots, (run, info))
    groups = run.by_group()
    found: dict[Slot, tuple[Run, RunInfo]] = {}
    for slot in slots:
        number = members.index(slot) + 1
        rows = groups[number] if number in groups else run.group(number)
        kept = {name: value for name, value in info.labels.items() if name != PARTITIONS_LABEL}
        facts = replace(info, summary=rows.known_summary, labels=slot.labels(**kept))
        found[slot] = rows, facts
    return found


def answers_by_partition(
    runner: BatchRunner, asset: str, partitions: Iterable[str], *, lost_too: bool = False
) -> dict[str, Run]:
    """For each partition the rows of the latest run that has ended with at least one answer, or without any row.

    With `lost_too` also of one that has nothing to deliver.
    """
    wanted = [Slot(asset, key) for key in partitions]
    open_slots, found = set(wanted), dict[Slot, Run]()
    for info in sorted(runs_of(runner, asset), key=_age_key, reverse=True):
        asked = open_slots.intersection(slots_of(info)) if info.is_finished else set[Slot]()
        for slot, (rows, facts) in views(runner, info, asked).items() if asked else ():
            if lost_too or not is_lost(facts):
                found[slot] = rows
                open_slots.discard(slot)
    return {slot.partition: found[slot] for slot in wanted if slot in found}


def doubts(info: RunInfo) -> int:
    """Submissions of which nobody can say whether the provider has them; they wait for an operator."""
    return sum(batch.state == "indeterminate" for batch in info.batches)


def is_cancelled(info: RunInfo) -> bool:
    return info.summary.control_state is RunControlState.CANCEL_REQUESTED


def is_lost(info: RunInfo) -> bool:
    """True when a run ended with nothing to deliver: it was cancelled, or not one of its rows has an answer.

    A cancel may leave rows unread in the source, so that what was answered is a part of nobody knows what.
    """
    nothing = info.summary.failed_items > 0 and info.summary.completed_items == 0
    return info.is_finished and (is_cancelled(info) or nothing)


def lost_outcome(info: RunInfo) -> str:
    """What a run without anything to deliver ended with; another text once it ended in another way."""
    return f"{info.run_id}:{info.summary.completed_items}:{info.summary.failed_items}"


def _age_key(info: RunInfo) -> tuple[float, str]:
    return info.created_at.timestamp(), info.run_id


def _run_id(asset: str, where: str, identity: list[Any]) -> str:
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]
    return "-".join(part for part in (_slug(asset), _slug(where), digest) if part)


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-")[:60]
