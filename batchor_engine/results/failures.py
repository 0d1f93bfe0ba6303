"""Failed rows as a table of their own: what failed, why, and what the provider said.

Law: texts come from the segment as they stand there; `raw_error` and `metadata` are JSON text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from batchor_engine.core.segment import SegmentRow
from batchor_engine.results.arrow import ArrowBatch, ArrowSchema, ArrowTable, pyarrow
from batchor_engine.results.buffers import array_of

_BATCH_ROWS = 4096

# (column, Arrow type, nullable, where it comes from), in order.
_COLUMNS: tuple[tuple[str, str, bool, Callable[[SegmentRow], Any]], ...] = (
    ("item_id", "string", False, lambda row: row.item_id),
    ("error_class", "string", False, lambda row: row.error_class),
    ("message", "string", False, lambda row: row.error_message or ""),
    ("retryable", "bool_", False, lambda row: row.retryable),
    ("attempt_count", "int64", False, lambda row: row.attempt_count),
    ("raw_error", "string", True, lambda row: row.raw_error_json),
    ("metadata", "string", False, lambda row: row.metadata_json or "{}"),
)


def failures_schema() -> ArrowSchema:
    """The schema of every run's failures, also of a run without any."""
    pa = pyarrow()
    return pa.schema([pa.field(name, getattr(pa, kind)(), nullable=nullable) for name, kind, nullable, _ in _COLUMNS])


def failures_table(rows: Iterable[SegmentRow]) -> ArrowTable:
    """Failed rows as one Arrow table, in the order given."""
    return pyarrow().Table.from_batches(_batches(iter(rows)), schema=failures_schema())


def _batches(rows: Iterator[SegmentRow]) -> Iterator[ArrowBatch]:
    schema = failures_schema()
    while chunk := list(islice(rows, _BATCH_ROWS)):
        arrays = [array_of(schema.field(name).type, [value(row) for row in chunk]) for name, _, _, value in _COLUMNS]
        yield pyarrow().RecordBatch.from_arrays(arrays, schema=schema)
