"""Which partitions a backfill will still start a run for: whoever submits one before that has it paid twice.

Law: reads Dagster's records only. A backfill counts while Dagster starts runs for it, not once it is cancelled.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg


@dataclass(frozen=True)
class CodeLocation:
    """The definitions of whoever asks and the name of their code location, as far as these are known."""

    repository: dg.RepositoryDefinition | None
    name: str | None

    def assets_of_job(self, job: str, origin: Any) -> Collection[dg.AssetKey]:
        """What a job selects; nothing where this code location has no such job, and another one's may be called so.

        `origin` is the job's repository as Dagster records it, None where it does not.
        """
        if self.repository is None or self._is_elsewhere(self.repository.name, origin):
            return ()
        return self.repository.get_job(job).asset_layer.selected_asset_keys if self.repository.has_job(job) else ()

    def _is_elsewhere(self, repository: str, origin: Any) -> bool:
        if origin is None or self.name is None:
            return False
        return (self.name, repository) != (origin.code_location_origin.location_name, origin.repository_name)


def starting_runs(instance: dg.DagsterInstance) -> Sequence[Any]:
    """The backfills for which Dagster still starts runs; it does so in chunks, and the partitions come one by one."""
    newest = instance.get_backfills(limit=1)
    if not newest:
        return []
    # Dagster has no public name for the states that its public question takes.
    states: Any = type(newest[0].status)
    return instance.get_backfills(status=states.REQUESTED)


def left_to(backfills: Iterable[Any], key: dg.AssetKey, here: CodeLocation) -> dict[str, str]:
    """By partition of an asset, "" without partitions: the backfill that targets it and has no run for it yet."""
    return {partition: one.backfill_id for one in backfills for partition in _awaited(one, key, here)}


def _awaited(backfill: Any, key: dg.AssetKey, here: CodeLocation) -> Collection[str]:
    data = backfill.asset_backfill_data
    if data is not None:
        # What is below a failure is never started.
        done = _partitions(data.requested_subset, key) | _partitions(data.failed_and_downstream_subset, key)
        return _partitions(data.target_subset, key) - done
    names, origin = list(backfill.partition_names or ()), backfill.partition_set_origin
    if not names or origin is None or key not in here.assets_of_job(backfill.job_name or "", origin.repository_origin):
        return ()
    last = backfill.last_submitted_partition_name
    return names[names.index(last) + 1 :] if last in names else names


def _partitions(subset: Any, key: dg.AssetKey) -> set[str]:
    some = subset.partitions_subsets_by_asset_key.get(key)
    whole = {""} if key in subset.non_partitioned_asset_keys else set[str]()
    return whole if some is None else {*some.get_partition_keys()}
