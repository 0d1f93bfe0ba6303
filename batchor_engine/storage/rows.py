"""Database rows to core values and back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from pydantic_core import from_json, to_json
from sqlalchemy import ColumnElement

from batchor_engine.core.records import (
    AwayBatch,
    Backoff,
    BatchRange,
    BatchRecord,
    IngestPosition,
    ItemRow,
    PartRecord,
    RunRecord,
    SegmentRecord,
)
from batchor_engine.core.segment import SegmentTotals
from batchor_engine.models import JSONValue, RunUsage
from batchor_engine.states import ITEM_CODES, BatchState, ItemStatus, RunControlState
from batchor_engine.storage.schema import batch_ranges, batches, items, runs

ITEM_STATUS = {code: status for status, code in ITEM_CODES.items()}


def dump(value: JSONValue) -> str:
    return to_json(value).decode()


def load(text: str | None) -> Any:
    return None if text is None else from_json(text)


def run_record(row: Any) -> RunRecord:
    return RunRecord(
        pk=row.id,
        run_id=row.run_id,
        config=load(row.config),
        artifact_root=row.artifact_root,
        control=RunControlState(row.control),
        control_reason=row.control_reason,
        drain=bool(row.drain),
        ingest=IngestPosition(
            source_kind=row.source_kind,
            source_ref=row.source_ref,
            source_fingerprint=row.source_fingerprint,
            checkpoint=load(row.checkpoint),
            next_index=row.next_index,
            finished=bool(row.ingest_finished),
        ),
        counts={status: getattr(row, f"n_{status.value}") for status in ItemStatus},
        live_batches=row.live_batches,
        last_sequence=row.last_sequence,
        backoff=Backoff(row.backoff_consecutive, row.backoff_total, row.backoff_until, row.backoff_class),
        revision=row.revision,
        created_at=row.created_at,
        superseded=row.superseded,
        tidied=bool(row.tidied),
        exported_at=row.exported_at,
        export_root=row.export_root,
        unsent_batches=row.unsent_batches,
    )


def position_values(position: IngestPosition) -> dict[str, Any]:
    return {
        "source_kind": position.source_kind,
        "source_ref": position.source_ref,
        "source_fingerprint": position.source_fingerprint,
        "checkpoint": dump(position.checkpoint),
        "next_index": position.next_index,
        "ingest_finished": position.finished,
    }


def part_record(row: Any) -> PartRecord:
    return PartRecord(
        pk=row.id,
        key=row.key,
        sidecar_key=row.sidecar_key,
        first_index=row.first_index,
        last_index=row.last_index,
        bytes=row.bytes,
        next_index=row.next_index,
        next_offset=row.next_offset,
        left_items=row.left_items,
        left_tokens=row.left_tokens,
        pruned_at=row.pruned_at,
    )


# In the order of ItemRow's fields.
ITEM_COLUMNS = (
    items.c.idx, items.c.item_id, items.c.state, items.c.attempts, items.c.uncounted, items.c.granted, items.c.part,
    items.c.line_offset, items.c.length, items.c.tokens, items.c.grp,
)  # fmt: skip


def item_rows(found: Iterable[Any]) -> list[ItemRow]:
    """Rows of ITEM_COLUMNS; there are as many as a run has items, so no name is looked up for any of them."""
    return [ItemRow(index, item_id, ITEM_STATUS[state], *rest) for index, item_id, state, *rest in found]


_BATCH_STATE = {state.value: state for state in BatchState}
_BATCH_FIELDS = [field.name for field in fields(BatchRecord)]
_NOT_OF_THEIR_NAME: dict[str, ColumnElement[Any]] = {
    "pk": batches.c.id,
    "run_pk": batches.c.run,
    "run_id": runs.c.run_id,
    "reserves": batches.c.reserve_until > 0,
}


def _batch_columns(names: Iterable[str]) -> tuple[ColumnElement[Any], ...]:
    return tuple(_NOT_OF_THEIR_NAME[name] if name in _NOT_OF_THEIR_NAME else batches.c[name] for name in names)


# In the order of BatchRecord's and AwayBatch's fields.
BATCH_COLUMNS, AWAY_COLUMNS = _batch_columns(_BATCH_FIELDS), _batch_columns(AwayBatch._fields)


def batch_record(row: Iterable[Any]) -> BatchRecord:
    """A row of BATCH_COLUMNS."""
    # A frozen class's own way to set its fields takes twice as long.
    made = object.__new__(BatchRecord)
    values = vars(made)
    values.update(zip(_BATCH_FIELDS, row, strict=True))
    values["state"], values["errors"] = _BATCH_STATE[values["state"]], load(values["errors"])
    return made


# In the order of BatchRange's fields.
RANGE_COLUMNS = [batch_ranges.c["line_offset" if name == "offset" else name] for name in BatchRange._fields]


def segment_record(row: Any) -> SegmentRecord:
    return SegmentRecord(
        pk=row.id,
        batch=row.batch,
        key=row.key,
        first_sequence=row.first_sequence,
        superseded=row.superseded,
        totals=SegmentTotals(
            rows=row.rows,
            completed=row.completed,
            failed=row.failed,
            first_index=row.first_index,
            last_index=row.last_index,
            usage=RunUsage(row.input_tokens, row.cached_tokens, row.output_tokens, row.reasoning_tokens),
            failures=load(row.failures),
        ),
    )
