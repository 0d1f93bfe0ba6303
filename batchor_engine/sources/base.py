"""What a source is, for those who write their own.

Law: nothing is defined here; these are the names of the port under their public home.
"""

from __future__ import annotations

from batchor_engine.ports.sources import (
    CheckpointedBatchItem,
    CheckpointedItemSource,
    IndexedBatchItem,
    ItemSource,
    ResumableItemSource,
    SourceIdentity,
)

__all__ = [
    "CheckpointedBatchItem",
    "CheckpointedItemSource",
    "IndexedBatchItem",
    "ItemSource",
    "ResumableItemSource",
    "SourceIdentity",
]
