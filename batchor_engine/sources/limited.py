"""The first rows of something, to try a job on before all of it is paid for."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, cast

from batchor_engine.models import JSONValue
from batchor_engine.ports.sources import (
    BatchItems,
    CheckpointedBatchItem,
    CheckpointedItemSource,
    RepeatedId,
    SourceIdentity,
)
from batchor_engine.sources.once import begin


def first_items(items: BatchItems[Any], count: int) -> BatchItems[Any]:
    """The first `count` of these items, as a source that resumes where theirs does; ValueError below 1."""
    if count < 1:
        raise ValueError(f"the number of first rows must be at least 1, but is {count}")
    if isinstance(items, CheckpointedItemSource):
        return LimitedItemSource(cast("CheckpointedItemSource[Any]", items), count)
    return list(islice(begin(items), count))


class LimitedItemSource(CheckpointedItemSource[Any]):
    """At most `limit` items of another source. Another limit is another source."""

    def __init__(self, source: CheckpointedItemSource[Any], limit: int) -> None:
        self.source = source
        self.limit = limit

    def source_identity(self) -> SourceIdentity:
        inner = self.source.source_identity()
        return SourceIdentity(f"first_{self.limit}_of_{inner.source_kind}", inner.source_ref, inner.source_fingerprint)

    def repeated_id(self) -> RepeatedId | None:
        found = self.source.repeated_id()
        # Positions in a part of the source say nothing of what comes before that part.
        return found if found is not None and not found.part and found.second < self.limit else None

    def initial_checkpoint(self) -> JSONValue:
        return _checkpoint(0, self.source.initial_checkpoint())

    def checkpoint_is_complete(self, checkpoint: JSONValue) -> bool:
        count, inner = _parse(checkpoint)
        return count >= self.limit or self.source.checkpoint_is_complete(inner)

    def iter_from_checkpoint(self, checkpoint: JSONValue) -> Iterator[CheckpointedBatchItem[Any]]:
        count, inner = _parse(checkpoint)
        if count >= self.limit:
            return
        for row in self.source.iter_from_checkpoint(inner):
            count += 1
            yield CheckpointedBatchItem(_checkpoint(count, row.next_checkpoint), row.item)
            if count == self.limit:
                return


def _checkpoint(count: int, inner: JSONValue) -> JSONValue:
    return {"count": count, "child_checkpoint": inner}


def _parse(checkpoint: JSONValue) -> tuple[int, JSONValue]:
    if isinstance(checkpoint, dict) and "child_checkpoint" in checkpoint:
        count = checkpoint.get("count")
        if type(count) is int and count >= 0:
            return count, checkpoint["child_checkpoint"]
    raise TypeError(
        f"the checkpoint of LimitedItemSource is {{'count': int, 'child_checkpoint': ...}}, not {checkpoint!r}"
    )
