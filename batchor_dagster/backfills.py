"""Which partitions a backfill will still start a run for: whoever submits one before that has it paid twice.

Law: reads Dagster's records only. A backfill counts while Dagster starts runs for it, not once it is cancelled.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import dagster as dg

# The assets of a job, by the name of the job.
AssetsOfJob = Callable[[str], Collection[dg.AssetKey]]


def starting_runs(instance: dg.DagsterInstance) -> Sequence[Any]:
    """The backfills for which Dagster still starts runs; it does so in chunks, and the partitions come one by one."""
    newest = instance.get_backfills(limit=1)
    if not newest:
        return []
    # Dagster has no public name for the states that its public question takes.
    states: Any = type(newest[0].status)
    return instance.get_backfills(status=states.REQUESTED)


def assets_of_job(repository: dg.RepositoryDefinition | None, name: str) -> Collection[dg.AssetKey]:
    """What a job selects; nothing where there is no such job."""
    if repository is None or not repository.has_job(name):
        return ()
    return repository.get_job(name).asset_layer.selected_asset_keys


def left_to(backfills: Iterable[Any], key: dg.AssetKey, selected_by: AssetsOfJob) -> dict[str, str]:
    """By partition of an asset, "" without partitions: the backfill that targets it and has no run for it yet."""
    return {partition: one.backfill_id for one in backfills for partition in _awaited(one, key, selected_by)}


def _awaited(backfill: Any, key: dg.AssetKey, selected_by: AssetsOfJob) -> Collection[str]:
    data = backfill.asset_backfill_data
    if data is not None:
        # What is below a failure is never started.
        done = _partitions(data.requested_subset, key) | _partitions(data.failed_and_downstream_subset, key)
        return _partitions(data.target_subset, key) - done
    names = list(backfill.partition_names or ())
    if not names or key not in selected_by(backfill.job_name or ""):
        return ()
    last = backfill.last_submitted_partition_name
    return names[names.index(last) + 1 :] if last in names else names


def _partitions(subset: Any, key: dg.AssetKey) -> set[str]:
    some = subset.partitions_subsets_by_asset_key.get(key)
    whole = {""} if key in subset.non_partitioned_asset_keys else set[str]()
    return whole if some is None else {*some.get_partition_keys()}
