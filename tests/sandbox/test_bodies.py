from __future__ import annotations

import base64
import math
import struct
from typing import Any

import pytest

CHAT, EMBED, MODERATE = "/v1/chat/completions", "/v1/embeddings", "/v1/moderations"


def line(url: str, custom_id: str = "r1", **body: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": {"model": "m", **body}}


def outcome(shop: Any, one: dict[str, Any]) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """(body of the answer, error) of a batch of one line."""
    batch = shop.done([one], one["url"])
    good, bad = shop.rows(batch.output_file_id), shop.rows(batch.error_file_id)
    if good:
        return good[0]["response"]["body"], None
    assert bad[0]["response"]["status_code"] == 400
    return None, bad[0]["response"]["body"]["error"]


def test_a_response_has_a_reasoning_item_only_when_effort_was_asked_for(shop: Any) -> None:
    body, _ = outcome(shop, shop.line("r1", reasoning={"effort": "low"}))
    assert [one["type"] for one in body["output"]] == ["reasoning", "message"]
    assert body["usage"]["output_tokens_details"]["reasoning_tokens"] >= 64
    for plain in ({}, {"reasoning": {"effort": "none"}}):
        body, _ = outcome(shop, shop.line("r1", **plain))
        assert [one["type"] for one in body["output"]] == ["message"]
    assert (body["object"], body["status"], body["error"]) == ("response", "completed", None)
    assert body["output"][0]["content"][0]["type"] == "output_text"


def test_chat_answers_have_the_chat_shape(shop: Any) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
    ]
    body, _ = outcome(shop, line(CHAT, messages=messages, reasoning_effort="low"))
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["choices"][0]["message"]["content"]
    assert body["usage"]["completion_tokens_details"]["reasoning_tokens"] >= 64


def test_embeddings_are_unit_vectors_of_the_asked_size(shop: Any) -> None:
    body, _ = outcome(shop, line(EMBED, input=["a", "b", "a"], dimensions=64))
    vectors = [one["embedding"] for one in body["data"]]
    assert [len(one) for one in vectors] == [64, 64, 64]
    assert vectors[0] == vectors[2] != vectors[1]
    assert all(math.isclose(sum(x * x for x in one), 1.0, rel_tol=1e-5) for one in vectors)
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] > 0
    packed, _ = outcome(shop, line(EMBED, input="a", dimensions=64, encoding_format="base64"))
    raw = base64.b64decode(packed["data"][0]["embedding"])
    assert struct.unpack("<64f", raw) == pytest.approx(vectors[0], abs=1e-6)
    plain, _ = outcome(shop, line(EMBED, input=[1, 2, 3]))
    assert [len(one["embedding"]) for one in plain["data"]] == [1536]


def test_moderations_flag_what_is_violent(shop: Any) -> None:
    body, _ = outcome(shop, line(MODERATE, input=["hello", "I will kill you"]))
    assert [one["flagged"] for one in body["results"]] == [False, True]


