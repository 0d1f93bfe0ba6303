"""Segment rows as the results a user reads.

Law: a result says what was stored. The model builds `output` again from the stored text; nothing is judged anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel
from pydantic_core import from_json

from batchor_engine.core.outcomes import LineRef
from batchor_engine.core.parsing import parse_answer
from batchor_engine.core.segment import SegmentRow
from batchor_engine.core.vectors import unpack
from batchor_engine.errors import StructuredOutputError
from batchor_engine.models import (
    BatchResultItem,
    EmbeddingItemResult,
    Form,
    ItemFailure,
    JSONObject,
    ModelT,
    StructuredItemResult,
    TextItemResult,
)
from batchor_engine.states import ItemStatus

# A look-up costs a fifth of what calling the enumeration does.
_STATUS = {status.value: status for status in ItemStatus}
RawReader = Callable[[LineRef], JSONObject | None]


def text_result(row: SegmentRow, raw: RawReader | None = None) -> TextItemResult:
    """A row of a text job; `raw` loads the provider's record where it is still kept."""
    return TextItemResult(
        item_id=row.item_id,
        status=_STATUS[row.status],
        attempt_count=row.attempt_count,
        output_text=row.text,
        raw_response=_raw_response(row, raw),
        error=_failure(row),
        metadata=_metadata(row),
    )


def structured_result(
    row: SegmentRow, model: type[ModelT], raw: RawReader | None = None
) -> StructuredItemResult[ModelT]:
    """A row of a structured job; `output` is None unless the row completed.

    StructuredOutputError where the stored answer no longer fits the model, because the model is not the one it had.
    """
    return StructuredItemResult(
        item_id=row.item_id,
        status=_STATUS[row.status],
        attempt_count=row.attempt_count,
        output=_output(row, model) if row.status == ItemStatus.COMPLETED else None,
        output_text=row.text,
        raw_response=_raw_response(row, raw),
        error=_failure(row),
        metadata=_metadata(row),
    )


def embedding_result(row: SegmentRow, raw: RawReader | None = None) -> EmbeddingItemResult:
    """A row of an embeddings job; `embedding` is None unless the row completed."""
    return EmbeddingItemResult(
        item_id=row.item_id,
        status=ItemStatus(row.status),
        attempt_count=row.attempt_count,
        embedding=unpack(row.text) if row.text and row.status == ItemStatus.COMPLETED else None,
        raw_response=_raw_response(row, raw),
        error=_failure(row),
        metadata=_metadata(row),
    )


def result_of(row: SegmentRow, form: Form, raw: RawReader | None = None) -> BatchResultItem:
    """The result of a row: structured where the answers have a model, a vector, else text."""
    if form is None:
        return text_result(row, raw)
    return structured_result(row, form, raw) if issubclass(form, BaseModel) else embedding_result(row, raw)


def _output(row: SegmentRow, model: type[ModelT]) -> ModelT:
    try:
        return parse_answer(row.text, model)
    except StructuredOutputError as error:
        raise StructuredOutputError(
            error.error_class,
            f"The stored answer of item {row.item_id!r} was valid when it was collected, but is not for this "
            f"{model.__qualname__}: {error}. Read it with the model the run was started with.",
            raw_error=error.raw_error,
        ) from error


def _raw_response(row: SegmentRow, raw: RawReader | None) -> JSONObject | None:
    return None if raw is None or row.ref is None else raw(row.ref)


def _metadata(row: SegmentRow) -> JSONObject:
    if row.metadata_json is None:
        return {}
    try:
        return from_json(row.metadata_json, cache_strings="keys")
    except ValueError:
        return json.loads(row.metadata_json)  # half a character, as an escape


def _failure(row: SegmentRow) -> ItemFailure | None:
    if row.error_class is None:
        return None
    raw: Any = None if row.raw_error_json is None else json.loads(row.raw_error_json)
    return ItemFailure(row.error_class, row.error_message or "", row.retryable, raw)
