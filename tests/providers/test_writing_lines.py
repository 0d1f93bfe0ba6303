from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchor_engine.config import OpenAIEndpoint, OpenAIProviderConfig
from batchor_engine.core.lines import custom_id_of, id_and_body, with_custom_id
from batchor_engine.models import PromptParts
from batchor_engine.ports.providers import StructuredOutputSchema
from batchor_engine.providers.wire import RequestWriter, merged

SCHEMA = StructuredOutputSchema("thing", {"type": "object", "properties": {"é": {"type": "string"}}, "required": ["é"]})
CHAT = OpenAIEndpoint.CHAT_COMPLETIONS
TEXT = st.text(st.characters(codec="utf-8"))


def writer(**config: Any) -> RequestWriter:
    return RequestWriter(OpenAIProviderConfig(model="gpt-5-mini", **config))


def body(parts: PromptParts, structured: StructuredOutputSchema | None = None, **config: Any) -> dict[str, Any]:
    return json.loads(writer(**config).render("a:a1", parts, structured))["body"]


def test_a_responses_line_has_the_contracts_shape() -> None:
    line = json.loads(writer(reasoning_effort="low").render("a:a1", PromptParts("hi", "be brief"), SCHEMA))
    assert line == {
        "custom_id": "a:a1",
        "method": "POST",
        "url": "/v1/responses",
        "body": {
            "model": "gpt-5-mini",
            "input": "hi",
            "instructions": "be brief",
            "reasoning": {"effort": "low"},
            "text": {"format": {"type": "json_schema", "name": "thing", "strict": True, "schema": SCHEMA.schema}},
        },
    }


def test_a_chat_line_has_the_contracts_shape() -> None:
    line = json.loads(
        writer(endpoint=CHAT, reasoning_effort="low").render("a:a1", PromptParts("hi", "be brief"), SCHEMA)
    )
    assert line["url"] == "/v1/chat/completions"
    assert line["body"] == {
        "model": "gpt-5-mini",
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}],
        "reasoning_effort": "low",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "thing", "strict": True, "schema": SCHEMA.schema},
        },
    }


def test_what_is_not_asked_for_is_left_out() -> None:
    assert body(PromptParts("hi")) == {"model": "gpt-5-mini", "input": "hi"}
    assert body(PromptParts("hi"), endpoint=CHAT) == {
        "model": "gpt-5-mini",
        "messages": [{"role": "user", "content": "hi"}],
    }


def test_a_conversation_replaces_the_prompt() -> None:
    turns: list[Any] = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    parts = PromptParts("unused", "sys", messages=turns)
    assert body(parts) == {"model": "gpt-5-mini", "input": turns, "instructions": "sys"}
    assert body(parts, endpoint=CHAT)["messages"] == [{"role": "system", "content": "sys"}, *turns]


def test_options_of_the_item_win_over_options_of_the_config() -> None:
    config: Any = {"temperature": 0.1, "text": {"verbosity": "low"}, "metadata": {"a": "1", "b": "2"}}
    parts = PromptParts("hi", request_options={"temperature": 0.9, "metadata": {"b": "3"}})
    made = body(parts, SCHEMA, request_options=config)
    assert made["temperature"] == 0.9
    assert made["metadata"] == {"a": "1", "b": "3"}
    assert made["text"]["verbosity"] == "low"
    assert made["text"]["format"]["schema"] == SCHEMA.schema


def test_an_option_beside_the_effort_is_kept() -> None:
    parts = PromptParts("hi", request_options={"reasoning": {"summary": "auto"}})
    assert body(parts, reasoning_effort="high")["reasoning"] == {"summary": "auto", "effort": "high"}


CONFLICTS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"model": "other"}, "model"),
    ({}, {"input": "other"}, "input"),
    ({}, {"instructions": "other"}, "instructions"),
    ({}, {"stream": True}, "stream"),
    ({}, {"text": {"format": {"type": "text"}}}, "text.format"),
    ({}, {"text": "odd"}, "text"),
    ({"reasoning_effort": "low"}, {"reasoning": {"effort": "high"}}, "reasoning.effort"),
    ({"endpoint": CHAT}, {"model": "other"}, "model"),
    ({"endpoint": CHAT}, {"messages": []}, "messages"),
    ({"endpoint": CHAT}, {"response_format": {"type": "text"}}, "response_format"),
    ({"endpoint": CHAT, "reasoning_effort": "low"}, {"reasoning_effort": "high"}, "reasoning_effort"),
]


@pytest.mark.parametrize(("config", "options", "key"), CONFLICTS)
@pytest.mark.parametrize("at", ["item", "config"])
def test_an_option_that_the_engine_sets_is_refused_by_name(
    config: dict[str, Any], options: dict[str, Any], key: str, at: str
) -> None:
    parts = PromptParts("hi", "sys", request_options=options if at == "item" else {})
    with pytest.raises(ValueError, match=f"request 'a:a1': .*{key!r}"):
        writer(**config, request_options=options if at == "config" else {}).render("a:a1", parts, SCHEMA)


def test_what_the_engine_does_not_set_may_be_an_option() -> None:
    options: Any = {"instructions": "mine", "text": {"format": {"type": "json_object"}}, "reasoning": {"effort": "low"}}
    assert body(PromptParts("hi", request_options=options)) == {"model": "gpt-5-mini", "input": "hi", **options}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), b"bytes", {1, 2}])
