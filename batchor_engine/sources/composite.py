"""Several sources as one, in the given order.

Law: one identity and one checkpoint for all of them; the same row id in two children gives two different items.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from batchor_engine.models import LINEAGE_KEY, BatchItem, JSONObject, JSONValue
from batchor_engine.ports.sources import CheckpointedBatchItem, CheckpointedItemSource, RepeatedId, SourceIdentity


class CompositeItemSource(CheckpointedItemSource[Any]):
    """The items of every child, one child after the other; item ids become `src_<12 hex>__<item id>`."""

    def __init__(self, sources: Sequence[CheckpointedItemSource[Any]]) -> None:
        self.sources = tuple(sources)
        for position, source in enumerate(self.sources):
            _check_child(source, position)

    def source_identity(self) -> SourceIdentity:
        ref = _canonical([asdict(source.source_identity()) for source in self.sources])
        return SourceIdentity("composite", ref, _sha256(ref))

    def repeated_id(self) -> RepeatedId | None:
        for position, source in enumerate(self.sources):
            if (found := source.repeated_id()) is not None:
                return found.within(f"source {position + 1}", f"{_namespace(position, source)}__{found.item_id}")
        return None

    def initial_checkpoint(self) -> JSONValue:
        return self._start_of(0)

    def checkpoint_is_complete(self, checkpoint: JSONValue) -> bool:
        position, inner = _parse(checkpoint)
        if position >= len(self.sources):
            return True
        is_last = position == len(self.sources) - 1
        return is_last and self.sources[position].checkpoint_is_complete(inner)

    def iter_from_checkpoint(self, checkpoint: JSONValue) -> Iterator[CheckpointedBatchItem[Any]]:
        position, inner = _parse(checkpoint)
        while position < len(self.sources):
            source = self.sources[position]
            namespace = _namespace(position, source)
            for row in source.iter_from_checkpoint(inner):
                following = _checkpoint(position, row.next_checkpoint)
                yield CheckpointedBatchItem(following, _namespaced(row.item, namespace))
            position += 1
            _, inner = _parse(self._start_of(position))

    def _start_of(self, position: int) -> JSONValue:
        source = self.sources[position] if position < len(self.sources) else None
        return _checkpoint(position, None if source is None else source.initial_checkpoint())


def _check_child(source: object, position: int) -> None:
    if not isinstance(source, CheckpointedItemSource):
        raise TypeError(
            f"source {position} of a CompositeItemSource is a {type(source).__name__}, but must be a "
            "CheckpointedItemSource: wrap it in one, so that it can be resumed."
        )


def _namespace(position: int, source: CheckpointedItemSource[Any]) -> str:
    identity = source.source_identity()
    return "src_" + _sha256(_canonical([position, identity.source_kind, identity.source_ref]))[:12]


def _namespaced(item: BatchItem[Any], namespace: str) -> BatchItem[Any]:
    lineage = item.metadata.get(LINEAGE_KEY, {})
    if not isinstance(lineage, dict):
        raise TypeError(f"item {item.item_id!r} has {LINEAGE_KEY!r} of type {type(lineage).__name__}, not an object")
    ours: JSONObject = {"source_namespace": namespace, "source_primary_key": _primary_key(item, lineage)}
    metadata: JSONObject = {**item.metadata, LINEAGE_KEY: {**lineage, **ours}}
    return BatchItem(f"{namespace}__{item.item_id}", item.payload, metadata)


def _primary_key(item: BatchItem[Any], lineage: JSONObject) -> JSONValue:
    inner = lineage.get("source_namespace")
    # An id that already carries a composite's namespace is not the row's own; the inner composite kept that one.
    nested = isinstance(inner, str) and item.item_id.startswith(f"{inner}__")
    return lineage.get("source_primary_key", item.item_id) if nested else item.item_id


def _checkpoint(position: int, inner: JSONValue) -> JSONValue:
    return {"source_index": position, "child_checkpoint": inner}


def _parse(checkpoint: JSONValue) -> tuple[int, JSONValue]:
    if isinstance(checkpoint, dict) and "child_checkpoint" in checkpoint:
        position = checkpoint.get("source_index")
        if type(position) is int and position >= 0:
            return position, checkpoint["child_checkpoint"]
    raise TypeError(
        f"the checkpoint of CompositeItemSource is {{'source_index': int, 'child_checkpoint': ...}}, not {checkpoint!r}"
    )


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
