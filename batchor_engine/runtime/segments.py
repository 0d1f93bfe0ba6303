"""Writing a result segment into a run's artifacts, and taking back what the store refused to point to."""

from __future__ import annotations

import uuid
from collections.abc import Generator, Iterable
from contextlib import contextmanager

from batchor_engine.artifacts import keys
from batchor_engine.core.records import ItemRow, NewSegment
from batchor_engine.core.segment import SegmentRow
from batchor_engine.errors import DuplicateItemError, LeaseLostError
from batchor_engine.ports.artifacts import ArtifactStore
from batchor_engine.results.segments import SegmentWriter
from batchor_engine.states import IllegalTransitionError, ItemStatus


def write_segment(artifacts: ArtifactStore, run_id: str, rows: Iterable[SegmentRow]) -> NewSegment:
    """Write rows (in item order) under a new key; nobody points to it until a transaction does."""
    key = keys.result_key(run_id, uuid.uuid4().hex)
    with artifacts.new_file(key) as path:
        with SegmentWriter(path) as writer:
            writer.extend(rows)
        size = path.stat().st_size
    return NewSegment(key=key, bytes=size, totals=writer.totals)


@contextmanager
def unless_refused(artifacts: ArtifactStore, *written: str | None) -> Generator[None]:
    """Store what points to new files; they are removed where the store says that it was not written.

    A late worker's would stay for ever once the run is over and swept. After any other error they may be pointed to.
    """
    try:
        yield
    except (LeaseLostError, DuplicateItemError, IllegalTransitionError):
        for key in filter(None, written):
            artifacts.remove(key)
        raise


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
