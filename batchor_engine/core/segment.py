"""One row of a result segment: what is kept of a collected line, for ever.

Law: every collected line gets a row, terminal or not; `final` tells which one ended its item. Costs sum all rows,
results read the final ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from batchor_engine.core.outcomes import LineRef
from batchor_engine.models import RunUsage


class SegmentRow(NamedTuple):
    """`item_index` is the item's 0-based position in its run; `metadata_json` and `raw_error_json` are JSON texts."""

    item_index: int
    item_id: str
    group: int
    final: bool
    status: str
    attempt_count: int
    custom_id: str | None
    text: str | None
    error_class: str | None
    error_message: str | None
    retryable: bool
    raw_error_json: str | None
    metadata_json: str | None
    usage: RunUsage | None
    ref: LineRef | None


@dataclass(frozen=True)
class SegmentTotals:
    """What a segment adds up to; kept in the database so that a summary never opens a file."""

    rows: int
    completed: int
    failed: int
    first_index: int
    last_index: int
    usage: RunUsage
    failures: dict[str, int]

    @property
    def final_rows(self) -> int:
        return self.completed + self.failed
