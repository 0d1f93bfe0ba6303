"""Tables in metadata: the columns of a result asset, a preview of its first rows, and any other small table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg
from pydantic import BaseModel

from batchor_engine import (
    ColumnDescription,
    EmbeddingItemResult,
    StructuredItemResult,
    TextItemResult,
    column_descriptions,
    counted,
)

# What the rows of a run are read as: a model, a vector each, or (None) text.
Form = type[BaseModel] | type[EmbeddingItemResult] | None
BatchResultItem = TextItemResult | StructuredItemResult[Any] | EmbeddingItemResult

PREVIEW_ROWS = 5
CELL_CHARS = 120
# What the failures() of a run hold, in Dagster's words.
_FAILURE_COLUMNS = (
    ("item_id", "string", False, "The id of the row, as the source gave it."),
    ("error_class", "string", False, "Why the row failed, as a stable name."),
    ("message", "string", False, "Why the row failed, in words."),
    ("retryable", "bool", False, "Whether another attempt could have helped."),
    ("attempt_count", "int64", False, "Attempts that counted, the last one included."),
    ("raw_error", "json", True, "What the provider said, verbatim."),
    ("metadata", "json", False, "What the source and the engine noted about the row."),
)


def column_schema(form: Form) -> dg.TableSchema:
    """The columns of a result table; those of the answer are null in failed rows, whatever the model says."""
    # What a table of texts and one of vectors have in common is about the row; the rest is the answer.
    about_row = {one.name for one in column_descriptions(None)} & {
        one.name for one in column_descriptions(EmbeddingItemResult)
    }
    return dg.TableSchema([_column(one, of_answer=one.name not in about_row) for one in column_descriptions(form)])


def _column(one: ColumnDescription, *, of_answer: bool) -> dg.TableColumn:
    says = [one.description] if one.description else []
    if of_answer and not one.nullable:
        says.append("(null only in failed rows)")
    constraints = dg.TableColumnConstraints(nullable=one.nullable or of_answer)
    return dg.TableColumn(one.name, one.type, " ".join(says) or None, constraints)


def failure_schema() -> dg.TableSchema:
    """The columns of a table of failed rows; the same for every job."""
    return dg.TableSchema(
        [
            dg.TableColumn(name, kind, says, dg.TableColumnConstraints(nullable=nullable))
            for name, kind, nullable, says in _FAILURE_COLUMNS
        ]
    )


def preview(results: Iterable[BatchResultItem]) -> dg.TableMetadataValue | None:
    """A table of the given rows, long cells shortened; None without rows."""
    return table(_row(result) for result in results)


def table(rows: Iterable[Mapping[str, str | int]]) -> dg.TableMetadataValue | None:
    """A metadata table with every column that a row has; None without rows."""
    found = list(rows)
    if not found:
        return None
    kinds = {name: _kind(value) for row in reversed(found) for name, value in row.items()}
    names = list(dict.fromkeys(name for row in found for name in row))
    records = [dg.TableRecord({name: row.get(name, "") for name in names}) for row in found]
    return dg.MetadataValue.table(records, schema=dg.TableSchema([dg.TableColumn(name, kinds[name]) for name in names]))


def cell(value: Any) -> str:
    """A value as short text, as a person would write it; nothing is an empty cell."""
    text = _words(value)
    return text if len(text) <= CELL_CHARS else text[: CELL_CHARS - 1] + "…"


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_words(part)}" for name, part in value.items())
    if isinstance(value, list | tuple):
        return "; ".join(_words(part) for part in value)
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _row(result: BatchResultItem) -> dict[str, str | int]:
    row: dict[str, str | int] = {"item_id": result.item_id, "attempts": result.attempt_count}
    output = getattr(result, "output", None)
    if result.error is not None:
        return {**row, "error": cell(f"{result.error.error_class}: {result.error.message}")}
    if isinstance(output, BaseModel):
        return {**row, **{name: cell(value) for name, value in output.model_dump(mode="json").items()}}
    if isinstance(result, EmbeddingItemResult):
        return {**row, "embedding": counted(len(result.embedding or ()), "number")}
    return {**row, "output_text": cell(result.output_text)}


def _kind(value: str | int) -> str:
    return "int" if isinstance(value, int) else "string"
