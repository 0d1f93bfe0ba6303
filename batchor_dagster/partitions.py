"""Several partitions in one step: the job function is called once for each, as if it had the step for itself.

Law: a function sees of a range what it would see in a run of that one partition, or the step fails and says why. A
range that is asked for holds exactly the partitions that are meant, as Dagster counts them today.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import dagster as dg

PARTITION_TAG = "dagster/partition"
RANGE_START_TAG, RANGE_END_TAG = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
# Each partition of the consumer sees the same partitions of what is upstream.
_SAME_FOR_ALL = (dg.AllPartitionMapping, dg.LastPartitionMapping, dg.SpecificPartitionsPartitionMapping)
_ONE_TO_ONE = (dg.IdentityPartitionMapping, dg.TimeWindowPartitionMapping)


class ByPartition(dg.DagsterType):
    """The type of an input that arrives as a dict over partitions where a step has several, else as what it was."""

    def __init__(self, name: str, annotation: Any) -> None:
        super().__init__(type_check_fn=lambda _context, _value: True, name=name, typing_type=annotation)


def takes_ranges(policy: dg.BackfillPolicy | None) -> bool:
    """Whether Dagster may start a run for several partitions."""
    return policy is not None and policy.max_partitions_per_run != 1


def range_tags(keys: Sequence[str]) -> dict[str, str]:
    """The tags by which Dagster knows a run of these partitions."""
    return {RANGE_START_TAG: keys[0], RANGE_END_TAG: keys[-1]}


def is_within(tags: Mapping[str, str], partition: str, stored: Sequence[str]) -> bool:
    """Whether a Dagster run with these tags was for a partition; `stored` is the order in which a range counts them."""
    ends = [tags[PARTITION_TAG]] if PARTITION_TAG in tags else [tags.get(RANGE_START_TAG), tags.get(RANGE_END_TAG)]
    return not partition or partition in ends or partition in keys_of(tags, stored)


def keys_of(tags: Mapping[str, str], keys: Sequence[str]) -> Sequence[str]:
    """Which of these keys, all that an asset has, in order, a Dagster run with these tags is for."""
    if PARTITION_TAG in tags:
        return [tags[PARTITION_TAG]]
    ends = [keys.index(tags[tag]) for tag in (RANGE_START_TAG, RANGE_END_TAG) if tags.get(tag) in keys]
    if len(ends) == 2:
        return keys[ends[0] : ends[1] + 1]
    return [key for key in keys if not key]


def partitions_of_step(context: dg.AssetExecutionContext) -> list[str]:
    """The partitions that a step works on, in order; none for an asset without partitions."""
    if context.assets_def.partitions_def is None:
        return []
    if not (context.has_partition_key or context.has_partition_key_range):
        asset = context.assets_def.key.to_user_string()
        raise dg.Failure(f"{asset} has partitions: choose one or a range of them", allow_retries=False)
    keys = [context.partition_key] if context.has_partition_key else list(context.partition_keys)
    if not keys:
        ends = context.partition_key_range
        raise dg.Failure(f"There is no partition from {ends.start} to {ends.end}", allow_retries=False)
    return keys


def existing(
    partitions: dg.PartitionsDefinition | None, keys: Sequence[str], instance: dg.DagsterInstance
) -> list[str]:
    """The keys that Dagster still has; for an asset without partitions the empty one."""
    if partitions is None:
        return [key for key in keys if not key]
    with dg.partition_loading_context(dynamic_partitions_store=instance):
        return [key for key in keys if key and partitions.has_partition_key(key)]


def digest_of(partitions: dg.PartitionsDefinition | None, instance: dg.DagsterInstance) -> str:
    """What stands for the keys that Dagster has now; another one as soon as a key comes or goes."""
    if partitions is None:
        return ""
    with dg.partition_loading_context(dynamic_partitions_store=instance):
        text = json.dumps(sorted(partitions.get_partition_keys()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def pieces(
    partitions: dg.PartitionsDefinition, keys: Sequence[str], stored: Sequence[str], instance: dg.DagsterInstance
) -> list[list[str]]:
    """These keys out of `stored`, as few ranges as hold them and nothing else; where none does, one by one."""
    with dg.partition_loading_context(dynamic_partitions_store=instance):
        if _is_range(partitions, keys):
            return [list(keys)]
        found: list[list[str]] = []
        for _, run in groupby(enumerate(keys), lambda one: stored.index(one[1]) - one[0]):
            part = [key for _, key in run]
            found += [part] if _is_range(partitions, part) else [[key] for key in part]
        return found


def _is_range(partitions: dg.PartitionsDefinition, keys: Sequence[str]) -> bool:
    inside = partitions.get_partition_keys_in_range(dg.PartitionKeyRange(keys[0], keys[-1])) if keys else []
    return sorted(inside) == sorted(keys)


def for_partition(given: Mapping[str, Any], context: dg.AssetExecutionContext, keys: Sequence[str], key: str) -> Any:
    """The arguments of a job function for one partition out of a step's."""
    inputs = context.assets_def.keys_by_input_name
    split = {
        name: _of_partition(context, name, inputs[name], value, keys, key) if name in inputs else value
        for name, value in given.items()
    }
    return {**split, "context": OnePartition(context, key)}


def _of_partition(
    context: dg.AssetExecutionContext, name: str, upstream: dg.AssetKey, value: Any, keys: Sequence[str], key: str
) -> Any:
    found = _upstream_partitions(context, name)
    mapping = context.assets_def.get_partition_mapping(upstream)
    if len(found) < 2 or isinstance(mapping, _SAME_FOR_ALL):
        return value
    if (mapping is not None and not isinstance(mapping, _ONE_TO_ONE)) or set(found) != set(keys):
        raise dg.Failure(
            f"Input {name} has other partitions than this asset, so a run of several partitions cannot tell which rows "
            "belong to which: run them one by one (BackfillPolicy.multi_run(1))",
            allow_retries=False,
        )
    if not isinstance(value, Mapping):
        raise dg.Failure(
            f"Input {name} came as one {type(value).__name__} for {len(found)} partitions: use an IO manager that "
            "loads a dict over partitions, or run the partitions one by one (BackfillPolicy.multi_run(1))",
            allow_retries=False,
        )
    return value.get(key)


def _upstream_partitions(context: dg.AssetExecutionContext, name: str) -> Sequence[str]:
    try:
        return context.asset_partition_keys_for_input(name)
    except Exception:  # noqa: BLE001 - Dagster has no question for it, and its error is of a private class
        return ()


class OnePartition:
    """The step's context as a run of this partition alone would have it; everything else is the step's own."""

    def __init__(self, context: dg.AssetExecutionContext, key: str) -> None:
        self._context = context
        self.partition_key = key
        self.partition_keys = [key]
        self.partition_key_range = dg.PartitionKeyRange(key, key)
        self.has_partition_key = True
        self.has_partition_key_range = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    @property
    def partition_time_window(self) -> Any:
        """The window of the one partition; for several dimensions, of the one that is time."""
        partitions: Any = self._context.assets_def.partitions_def
        return partitions.time_window_for_partition_key(self.partition_key)