BAD_BODIES: list[tuple[str, dict[str, Any], str, str]] = [
    ("/v1/responses", {"input": "x", "surprise": 1}, "unknown_parameter", "surprise"),
    ("/v1/responses", {"input": "x", "messages": []}, "unknown_parameter", "messages"),
    ("/v1/responses", {"input": "x", "response_format": {}}, "unknown_parameter", "response_format"),
    ("/v1/responses", {"input": "x", "reasoning_effort": "low"}, "unknown_parameter", "reasoning_effort"),
    ("/v1/responses", {}, "missing_required_parameter", "input"),
    ("/v1/responses", {"input": 5}, "invalid_type", "input"),
    ("/v1/responses", {"input": []}, "invalid_value", "input"),
    ("/v1/responses", {"input": [{"role": "nobody", "content": "x"}]}, "invalid_value", "input[0].role"),
    ("/v1/responses", {"input": "x", "reasoning": {"effort": "huge"}}, "invalid_value", "reasoning.effort"),
    ("/v1/responses", {"input": "x", "reasoning": {"efort": "low"}}, "unknown_parameter", "reasoning.efort"),
    ("/v1/responses", {"input": "x", "temperature": 3}, "invalid_value", "temperature"),
    ("/v1/responses", {"input": "x", "temperature": "1"}, "invalid_type", "temperature"),
    ("/v1/responses", {"input": "x", "max_output_tokens": 1}, "invalid_value", "max_output_tokens"),
    ("/v1/responses", {"input": "x", "stream": True}, "invalid_value", "stream"),
    ("/v1/responses", {"input": "x", "text": {"format": {"type": "jsonschema"}}}, "invalid_value", "text.format.type"),
    (
        "/v1/responses",
        {"input": "x", "text": {"format": {"type": "json_schema", "name": "no spaces", "schema": {}}}},
        "invalid_value",
        "text.format.name",
    ),
    (CHAT, {}, "missing_required_parameter", "messages"),
    (CHAT, {"messages": []}, "invalid_value", "messages"),
    (CHAT, {"messages": ["x"]}, "invalid_type", "messages[0]"),
    (CHAT, {"messages": [{"role": "user"}]}, "missing_required_parameter", "messages[0].content"),
    (CHAT, {"messages": [{"role": "user", "content": "x"}], "input": "x"}, "unknown_parameter", "input"),
    (CHAT, {"messages": [{"role": "user", "content": "x"}], "reasoning": {}}, "unknown_parameter", "reasoning"),
    (
        CHAT,
        {"messages": [{"role": "user", "content": "x"}], "response_format": {"type": "json_schema", "json_schema": {}}},
        "missing_required_parameter",
        "response_format.json_schema.name",
    ),
    (EMBED, {}, "missing_required_parameter", "input"),
    (EMBED, {"input": None}, "invalid_type", "input"),
    (EMBED, {"input": ""}, "invalid_value", "input"),
    (EMBED, {"input": "x", "encoding_format": "hex"}, "invalid_value", "encoding_format"),
    (EMBED, {"input": "x", "temperature": 1}, "unknown_parameter", "temperature"),
    (MODERATE, {}, "missing_required_parameter", "input"),
]


@pytest.mark.parametrize(
    ("url", "body", "code", "param"), BAD_BODIES, ids=[f"{b[0]}-{b[3]}-{b[2]}" for b in BAD_BODIES]
)
def test_a_bad_body_is_a_400_of_its_line_alone(
    shop: Any, url: str, body: dict[str, Any], code: str, param: str
) -> None:
    good = {"messages": [{"role": "user", "content": "x"}]} if url == CHAT else {"input": "x"}
    batch = shop.done([line(url, "bad", **body), line(url, "good", **good)], url)
    assert batch.status == "completed"
    assert (batch.request_counts.completed, batch.request_counts.failed) == (1, 1)
    assert list(shop.by_id(batch.output_file_id)) == ["good"]
    row = shop.by_id(batch.error_file_id)["bad"]
    assert row["response"]["status_code"] == 400
    error = row["response"]["body"]["error"]
    assert (error["code"], error["param"]) == (code, param)
    assert shop.server.stats()["paid_lines"] == 1


def test_a_batch_whose_every_line_is_bad_has_only_an_error_file(shop: Any) -> None:
    batch = shop.done(shop.lines(3, surprise=1))
    assert (batch.status, batch.output_file_id, batch.request_counts.failed) == ("completed", None, 3)
    assert len(shop.rows(batch.error_file_id)) == 3


