"""Every odd line that the provider, or a server like it, has been seen to write."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchor_engine.core.outcomes import Answer, Missing, Rejection
from batchor_engine.models import RunUsage
from batchor_engine.providers.lines import read_line
from batchor_engine.providers.wire import read_record

Json = dict[str, Any]
USAGE = RunUsage(input_tokens=11, cached_tokens=4, output_tokens=7, reasoning_tokens=5)
RESPONSES_USAGE = {
    "input_tokens": 11,
    "input_tokens_details": {"cached_tokens": 4},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 5},
}
CHAT_USAGE = {
    "prompt_tokens": 11,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens": 7,
    "completion_tokens_details": {"reasoning_tokens": 5},
}


def message(*parts: Any, **more: Any) -> Json:
    texts = [{"type": "output_text", "text": part} if isinstance(part, str) else part for part in parts]
    return {"type": "message", "role": "assistant", "content": texts, **more}


def responses(*output: Any, **more: Any) -> Json:
    return {"object": "response", "status": "completed", "output": list(output), "usage": RESPONSES_USAGE, **more}


def chat(content: Any, finish_reason: str = "stop", **more: Any) -> Json:
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **more}, "finish_reason": finish_reason}
    return {"object": "chat.completion", "choices": [choice], "usage": CHAT_USAGE}


def record(body: Any, status: Any = 200, error: Any = None) -> Json:
    return {"id": "b", "custom_id": "a:a1", "response": {"status_code": status, "body": body}, "error": error}


def failed(error: Any, status: Any = 400) -> Json:
    return record({"error": error}, status)


def line(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


REASONING = {
    "type": "reasoning",
    "summary": [{"type": "summary_text", "text": "SECRET THOUGHT"}],
    "content": [{"type": "reasoning_text", "text": "SECRET THOUGHT"}],
}
REFUSAL = {"type": "refusal", "refusal": "I cannot help with that."}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (responses(message("plain")), "plain"),
        (responses(message("two ", "parts")), "two parts"),
        (responses(message("two "), message("messages")), "two messages"),
        (responses(REASONING, message("after thought")), "after thought"),
        (responses(message({"type": "reasoning_text", "text": "SECRET THOUGHT"}, "said")), "said"),
        (responses(message("thinking aloud", phase="commentary"), message("final", phase="final_answer")), "final"),
        (responses(message("a\u2028b\u2029c\x85d\x0be")), "a\u2028b\u2029c\x85d\x0be"),
        (responses(message({"type": "text", "text": "liberal"})), "liberal"),
        ({"output_text": "convenient", "output": []}, "convenient"),
        ({"output": [{"content": [{"text": "untyped"}]}]}, "untyped"),
        (responses(message("done"), error=None, incomplete_details=None), "done"),
        (responses(message("null status"), status=None), "null status"),
        (chat("plain"), "plain"),
        (chat([{"type": "text", "text": "two "}, {"type": "text", "text": "parts"}]), "two parts"),
        (chat("said", reasoning_content="SECRET THOUGHT"), "said"),
        (
            chat([{"type": "thinking", "thinking": "SECRET", "text": "SECRET"}, {"type": "text", "text": "said"}]),
            "said",
        ),
        (chat(["two ", "strings"]), "two strings"),
        (chat("said", refusal=None), "said"),
        (chat("said", refusal=""), "said"),
    ],
)
def test_an_answer_is_the_text_said_to_the_user(body: Json, text: str) -> None:
    outcome = read_record(record(body))
    assert isinstance(outcome, Answer)
    assert outcome.text == text


@pytest.mark.parametrize("body", [responses(message("x")), chat("x")], ids=["responses", "chat"])
def test_usage_is_read_in_both_spellings(body: Json) -> None:
    assert read_record(record(body)).usage == USAGE


@pytest.mark.parametrize("usage", [None, {}, [], "many", {"input_tokens": "9", "output_tokens": True}])
def test_odd_usage_is_no_usage(usage: Any) -> None:
    outcome = read_record(record(responses(message("x"), usage=usage)))
    assert outcome.usage in (None, RunUsage())


@pytest.mark.parametrize("status", [200, "200", " 200 ", 200.0, 201, None])
def test_a_good_status_is_good_as_number_text_or_left_out(status: Any) -> None:
    assert isinstance(read_record(record(responses(message("x")), status)), Answer)


@pytest.mark.parametrize("status", [0, "0", "", "abc", True, -1, 302, 1e999, [], {}])
def test_a_status_that_is_no_success_is_a_failure_however_good_the_body_looks(status: Any) -> None:
    outcome = read_record(record(responses(message("x")), status))
    assert isinstance(outcome, Rejection)
    assert (outcome.error_class, outcome.curable, outcome.counts) == ("provider_item_error", True, True)


def test_a_body_that_is_json_in_a_string_is_read() -> None:
    outcome = read_record(record(json.dumps(responses(message("x")))))
    assert outcome == Answer("x", USAGE)


def test_a_missing_error_key_is_no_error() -> None:
    without = record(responses(message("x")))
    del without["error"]
    assert isinstance(read_record(without), Answer)


@pytest.mark.parametrize("empty", [None, {}, "", []])
def test_an_empty_error_is_no_error(empty: Any) -> None:
    assert isinstance(read_record(record(responses(message("x")), error=empty)), Answer)


NO_ANSWER = [
    # body, error class, curable
    (responses(message(REFUSAL)), "refusal", False),
    (responses(message("Sorry: ", REFUSAL)), "refusal", False),
    (chat(None, refusal="I cannot help with that."), "refusal", False),
    (chat([REFUSAL]), "refusal", False),
    (
        responses(message("cut"), status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
        "incomplete_answer",
        True,
    ),
    (responses(message("cut"), status="incomplete"), "incomplete_answer", True),
    (responses(message("cut", status="incomplete")), "incomplete_answer", True),
    (responses(status="incomplete", incomplete_details={"reason": "content_filter"}), "content_filter", False),
    (chat("cut", "length"), "incomplete_answer", True),
    (chat("", "content_filter"), "content_filter", False),
    (chat(None), "empty_response_text", True),
    (chat(""), "empty_response_text", True),
    (chat(" \n"), "empty_response_text", True),
    (chat(None, "tool_calls"), "empty_response_text", True),
    ({"choices": []}, "empty_response_text", True),
    ({"choices": None}, "empty_response_text", True),
    ({"choices": [None]}, "empty_response_text", True),
    (responses(), "empty_response_text", True),
    (responses(REASONING), "empty_response_text", True),
    (responses(message()), "empty_response_text", True),
    ({"output": None, "status": "completed"}, "empty_response_text", True),
    (responses(error={"code": "server_error", "message": "oops"}, status="failed"), "provider_item_error", True),
    (responses(error={"code": "invalid_prompt", "message": "no"}, status="failed"), "provider_item_error", False),
    (responses(message("x"), status="failed"), "provider_item_error", True),
    (responses(message("x"), status="cancelled"), "provider_item_error", True),
    (responses(message("x"), error={"message": "in-body error"}), "provider_item_error", True),
    (chat("x") | {"error": {"message": "in-body error"}}, "provider_item_error", True),
    (None, "provider_item_error", True),
    ({}, "provider_item_error", True),
    ("<html>bad gateway</html>", "provider_item_error", True),
    ([1], "provider_item_error", True),
]


@pytest.mark.parametrize(("body", "error_class", "curable"), NO_ANSWER)
def test_what_is_no_answer_is_rejected_and_counted(body: Any, error_class: str, curable: bool) -> None:
    outcome = read_record(record(body))
    assert isinstance(outcome, Rejection)
    assert (outcome.error_class, outcome.curable, outcome.counts) == (error_class, curable, True)
    assert outcome.message
    assert outcome.raw_error is not None
    json.dumps(outcome.raw_error, allow_nan=False)


def test_a_cut_answer_keeps_its_text_and_its_price() -> None:
    outcome = read_record(record(chat("half an ans", "length")))
    assert isinstance(outcome, Rejection)
    assert (outcome.text, outcome.usage) == ("half an ans", USAGE)


def test_thoughts_are_in_nothing_that_is_kept_of_a_refusal() -> None:
    outcome = read_record(record(responses(REASONING, message(REFUSAL))))
    assert "SECRET" not in repr(outcome)


FAILURES = [
    # record, error class, curable, counts
    (failed({"message": "bad", "code": "invalid_value"}, 400), "provider_item_error", False, True),
    (failed({"message": "bad"}, "400"), "provider_item_error", False, True),
    *[
        (failed({"message": "m"}, status), "provider_item_error", False, True)
        for status in (401, 403, 404, 413, 415, 422)
    ],
    *[(failed({"message": "m"}, status), "provider_item_error", True, True) for status in (408, 409, 429, 500, 503)],
    (failed({"message": "m", "code": "insufficient_quota"}, 429), "openai_insufficient_quota", True, False),
    (failed({"message": "m", "type": "insufficient_quota"}, 429), "openai_insufficient_quota", True, False),
    (failed({"message": "m", "code": "token_limit_exceeded"}, 429), "enqueue_token_limit", True, False),
    (failed({"message": "Enqueued token limit reached for gpt-5"}, 429), "enqueue_token_limit", True, False),
    (failed({"message": "m", "code": "context_length_exceeded"}, None), "provider_item_error", False, True),
    (failed(None, 500), "provider_item_error", True, True),
    (failed("just words", 500), "provider_item_error", True, True),
    (failed(["odd"], 500), "provider_item_error", True, True),
    (
        {"custom_id": "a:a1", "response": None, "error": {"code": "batch_expired"}},
        "batch_terminal_expired",
        True,
        False,
    ),
    (
        {"custom_id": "a:a1", "response": None, "error": {"code": "batch_cancelled", "message": "c"}},
        "batch_terminal_cancelled",
        True,
        False,
    ),
    ({"custom_id": "a:a1", "response": None, "error": {"code": "server_error"}}, "provider_item_error", True, True),
    (
        {"custom_id": "a:a1", "response": None, "error": {"type": "invalid_request_error", "message": "m"}},
        "provider_item_error",
        False,
        True,
    ),
    ({"custom_id": "a:a1", "response": None, "error": None}, "provider_item_error", True, True),
    ({"custom_id": "a:a1"}, "provider_item_error", True, True),
    ({"custom_id": "a:a1", "response": "no object"}, "provider_item_error", True, True),
    (record(responses(message("x")), 200, {"code": "server_error"}), "provider_item_error", True, True),
]


@pytest.mark.parametrize(("row", "error_class", "curable", "counts"), FAILURES)
def test_a_failed_row_has_its_class(row: Json, error_class: str, curable: bool, counts: bool) -> None:
    outcome = read_line(line(row)).outcome
    assert isinstance(outcome, Rejection)
    assert (outcome.error_class, outcome.curable, outcome.counts) == (error_class, curable, counts)
    assert outcome.raw_error == row


def test_a_message_names_status_and_words() -> None:
    outcome = read_record(failed({"message": "no such model", "code": "model_not_found"}, 404))
    assert isinstance(outcome, Rejection)
    assert outcome.message == "HTTP 404: no such model"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after-ms": 1500}, 1.5),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, 0.0),
        ({}, None),
        ("odd", None),
        (None, None),
    ],
)
def test_a_wish_to_wait_is_read(headers: Any, seconds: float | None) -> None:
    row = failed({"message": "slow down"}, 429)
    row["response"]["headers"] = headers
    outcome = read_record(row)
    assert isinstance(outcome, Rejection)
    assert outcome.retry_after_sec == seconds


@pytest.mark.parametrize(
    "words",
    ["Incorrect API key provided: sk-proj-abcDEF123456.", "Authorization: Bearer abcdef.ghi-jkl", "sk-ab***wxyz"],
)
def test_no_key_stays_in_message_or_raw_error(words: str) -> None:
    outcome = read_record(failed({"message": words, "param": [{"header": words}]}, 401))
    for secret in ("abcDEF123456", "abcdef.ghi", "wxyz"):
        assert secret not in repr(outcome)
    assert "[redacted]" in repr(outcome)


@pytest.mark.parametrize(
    "raw",
    [b"", b"null", b"[]", b"1", b'"text"', b"{", b'{"custom_id": "a', b"\xff\xfe", b"[" * 5000, b"\x00", b"<html>"],
)
def test_a_line_that_is_no_object_is_of_no_row(raw: bytes) -> None:
    assert read_line(raw) == (None, Missing())


@pytest.mark.parametrize("custom_id", [None, "", 7, ["a"], {}])
def test_an_id_that_no_request_had_is_none(custom_id: Any) -> None:
    assert read_line(line(record(responses(message("x"))) | {"custom_id": custom_id})).custom_id is None


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (b"ANSWER", b"half \\ud83d pair", "half \ufffd pair"),
        (b"ANSWER", b"bad \xff byte", "bad \ufffd byte"),
        (b"ANSWER", b"raw\ttab", "raw\ttab"),
    ],
)
def test_a_paid_answer_with_a_broken_character_is_kept(old: bytes, new: bytes, text: str) -> None:
    read = read_line(line(record(responses(message("ANSWER")))).replace(old, new))
    assert read.custom_id == "a:a1"
    assert isinstance(read.outcome, Answer)
    assert read.outcome.text == text
    read.outcome.text.encode()


def test_a_byte_order_mark_and_a_carriage_return_are_no_content() -> None:
    assert isinstance(read_line(b"\xef\xbb\xbf" + line(record(chat("x"))) + b"\r").outcome, Answer)


NAMES = """custom_id response error status_code body output choices message content text type usage status code refusal
headers input_tokens incomplete_details output_text reason finish_reason phase"""
KEYS = st.sampled_from(NAMES.split())
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(KEYS, JSON, max_size=6), st.dictionaries(KEYS, JSON, max_size=6))
def test_no_record_raises_and_every_rejection_can_be_stored(row: Json, body: Json) -> None:
    for one in (row, record(body), record(responses(message(body), body))):
        outcome = read_line(json.dumps(one).encode()).outcome
        if isinstance(outcome, Rejection):
            json.dumps(outcome.raw_error, allow_nan=False).encode()
            outcome.message.encode()


@given(st.binary(max_size=300))
def test_no_bytes_raise(raw: bytes) -> None:
    read_line(raw)


@given(st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip))
def test_every_answer_comes_through_as_it_was_said(text: str) -> None:
    for ascii_only in (True, False):
        raw = json.dumps(record(responses(message(text))), ensure_ascii=ascii_only).encode()
        assert read_line(raw) == ("a:a1", Answer(text, USAGE))


CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "look_up", "arguments": '{"at": 1}'}
CUSTOM = {"type": "custom_tool_call", "call_id": "call_1", "name": "look_up", "input": '{"at": 1}'}
CHAT_CALL = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": '{"at": 1}'}}
WANTED = {"tool_calls": [{"id": "call_1", "name": "look_up", "arguments": '{"at": 1}'}]}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (responses(REASONING, CALL), None),
        (responses(CUSTOM), None),
        (responses(message("Let me look."), CALL), "Let me look."),
        (chat(None, "tool_calls", tool_calls=[CHAT_CALL]), None),
        (chat(None, "stop", tool_calls=[CHAT_CALL]), None),
        (chat("Let me look.", "stop", tool_calls=[CHAT_CALL]), "Let me look."),
    ],
)
def test_a_call_of_a_tool_is_no_answer_and_is_kept_without_asking_again(body: Json, text: str | None) -> None:
    outcome = read_line(line(record(body))).outcome
    assert isinstance(outcome, Rejection)
    assert (outcome.error_class, outcome.curable, outcome.counts) == ("tool_calls", False, True)
    assert (outcome.raw_error, outcome.text, outcome.usage) == (WANTED, text, USAGE)
    assert "look_up" in outcome.message


def test_the_oldest_form_of_a_call_is_one_too() -> None:
    body = chat(None, "function_call", function_call={"name": "look_up", "arguments": "{}"})
    outcome = read_line(line(record(body))).outcome
    assert isinstance(outcome, Rejection)
    assert outcome.raw_error == {"tool_calls": [{"id": None, "name": "look_up", "arguments": "{}"}]}


def test_a_tool_that_the_provider_ran_itself_leaves_an_answer() -> None:
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"query": "heron"}}
    assert read_line(line(record(responses(search, message("It is a heron."))))).outcome == Answer(
        "It is a heron.", USAGE
    )
    assert isinstance(read_line(line(record(chat("hi", tool_calls=[])))).outcome, Answer)
