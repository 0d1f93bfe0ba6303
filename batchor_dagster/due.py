"""Which partitions of an asset could be submitted, and which of them have what they are made of.

Law: reads Dagster's records only. A partition is as old as its place in the partitions definition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import dagster as dg


@dataclass(frozen=True)
class Upstream:
    """An asset that a submission reads: its partitions, how they map, and whether Dagster can materialize it."""

    key: dg.AssetKey
    partitions_def: dg.PartitionsDefinition | None
    mapping: dg.PartitionMapping | None
    materializable: bool


@dataclass(frozen=True)
class Submission:
    """The asset that submits, what it reads, and the label of its results in the engine."""

    key: dg.AssetKey
    label: str
    partitions_def: dg.PartitionsDefinition | None
    upstream: tuple[Upstream, ...]


@dataclass(frozen=True)
class MadeOf:
    """The youngest materialization that a partition reads: its storage id, which orders it among those of one instance,
    and its asset; 0 and None for a partition that reads nothing.
    """

    storage_id: int = 0
    key: dg.AssetKey | None = None

    def moment(self, instance: dg.DagsterInstance) -> float | None:
        """When it was recorded, in seconds since 1970: unlike its id, that never comes again; None once it is wiped."""
        if self.key is None:
            return None
        wanted = dg.AssetRecordsFilter(asset_key=self.key, storage_ids=[self.storage_id])
        found = instance.fetch_materializations(wanted, limit=1).records
        return found[0].timestamp if found else None


@dataclass(frozen=True)
class Shown:
    """The latest materialization of each partition by storage id, "" for an asset without partitions."""

    of: Mapping[dg.AssetKey, Mapping[str, int]]

    @classmethod
    def read(cls, instance: dg.DagsterInstance, one: Submission) -> Shown:
        wanted = [(one.key, one.partitions_def), *((up.key, up.partitions_def) for up in one.upstream)]
        return cls({key: _latest(instance, key, partitions) for key, partitions in wanted})

    def made_of(self, one: Submission, partition: str, now: datetime, instance: dg.DagsterInstance) -> MadeOf | None:
        """The youngest of all materializations that this partition reads; None while one is missing."""
        youngest = MadeOf()
        for up in one.upstream:
            there = self.of[up.key]
            # An outside asset of which nobody reports anything cannot be waited for.
            if not up.materializable and not there:
                continue
            keys = _upstream_keys(one, up, partition, now, instance)
            if keys is None or any(key not in there for key in keys):
                return None
            newest = max((there[key] for key in keys), default=0)
            if newest > youngest.storage_id:
                youngest = MadeOf(newest, up.key)
        return youngest


def submission_of(
    key: dg.AssetKey, label: str, definitions: Mapping[dg.AssetKey, dg.AssetsDefinition | dg.AssetSpec]
) -> Submission:
    """What is known about a submitting asset from the definitions of a code location."""
    asset = definitions[key]
    assert isinstance(asset, dg.AssetsDefinition)
    found: list[Upstream] = []
    for dep in sorted(asset.asset_deps[key]):
        above = definitions.get(dep)
        partitions_def = above.partitions_def if above is not None else None
        mapping = None
        if partitions_def is not None and asset.partitions_def is not None:
            mapping = asset.infer_partition_mapping(key, dep, partitions_def)
        materializable = isinstance(above, dg.AssetsDefinition) and above.is_materializable
        found.append(Upstream(dep, partitions_def, mapping, materializable))
    return Submission(key, label, asset.partitions_def, tuple(found))


def partitions_by_age(one: Submission, now: datetime, instance: dg.DagsterInstance) -> list[str]:
    """Every partition that exists, oldest first; "" for an asset without partitions."""
    if one.partitions_def is None:
        return [""]
    return list(one.partitions_def.get_partition_keys(current_time=now, dynamic_partitions_store=instance))


def has_ended(partitions_def: dg.PartitionsDefinition | None, partition: str, now: datetime) -> bool:
    """False while a time window that the partition covers is still open."""
    if isinstance(partitions_def, dg.MultiPartitionsDefinition):
        parts = dict(zip(sorted(one.name for one in partitions_def.partitions_defs), partition.split("|"), strict=True))
        return all(has_ended(one.partitions_def, parts[one.name], now) for one in partitions_def.partitions_defs)
    if isinstance(partitions_def, dg.TimeWindowPartitionsDefinition):
        return partitions_def.time_window_for_partition_key(partition).end <= now
    return True


def _latest(
    instance: dg.DagsterInstance, key: dg.AssetKey, partitions_def: dg.PartitionsDefinition | None
) -> Mapping[str, int]:
    if partitions_def is not None:
        return instance.get_latest_storage_id_by_partition(key, dg.DagsterEventType.ASSET_MATERIALIZATION)
    newest = instance.fetch_materializations(key, limit=1).records
    return {"": newest[0].storage_id} if newest else {}


def _upstream_keys(
    one: Submission, up: Upstream, partition: str, now: datetime, instance: dg.DagsterInstance
) -> list[str] | None:
    """The partitions of an upstream asset that a partition reads; None where one does not exist yet."""
    if up.partitions_def is None:
        return [""]
    if one.partitions_def is None or up.mapping is None:
        # Without partitions of its own a submission reads all that there is.
        return list(up.partitions_def.get_partition_keys(current_time=now, dynamic_partitions_store=instance))
    with dg.partition_loading_context(now, instance):
        wanted = one.partitions_def.subset_with_partition_keys([partition])
        found = up.mapping.get_upstream_mapped_partitions_result_for_partitions(
            wanted, one.partitions_def, up.partitions_def, now, instance
        )
        if found.required_but_nonexistent_subset.get_partition_keys():
            return None
        return list(found.partitions_subset.get_partition_keys())
