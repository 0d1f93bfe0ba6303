from __future__ import annotations

import json
import pickle
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, field_validator

from batchor_engine.core.parsing import parse_answer, strip_fence
from batchor_engine.errors import StructuredOutputError


class Sighting(BaseModel):
    species: str
    count: int

    @field_validator("count")
    @classmethod
    def _not_thirteen(cls, count: int) -> int:
        if count == 13:
            raise KeyError("a defect of the user's validator")
        return count


GOOD = '{"species": "heron", "count": 2}'


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"\n  {GOOD}\n",
        f"```json\n{GOOD}\n```",
        f"```\n{GOOD}\n```",
        f"```JSON\r\n{GOOD}\r\n```\r\n",
        f"``` {GOOD} ```",
        f"```json {GOOD}```",
    ],
)
def test_an_answer_is_read_with_or_without_a_fence(text: str) -> None:
    assert parse_answer(text, Sighting) == Sighting(species="heron", count=2)


@pytest.mark.parametrize(
    ("text", "error_class"),
    [
        (None, "empty_response_text"),
        ("", "empty_response_text"),
        (" \n\t", "empty_response_text"),
        ("two herons", "invalid_json"),
        ('{"species": "heron", "count": 2', "invalid_json"),
        ("```json\n```", "invalid_json"),
        (f"{GOOD} {GOOD}", "invalid_json"),
        ("[" * 10_000, "invalid_json"),
        ('{"species": "heron"}', "structured_output_validation_failed"),
        ('{"species": "heron", "count": "many"}', "structured_output_validation_failed"),
        ("null", "structured_output_validation_failed"),
        ("[]", "structured_output_validation_failed"),
        ('{"species": "heron", "count": 13}', "structured_output_validation_failed"),
    ],
)
def test_what_is_no_answer_has_its_class(text: str | None, error_class: str) -> None:
    with pytest.raises(StructuredOutputError) as caught:
        parse_answer(text, Sighting)
    assert caught.value.error_class == error_class


def test_a_validation_error_names_the_field_and_survives_pickling() -> None:
    with pytest.raises(StructuredOutputError, match="count: Input should be a valid integer") as caught:
        parse_answer('{"species": "heron", "count": "many"}', Sighting)
    again = pickle.loads(pickle.dumps(caught.value))
    assert again.raw_error == [
        {"type": "int_parsing", "loc": ["count"], "msg": again.raw_error[0]["msg"]},
    ]
    json.dumps(again.raw_error)


class Wordless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("a defect of the user's exception")


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (Wordless(), r"Guarded raised Wordless: \(its __str__ raised RuntimeError\)"),
        (SystemExit(3), "Guarded raised SystemExit: 3"),
        (LookupError("half a pair: \ud800"), r"Guarded raised LookupError: half a pair: \\ud800"),
    ],
    ids=["wordless", "exit", "half a pair"],
)
def test_whatever_a_validator_raises_is_a_rejection_that_can_be_told_and_stored(
    raised: BaseException, told: str
) -> None:
    with pytest.raises(StructuredOutputError, match=told) as caught:
        parse_answer(GOOD, guarded(raised))
    assert caught.value.error_class == "structured_output_validation_failed"
    str(caught.value).encode()


def test_a_validator_does_not_keep_a_user_from_stopping_the_program() -> None:
    with pytest.raises(KeyboardInterrupt):
        parse_answer(GOOD, guarded(KeyboardInterrupt()))


def guarded(raised: BaseException) -> type[BaseModel]:
    class Guarded(Sighting):
        @field_validator("species")
        @classmethod
        def _raises(cls, species: str) -> str:
            raise raised

    return Guarded


@given(st.text())
def test_any_text_parses_or_is_a_structured_output_error(text: str) -> None:
    # Contexts that end with any other error fail the test.
    with suppress(StructuredOutputError):
        assert isinstance(parse_answer(text, Sighting), Sighting)


@given(st.builds(Sighting, species=st.text(), count=st.integers(14, 10**12)))
def test_what_a_model_writes_it_reads_in_and_out_of_a_fence(sighting: Sighting) -> None:
    text = sighting.model_dump_json()
    assert parse_answer(text, Sighting) == parse_answer(f"```json\n{text}\n```", Sighting) == sighting


def test_a_fence_inside_an_answer_is_content() -> None:
    text = 'Here it is: ```json\n{"a": 1}\n```'
    assert strip_fence(text) == text
