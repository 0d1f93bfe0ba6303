from __future__ import annotations

import enum
import json
import re
from datetime import date, datetime
from random import Random
from typing import Annotated, Any, Literal

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from batchor_engine.sandbox import SandboxAnswer, SandboxRequest
from batchor_engine.sandbox.generate import CannotFitError, fit, rng_for
from batchor_engine.sandbox.patterns import string_for
from batchor_engine.sandbox.schema_check import schema_problem


class Level(enum.StrEnum):
    LOW = "low"
    HIGH = "high"


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Person(Closed):
    name: str
    email: Annotated[str, Field(pattern=r"^[a-z]{2,8}@example\.(com|org)$")] | None


class Ticket(Closed):
    level: Level
    kind: Literal["bug", "wish"]
    score: Annotated[int, Field(ge=1, le=5)]
    share: Annotated[float, Field(gt=0, lt=1)]
    tags: Annotated[list[str], Field(min_length=1, max_length=3)]
    day: date
    at: datetime
    owner: Person | None
    others: list[Person]
    mixed: int | str | None


class Node(Closed):
    label: str
    children: list[Node]
    left: Node | None


class Wrapper(Closed):
    root: Node


@pytest.mark.parametrize("model", [Person, Ticket, Wrapper])
def test_answers_validate_as_the_users_model(shop: Any, model: type[BaseModel]) -> None:
    schema = model.model_json_schema()
    assert schema_problem(schema) is None
    lines = [shop.structured(f"r{at}", schema, f"text {at}") for at in range(30)]
    batch = shop.done(lines)
    assert batch.request_counts.completed == 30
    texts = {shop.text(row) for row in shop.rows(batch.output_file_id)}
    assert len(texts) > 5
    for text in texts:
        model.model_validate_json(text)
        jsonschema.validate(json.loads(text), schema, format_checker=jsonschema.FormatChecker())


def closed(properties: dict[str, Any]) -> dict[str, Any]:
    names = list(properties)
    return {"type": "object", "properties": properties, "required": names, "additionalProperties": False}


def bounded(low: int, size: int, kind: str) -> dict[str, Any]:
    return {"type": kind, "minimum": low, "maximum": low + size}


