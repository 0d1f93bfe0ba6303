"""A stored row becomes the result a user reads."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from batchor_engine.core.outcomes import LineRef
from batchor_engine.core.segment import SegmentRow
from batchor_engine.errors import StructuredOutputError
from batchor_engine.models import ItemFailure, StructuredItemResult, TextItemResult
from batchor_engine.results.items import result_of, structured_result, text_result
from batchor_engine.states import ItemStatus


class Bird(BaseModel):
    species: str
    count: int


REF = LineRef("output", 5, 9)
DONE = SegmentRow(
    0, "a", 0, True, "completed", 2, "a:a2", '{"species":"heron","count":2}', None, None, False, None, None, None, REF
)
FAILED = DONE._replace(
    status="failed_permanent",
    error_class="invalid_json",
    error_message="no JSON",
    raw_error_json='{"code":7}',
    metadata_json='{"day":"x"}',
    text="oops",
)


def test_a_completed_text_row() -> None:
    assert text_result(DONE) == TextItemResult("a", ItemStatus.COMPLETED, 2, output_text=DONE.text)


def test_a_completed_structured_row_holds_the_model_and_its_text() -> None:
    result = structured_result(DONE, Bird)
    assert result.output == Bird(species="heron", count=2)
    assert result.output_text == DONE.text
    assert result.error is None


def test_a_failed_row_keeps_text_reason_and_metadata() -> None:
    result = structured_result(FAILED, Bird)
    assert result == StructuredItemResult(
        "a",
        ItemStatus.FAILED_PERMANENT,
        2,
        output_text="oops",
        error=ItemFailure("invalid_json", "no JSON", False, {"code": 7}),
        metadata={"day": "x"},
    )


def test_the_raw_record_is_loaded_by_its_place() -> None:
    asked: list[LineRef] = []
    result = text_result(DONE, lambda ref: asked.append(ref) or {"id": "r"})
    assert result.raw_response == {"id": "r"}
    assert asked == [REF]
    assert text_result(DONE._replace(ref=None), lambda ref: {"id": "r"}).raw_response is None
    assert text_result(DONE, lambda ref: None).raw_response is None


def test_the_model_decides_the_kind_of_result() -> None:
    assert isinstance(result_of(DONE, None), TextItemResult)
    assert isinstance(result_of(DONE, Bird), StructuredItemResult)


def test_an_answer_that_no_longer_fits_names_its_item() -> None:
    with pytest.raises(StructuredOutputError, match=r"item 'a'.*was valid when it was collected"):
        structured_result(DONE._replace(text='{"species":1}'), Bird)
