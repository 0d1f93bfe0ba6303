"""Which engine run belongs to which asset and partition: the one place that reads and writes run labels.

Law: the same asset, partition and generation always give the same run id, so that a repeated submission resumes a run
and never pays for a second one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

import dagster as dg

from batchor_dagster.metadata import GENERATION_TAG
from batchor_engine import BatchRunner, RunControlState, RunInfo

ASSET_LABEL = "asset"
PARTITION_LABEL = "partition"
GENERATION_LABEL = "generation"
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
        text = json.dumps([self.asset, self.partition, generation])
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        return "-".join(part for part in (_slug(self.asset), _slug(self.partition), digest) if part)

    def __str__(self) -> str:
        return f"{self.asset}[{self.partition}]" if self.partition else self.asset


def asset_label(key: dg.AssetKey) -> str:
    """The label under which the engine knows a result asset."""
    return key.to_user_string()


def slot_of(info: RunInfo) -> Slot:
    return Slot(info.labels.get(ASSET_LABEL, ""), info.labels.get(PARTITION_LABEL, ""))


def generation_of(run: dg.DagsterRun, instance: dg.DagsterInstance) -> str:
    """What a Dagster run, its re-executions and those of its backfill have in common."""
    root = instance.get_run_by_id(run.root_run_id) if run.root_run_id else run
    tags = root.tags if root else {}
    fallback = run.root_run_id or run.run_id
    return next((tags[tag] for tag in _GENERATION_TAGS if tag in tags), fallback)


def runs_of(runner: BatchRunner, asset: str) -> list[RunInfo]:
    return runner.find_runs(labels={ASSET_LABEL: asset})


def newest_run(runner: BatchRunner, slot: Slot) -> RunInfo | None:
    """The run of the latest generation, finished or not."""
    return max(runner.find_runs(labels=slot.labels()), key=_age_key, default=None)


def run_info(runner: BatchRunner, slot: Slot, run_id: str) -> RunInfo:
    """The facts about one run of a slot."""
    found = next((info for info in runner.find_runs(labels=slot.labels()) if info.run_id == run_id), None)
    if found is None:
        raise ValueError(f"Run {run_id} does not belong to {slot}.")
    return found


def newest_by_slot(infos: Iterable[RunInfo]) -> dict[Slot, RunInfo]:
    """The latest generation of each slot."""
    return {slot_of(info): info for info in sorted(infos, key=_age_key)}


def answers_by_partition(runner: BatchRunner, asset: str) -> dict[str, RunInfo]:
    """For each partition the latest run that has ended with at least one answer, or without any row."""
    ended = [info for info in runs_of(runner, asset) if info.is_finished and not is_lost(info)]
    return {slot.partition: info for slot, info in newest_by_slot(ended).items()}


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


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-")[:60]
