"""The columns of a result asset: their schema, and a preview of the first rows."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import dagster as dg
from pydantic import BaseModel

from batchor_engine import StructuredItemResult, TextItemResult, column_descriptions

BatchResultItem = TextItemResult | StructuredItemResult[Any]

COLUMN_SCHEMA_KEY = "dagster/column_schema"
PREVIEW_ROWS = 5
CELL_CHARS = 160


def column_schema(model: type[BaseModel] | None) -> dg.TableSchema:
    """The columns of a result table as the engine describes them."""
    return dg.TableSchema(
        [
            dg.TableColumn(one.name, one.type, one.description, dg.TableColumnConstraints(nullable=one.nullable))
            for one in column_descriptions(model)
        ]
    )


def preview(results: Iterable[BatchResultItem]) -> dg.TableMetadataValue | None:
    """A table of the given rows, long cells shortened; None without rows."""
    rows = [_row(result) for result in results]
    if not rows:
        return None
    names = list(dict.fromkeys(name for row in rows for name in row))
    records = [dg.TableRecord({name: row.get(name, "") for name in names}) for row in rows]
    return dg.MetadataValue.table(records, schema=dg.TableSchema([dg.TableColumn(name) for name in names]))


def _row(result: BatchResultItem) -> dict[str, str | int]:
    row: dict[str, str | int] = {"item_id": result.item_id, "attempts": result.attempt_count}
    output = getattr(result, "output", None)
    if result.error is not None:
        return {**row, "error": _cell(f"{result.error.error_class}: {result.error.message}")}
    if isinstance(output, BaseModel):
        return {**row, **{name: _cell(value) for name, value in output.model_dump(mode="json").items()}}
    return {**row, "output_text": _cell(result.output_text)}


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= CELL_CHARS else text[: CELL_CHARS - 1] + "…"
