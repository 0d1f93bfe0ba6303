"""Several sources as the numbered groups of one run, one group after the other.

Law: one identity and one checkpoint for all of them, as in a composite; a row keeps its own id within its group.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, cast

from batchor_engine.core.groups import id_in_group, in_group
from batchor_engine.models import BatchItem, JSONValue
from batchor_engine.ports.sources import (
    BatchItems,
    CheckpointedBatchItem,
    CheckpointedItemSource,
    ItemSource,
    RepeatedId,
    SourceIdentity,
)
from batchor_engine.sources.once import begin, check_unread
from batchor_engine.sources.repeated import repeated_id


def grouped_items(groups: Mapping[int, BatchItems[Any]]) -> BatchItems[Any]:
    """The items of every group, each marked with its number; resumable in the middle if all of them are."""
    if all(isinstance(items, CheckpointedItemSource) for items in groups.values()):
        return GroupedItemSource(cast("Mapping[int, CheckpointedItemSource[Any]]", groups))
    rows = _GroupedRows(groups)
    # What can be read only once must look so, else the engine would read it again to compare.
    return iter(rows) if any(iter(items) is items for items in groups.values()) else rows


class GroupedItemSource(CheckpointedItemSource[Any]):
    """The items of every group as its run knows them, in the order of the groups' numbers."""

    def __init__(self, groups: Mapping[int, CheckpointedItemSource[Any]]) -> None:
        self.groups = dict(sorted(groups.items()))

    def source_identity(self) -> SourceIdentity:
        ref = json.dumps(
            [[number, asdict(source.source_identity())] for number, source in self.groups.items()],
            sort_keys=True,
            separators=(",", ":"),
        )
        return SourceIdentity("groups", ref, hashlib.sha256(ref.encode()).hexdigest())

    def repeated_id(self) -> RepeatedId | None:
        return _repeated_in(self.groups)

    def initial_checkpoint(self) -> JSONValue:
        return self._start_of(next(iter(self.groups), None))

    def checkpoint_is_complete(self, checkpoint: JSONValue) -> bool:
        number, inner = _parse(checkpoint)
        if number is None:
            return True
        is_last = number == next(reversed(self.groups))
        return is_last and self.groups[number].checkpoint_is_complete(inner)

    def iter_from_checkpoint(self, checkpoint: JSONValue) -> Iterator[CheckpointedBatchItem[Any]]:
        begin, inner = _parse(checkpoint)
        for number, source in self.groups.items():
            if begin is None or number < begin:
                continue
            start = inner if number == begin else source.initial_checkpoint()
            for row in source.iter_from_checkpoint(start):
                yield CheckpointedBatchItem(_checkpoint(number, row.next_checkpoint), in_group(row.item, number))

    def _start_of(self, number: int | None) -> JSONValue:
        return _checkpoint(number, None if number is None else self.groups[number].initial_checkpoint())


class _GroupedRows(ItemSource[Any]):
    """Plain iterables as groups; can be read as often as they can."""

    def __init__(self, groups: Mapping[int, BatchItems[Any]]) -> None:
        self.groups = dict(sorted(groups.items()))

    def __iter__(self) -> Iterator[BatchItem[Any]]:
        for items in self.groups.values():
            check_unread(items)
        for number, items in self.groups.items():
            for item in begin(items):
                # Anything else than an item is refused at ingestion, with a message that names it.
                yield in_group(item, number) if isinstance(cast(object, item), BatchItem) else item

    def repeated_id(self) -> RepeatedId | None:
        return _repeated_in(self.groups)


def _repeated_in(groups: Mapping[int, BatchItems[Any]]) -> RepeatedId | None:
    for number, items in groups.items():
        if (found := repeated_id(items)) is not None:
            return found.within(f"group {number}", id_in_group(found.item_id, number))
    return None


def _checkpoint(number: int | None, inner: JSONValue) -> JSONValue:
    return {"group": number, "child_checkpoint": inner}


def _parse(checkpoint: JSONValue) -> tuple[int | None, JSONValue]:
    if isinstance(checkpoint, dict) and "child_checkpoint" in checkpoint:
        number = checkpoint.get("group")
        if number is None or type(number) is int:
            return number, checkpoint["child_checkpoint"]
    raise TypeError(
        f"the checkpoint of GroupedItemSource is {{'group': int, 'child_checkpoint': ...}}, not {checkpoint!r}"
    )
