"""Writing a result segment into a run's artifacts."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from batchor_engine.artifacts import keys
from batchor_engine.core.records import ItemRow, NewSegment
from batchor_engine.core.segment import SegmentRow
from batchor_engine.ports.artifacts import ArtifactStore
from batchor_engine.results.segments import SegmentWriter
from batchor_engine.states import ItemStatus


def write_segment(artifacts: ArtifactStore, run_id: str, rows: Iterable[SegmentRow]) -> NewSegment:
    """Write rows (in item order) under a new key; nobody points to it until a transaction does."""
    key = keys.result_key(run_id, uuid.uuid4().hex)
    with artifacts.new_file(key) as path:
        with SegmentWriter(path) as writer:
            writer.extend(rows)
        size = path.stat().st_size
    return NewSegment(key=key, bytes=size, totals=writer.totals)


def failed_row(row: ItemRow, *, error_class: str, message: str, metadata_json: str | None) -> SegmentRow:
    """The final row of an item that failed without a line of its own."""
    return SegmentRow(
        item_index=row.item_index,
        item_id=row.item_id,
        group=row.group,
        final=True,
        status=ItemStatus.FAILED_PERMANENT.value,
        attempt_count=row.attempts,
        custom_id=None,
        text=None,
        error_class=error_class,
        error_message=message,
        retryable=False,
        raw_error_json=None,
        metadata_json=metadata_json,
        usage=None,
        ref=None,
    )