LEAVES = st.one_of(
    st.sampled_from(
        [
            {"type": "string"},
            {"type": "boolean"},
            {"type": "null"},
            {"type": "integer"},
            {"type": "number"},
            {"type": ["string", "null"]},
            {"type": ["integer", "null"]},
            {"type": "string", "format": "date"},
            {"type": "string", "format": "ipv4"},
            {"type": "string", "format": "ipv6"},
            {"type": "string", "format": "uuid"},
            {"type": "string", "minLength": 60, "maxLength": 70},
            {"type": "integer", "multipleOf": 7},
            {"type": "number", "multipleOf": 0.5, "minimum": 2.2},
            {"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 5},
            {"type": "integer", "maximum": -4},
            {"const": "fixed"},
            {"$ref": "#/$defs/tree"},
        ]
    ),
    st.builds(bounded, st.integers(-1000, 1000), st.integers(0, 50), st.sampled_from(["integer", "number"])),
    st.lists(st.text(max_size=5), min_size=1, max_size=4).map(lambda values: {"type": "string", "enum": values}),
)
NODES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.dictionaries(st.text(max_size=4), inner, max_size=3).map(closed),
        st.builds(
            lambda one, low: {"type": "array", "items": one, "minItems": low, "maxItems": low + 2},
            inner,
            st.integers(0, 2),
        ),
        st.lists(inner, min_size=1, max_size=3).map(lambda many: {"anyOf": many}),
    ),
    max_leaves=8,
)
TREE = closed({"value": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/tree"}, {"type": "null"}]}})


@settings(max_examples=150)
@given(st.dictionaries(st.text(max_size=4), NODES, max_size=4), st.text(max_size=20))
def test_every_generated_value_fits_its_schema(properties: dict[str, Any], prompt: str) -> None:
    schema = closed(properties) | {"$defs": {"tree": TREE}}
    value = fit(schema, rng_for(prompt))
    jsonschema.Draft202012Validator(schema).validate(value)
    assert fit(schema, rng_for(prompt)) == value


def test_a_recursive_root_ends(shop: Any) -> None:
    schema = closed({"name": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#"}}})
    batch = shop.done([shop.structured(f"r{at}", schema) for at in range(20)])
    for row in shop.rows(batch.output_file_id):
        jsonschema.validate(json.loads(shop.text(row)), schema)


def test_a_schema_that_never_ends_is_a_400_of_its_line(shop: Any) -> None:
    schema = closed({"next": {"$ref": "#"}})
    with pytest.raises(CannotFitError):
        fit(schema, rng_for("x"))
    row = shop.rows(shop.done([shop.structured("r1", schema)]).error_file_id)[0]
    assert row["response"]["status_code"] == 400


PATTERNS = (
    r"^[A-Z]{3}-\d{4}$",
    r"^(a|bc)+x?$",
    r"^\+?[0-9]{7,12}$",
    r"^[^,]{3}$",
    r"\w+@\w+\.com",
    r"^(?:ab){2}c*$",
    r"^[a-z0-9_-]+$",
)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_made_string_matches_its_pattern(pattern: str) -> None:
    for seed in range(50):
        made = string_for(pattern, Random(seed))
        assert made is not None
        assert re.search(pattern, made)


def test_too_clever_a_pattern_is_left_alone() -> None:
    assert string_for(r"(?<=a)b", Random(1)) is None


def test_an_answer_depends_on_the_prompt_and_not_on_id_or_batch(shop: Any) -> None:
    first = shop.by_id(
        shop.done([shop.line("a", "same"), shop.line("b", "same"), shop.line("c", "other")]).output_file_id
    )
    second = shop.by_id(shop.done([shop.line("z", "same")]).output_file_id)
    texts = {key: shop.text(row) for key, row in (first | second).items()}
    assert texts["a"] == texts["b"] == texts["z"] != texts["c"]


def test_json_mode_answers_with_an_object(shop: Any) -> None:
    batch = shop.done([shop.line("a", text={"format": {"type": "json_object"}})])
    assert isinstance(json.loads(shop.text(shop.rows(batch.output_file_id)[0])), dict)


def test_long_prompts_are_partly_cached(shop: Any) -> None:
    batch = shop.done([shop.line("a", "hi", instructions="rule " * 2000)])
    usage = batch.usage
    assert usage.input_tokens > usage.input_tokens_details.cached_tokens > 1024


def test_max_output_tokens_cuts_the_answer(shop: Any) -> None:
    batch = shop.done([shop.line("a", max_output_tokens=16)], metadata={})
    body = shop.rows(batch.output_file_id)[0]["response"]["body"]
    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert body["usage"]["output_tokens"] <= 16


def respond(request: SandboxRequest) -> Any:
    given = {
        "text": f"{request.system}|{request.prompt}|{request.model}|{request.endpoint}",
        "json": {"é": [1, None]},
        "refusal": SandboxAnswer(refusal="no"),
        "error": SandboxAnswer(status_code=429, error_code="rate_limit_exceeded", error_message="slow"),
        "usage": SandboxAnswer(text="x", input_tokens=5, output_tokens=6, reasoning_tokens=2, cached_tokens=1),
        "body": SandboxAnswer(body={"anything": True}),
    }
    if request.custom_id == "crash":
        raise RuntimeError("my own mistake")
    return given[request.custom_id]


def test_a_responder_decides_what_is_answered(open_shop: Any, capsys: pytest.CaptureFixture[str]) -> None:
    shop = open_shop(responder=respond)
    ids = ("text", "json", "refusal", "error", "usage", "body", "crash")
    batch = shop.done([shop.line(one, "Hi", instructions="Sys") for one in ids])
    good, bad = shop.by_id(batch.output_file_id), shop.by_id(batch.error_file_id)
    assert shop.text(good["text"]) == "Sys|Hi|gpt-5-mini|/v1/responses"
    assert json.loads(shop.text(good["json"])) == {"é": [1, None]}
    refusal = good["refusal"]["response"]["body"]["output"][0]["content"][0]
    assert refusal == {"type": "refusal", "refusal": "no"}
    usage = good["usage"]["response"]["body"]["usage"]
    assert (usage["input_tokens"], usage["total_tokens"]) == (5, 11)
    assert good["body"]["response"]["body"] == {"anything": True}
    assert bad["error"]["response"]["status_code"] == 429
    assert bad["error"]["response"]["body"]["error"]["code"] == "rate_limit_exceeded"
    assert bad["crash"]["response"]["status_code"] == 500
    assert "my own mistake" in bad["crash"]["response"]["body"]["error"]["message"]
    assert "RuntimeError" in capsys.readouterr().err