def closed(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


TEXT = {"type": "string"}
BAD_SCHEMAS: list[tuple[str, Any, str]] = [
    ("root array", {"type": "array", "items": TEXT}, 'type: "object"'),
    ("root ref", {"$ref": "#/$defs/A", "$defs": {"A": closed(a=TEXT)}}, 'type: "object"'),
    ("root anyOf", {**closed(a=TEXT), "anyOf": [closed(a=TEXT)]}, "'anyOf' at the top level"),
    ("open", {"type": "object", "properties": {}, "required": []}, "additionalProperties"),
    ("open below", closed(a={"type": "object", "properties": {"b": TEXT}, "required": ["b"]}), "additionalProperties"),
    ("free dict", closed(a={"type": "object", "additionalProperties": TEXT}), "additionalProperties"),
    ("optional", closed(a=TEXT) | {"required": []}, "Missing 'a'"),
    ("no required", {"type": "object", "properties": {"a": TEXT}, "additionalProperties": False}, "'required'"),
    ("unknown required", closed(a=TEXT) | {"required": ["a", "b"]}, "unknown property 'b'"),
    ("oneOf", closed(a={"oneOf": [TEXT]}), "'oneOf' is not permitted"),
    ("allOf", closed(a={"allOf": [TEXT]}), "'allOf' is not permitted"),
    ("tuple", closed(a={"type": "array", "items": TEXT, "prefixItems": [TEXT]}), "'prefixItems' is not permitted"),
    ("unique", closed(a={"type": "array", "items": TEXT, "uniqueItems": True}), "'uniqueItems' is not permitted"),
    ("default", closed(a={"type": "string", "default": "x"}), "'default' is not permitted"),
    ("no items", closed(a={"type": "array"}), "missing items"),
    ("no type", closed(a={}), "'type' key"),
    ("odd type", closed(a={"type": "text"}), "not a valid type"),
    ("odd format", closed(a={"type": "string", "format": "uri"}), "not a valid format"),
    ("bad pattern", closed(a={"type": "string", "pattern": "("}), "regular expression"),
    ("ref and more", closed(a={"$ref": "#/$defs/A", "description": "x"}) | {"$defs": {"A": TEXT}}, "$ref cannot have"),
    ("ref to nowhere", closed(a={"$ref": "#/$defs/B"}), "cannot be resolved"),
    ("bad in defs", closed(a=TEXT) | {"$defs": {"A": {"type": "object"}}}, "additionalProperties"),
    ("bad in anyOf", closed(a={"anyOf": [{"type": "null"}, {"type": "object"}]}), "additionalProperties"),
    ("bad in items", closed(a={"type": "array", "items": {"type": "object"}}), "additionalProperties"),
    ("not a schema", closed(a=True), "must be a JSON object"),
    ("too many enums", closed(a={"type": "string", "enum": [str(n) for n in range(1001)]}), "limit of 1000"),
]


@pytest.mark.parametrize(("schema", "words"), [one[1:] for one in BAD_SCHEMAS], ids=[one[0] for one in BAD_SCHEMAS])
def test_a_schema_that_is_not_strict_is_a_400_of_its_line(shop: Any, schema: Any, words: str) -> None:
    _, error = outcome(shop, shop.structured("r1", schema))
    assert (error["code"], error["param"]) == ("invalid_json_schema", "text.format.schema")
    assert words in error["message"]


def test_too_deep_a_schema_is_refused(shop: Any) -> None:
    schema: dict[str, Any] = TEXT
    for _ in range(10):
        schema = closed(a=schema)
    _, error = outcome(shop, shop.structured("r1", schema))
    assert "deeper than 10 levels" in error["message"]


def test_the_same_schema_is_free_without_strict(shop: Any) -> None:
    wrapper = {"type": "json_schema", "name": "x", "schema": {"type": "object", "properties": {"a": TEXT}}}
    body, error = outcome(shop, shop.line("r1", text={"format": wrapper}))
    assert (error, body is not None) == (None, True)


def test_chat_schemas_are_checked_too(shop: Any) -> None:
    wrapper = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": {"type": "object"}}}
    _, error = outcome(shop, line(CHAT, messages=[{"role": "user", "content": "x"}], response_format=wrapper))
    assert (error["code"], error["param"]) == ("invalid_json_schema", "response_format")
