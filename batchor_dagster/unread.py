"""Runs of which only a part was read, and who can read the rest.

Law: only `<name>_batch` has the job, so nothing else reads on; what was read so far is never taken for all there is.
"""

from __future__ import annotations

import dagster as dg

from batchor_dagster.engine_runs import GENERATION_LABEL, Slot, target_of
from batchor_dagster.ledger import UNFINISHED
from batchor_dagster.metadata import GENERATION_TAG
from batchor_dagster.partitions import PARTITION_TAG, range_tags
from batchor_engine import RunInfo, counted


def is_idle(info: RunInfo) -> bool:
    """True when a run was cut while it was read, and all that was read has an end: by itself nothing happens to it."""
    summary = info.summary
    open_rows = summary.total_items - summary.completed_items - summary.failed_items
    return not info.is_finished and not info.reading_finished and not open_rows and not summary.active_batches


def unread(info: RunInfo, instance: dg.DagsterInstance, submitted_by: str) -> str:
    """How the rows that were not read are read, as one sentence; empty where all were, or the run is over."""
    if info.is_finished or info.reading_finished:
        return ""
    reader = _reader(info, instance)
    if reader is None:
        return (
            f"{_read_so_far(info)}: materialize {submitted_by} with generation: resume in its launchpad to read on, "
            "or without it, which pays for all rows."
        )
    if reader.status not in UNFINISHED:
        return cut_short(info, reader.run_id, submitted_by)
    return (
        f"{_read_so_far(info)}, and Dagster run {reader.run_id} has not ended: if its worker is gone, end that run and "
        "re-execute it."
    )


def cut_short(info: RunInfo, dagster_run: str, submitted_by: str) -> str:
    """What to do about a run whose Dagster run ended before all rows were read."""
    return (
        f"{_read_so_far(info)}: re-execute Dagster run {dagster_run} to read on, or materialize {submitted_by} again, "
        "which pays for all rows."
    )


def _read_so_far(info: RunInfo) -> str:
    rows = info.summary.total_items
    where = target_of(info)
    if not rows:
        return f"Of {where} no row was read yet"
    return f"Of {where} only the first {counted(rows, 'row')} {'was' if rows == 1 else 'were'} read"


def _reader(info: RunInfo, instance: dg.DagsterInstance) -> dg.DagsterRun | None:
    """The latest Dagster run that submitted, or was to submit, this generation of the partitions."""
    generation = info.labels.get(GENERATION_LABEL, "")
    where = target_of(info)
    if isinstance(where, Slot):
        place = {PARTITION_TAG: where.partition} if where.partition else {}
    else:
        place = range_tags(where.partitions)
    for which in ({GENERATION_TAG: generation}, {"dagster/root_run_id": generation}):
        if found := instance.get_runs(dg.RunsFilter(tags={**which, **place}), limit=1):
            return found[0]
    return instance.get_run_by_id(generation)
