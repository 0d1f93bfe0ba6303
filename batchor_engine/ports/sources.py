"""What a source of items must be able to do.

Law: the engine treats a checkpoint as opaque and asks only that the items after it are the same every time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeAlias

from batchor_engine.models import BatchItem, JSONValue, PayloadT


@dataclass(frozen=True)
class SourceIdentity:
    """What a source is: its kind, where it lives, and a fingerprint of its content."""

    source_kind: str
    source_ref: str
    source_fingerprint: str


@dataclass(frozen=True)
class IndexedBatchItem(Generic[PayloadT]):
    """An item with its 0-based position in the source."""

    item_index: int
    item: BatchItem[PayloadT]


@dataclass(frozen=True)
class CheckpointedBatchItem(Generic[PayloadT]):
    """An item with the checkpoint that resumes at the item after it."""

    next_checkpoint: JSONValue
    item: BatchItem[PayloadT]


@dataclass(frozen=True)
class RepeatedId:
    """An item id that two rows share, with their 0-based positions in the source, or in the `part` of it."""

    item_id: str
    first: int
    second: int
    part: str = ""

    def within(self, part: str, item_id: str) -> RepeatedId:
        """The same as a source tells it that holds this one as its `part`, under the id that the item has there."""
        return RepeatedId(item_id, self.first, self.second, f"{self.part} of {part}" if self.part else part)


class ItemSource(ABC, Generic[PayloadT]):
    """A stream of items; without a checkpoint it cannot be resumed in the middle."""

    @abstractmethod
    def __iter__(self) -> Iterator[BatchItem[PayloadT]]:
        """Yield every item, from the first."""

    def repeated_id(self) -> RepeatedId | None:
        """An id that occurs twice, where that is known without reading a file; None proves nothing."""
        return None


class CheckpointedItemSource(ItemSource[PayloadT]):
    """A stream that can be resumed after any item by an opaque JSON checkpoint."""

    @abstractmethod
    def source_identity(self) -> SourceIdentity:
        """Kind, place and content fingerprint; a resume with another identity is refused."""

    @abstractmethod
    def initial_checkpoint(self) -> JSONValue:
        """The checkpoint before the first item."""

    @abstractmethod
    def iter_from_checkpoint(self, checkpoint: JSONValue) -> Iterator[CheckpointedBatchItem[PayloadT]]:
        """Yield the items after `checkpoint`, each with the checkpoint that follows it."""

    def checkpoint_is_complete(self, checkpoint: JSONValue) -> bool:
        """Whether nothing follows `checkpoint`, when that is known without reading on."""
        del checkpoint
        return False

    def __iter__(self) -> Iterator[BatchItem[PayloadT]]:
        for row in self.iter_from_checkpoint(self.initial_checkpoint()):
            yield row.item


class ResumableItemSource(CheckpointedItemSource[PayloadT]):
    """A checkpointed source whose checkpoint is the 0-based position of the next item."""

    @abstractmethod
    def iter_from(self, item_index: int) -> Iterator[IndexedBatchItem[PayloadT]]:
        """Yield the items from position `item_index` on."""

    def initial_checkpoint(self) -> JSONValue:
        return 0

    def iter_from_checkpoint(self, checkpoint: JSONValue) -> Iterator[CheckpointedBatchItem[PayloadT]]:
        if isinstance(checkpoint, bool) or not isinstance(checkpoint, int):
            raise TypeError(f"the checkpoint of {type(self).__name__} is an integer position, not {checkpoint!r}")
        for row in self.iter_from(checkpoint):
            yield CheckpointedBatchItem(row.item_index + 1, row.item)


BatchItems: TypeAlias = Iterable[BatchItem[PayloadT]] | ItemSource[PayloadT]