def test_an_option_that_is_no_json_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="request_options"):
        writer(request_options={"x": value})
    with pytest.raises(ValueError, match="request_options must be plain JSON"):
        writer().render("a:a1", PromptParts("hi", request_options={"x": value}), None)


@pytest.mark.parametrize(
    "parts", [PromptParts("\ud800"), PromptParts("a", "\udfff"), PromptParts("a", messages=[{"\ud800": 1}])]
)
def test_a_lone_surrogate_is_refused_with_the_requests_id(parts: PromptParts) -> None:
    with pytest.raises(ValueError, match="request 'a:a1' cannot be written as JSON"):
        writer().render("a:a1", parts, SCHEMA)
    warm = writer()
    for good in (PromptParts("x"), PromptParts("x", "y")):
        warm.render("z:a1", good, SCHEMA)
    with pytest.raises(ValueError, match="request 'a:a1' cannot be written as JSON"):
        warm.render("a:a1", parts, SCHEMA)


@given(custom_id=TEXT, prompt=TEXT, system=st.none() | TEXT, structured=st.sampled_from([None, SCHEMA]))
@pytest.mark.parametrize("endpoint", [OpenAIEndpoint.RESPONSES, CHAT])
def test_rendered_bytes_are_the_line(
    endpoint: OpenAIEndpoint, custom_id: str, prompt: str, system: str | None, structured: StructuredOutputSchema | None
) -> None:
    maker = writer(endpoint=endpoint, reasoning_effort="low", request_options={"text": {"verbosity": "low"}})
    parts = PromptParts(prompt, system)
    maker.render("first:a1", PromptParts("first", system), structured)
    rendered = maker.render(custom_id, parts, structured)
    assert rendered == writer(
        endpoint=endpoint, reasoning_effort="low", request_options={"text": {"verbosity": "low"}}
    ).render(custom_id, parts, structured), "the first line of a writer is rendered as a whole, later ones by a form"
    assert json.loads(rendered) == maker.line(custom_id, parts, structured)
    assert b"\n" not in rendered
    assert rendered.startswith(b'{"custom_id":')


@given(old=TEXT, new=TEXT, prompt=TEXT)
def test_a_retry_changes_the_id_and_no_other_byte(old: str, new: str, prompt: str) -> None:
    line = writer().render(old, PromptParts(prompt), SCHEMA)
    again = with_custom_id(line, new)
    assert custom_id_of(line) == old
    assert custom_id_of(again) == new
    assert id_and_body(line)[1] == id_and_body(again)[1] == id_and_body(again + b"\n")[1]
    assert again == writer().render(new, PromptParts(prompt), SCHEMA)


@given(old=TEXT, indent=st.sampled_from([None, 2]), ascii_only=st.booleans())
def test_an_id_is_found_however_another_writer_spaces_and_escapes_it(
    old: str, indent: int | None, ascii_only: bool
) -> None:
    line = json.dumps(
        {"custom_id": old, "body": {"custom_id": "inner"}}, ensure_ascii=ascii_only, indent=indent
    ).encode()
    assert json.loads(with_custom_id(line, "new")) == {"custom_id": "new", "body": {"custom_id": "inner"}}


@pytest.mark.parametrize("line", [b"", b"{}", b'{"url":"x","custom_id":"a"}', b'{"custom_id":7}', b'{"custom_id":"a'])
def test_a_line_without_an_id_in_front_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match="custom_id"):
        with_custom_id(line, "new")


def test_a_retry_keeps_the_newline() -> None:
    assert with_custom_id(b'{"custom_id":"a","x":1}\n', "b") == b'{"custom_id":"b","x":1}\n'


def test_merging_goes_object_by_object_and_changes_neither() -> None:
    under, over = {"a": {"x": 1, "y": 2}, "b": [1]}, {"a": {"y": 3}, "b": [2], "c": {"z": 1}}
    assert merged(under, over) == {"a": {"x": 1, "y": 3}, "b": [2], "c": {"z": 1}}
    assert under == {"a": {"x": 1, "y": 2}, "b": [1]}


IMAGE = "data:image/png;base64,iVBORw0KGgo="
TOOL: Any = {"type": "function", "name": "look_up", "parameters": {"type": "object", "properties": {}}}
SEEN: list[Any] = [
    {"role": "user", "content": [{"type": "input_text", "text": "What is it?"}]},
    {"role": "assistant", "content": [{"type": "output_text", "text": "A heron."}]},
    {"type": "function_call_output", "call_id": "c1", "output": "42"},
    {
        "role": "user",
        "content": [
            {"type": "input_text", "text": "And this?"},
            {"type": "input_image", "image_url": IMAGE, "detail": "low"},
            {"type": "input_file", "file_id": "file-abc"},
        ],
    },
]
SHOWN: list[Any] = [
    {
        "role": "assistant",
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "42"},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is it?"},
            {"type": "image_url", "image_url": {"url": IMAGE}},
            {"type": "file", "file": {"file_id": "file-abc"}},
        ],
    },
]


def test_images_files_turns_and_tools_go_out_as_they_were_given() -> None:
    options: Any = {"tools": [TOOL], "tool_choice": "required"}
    asked = body(PromptParts("unused", "Be brief.", messages=SEEN, request_options=options))
    assert asked == {"model": "gpt-5-mini", "input": SEEN, "instructions": "Be brief.", **options}
    asked = body(PromptParts("unused", messages=SHOWN, request_options=options), endpoint=CHAT)
    assert asked == {"model": "gpt-5-mini", "messages": SHOWN, **options}
