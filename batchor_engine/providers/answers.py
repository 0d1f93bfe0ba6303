"""From the body of one response to its text, its usage, or the reason why it is no answer.

Law: only what the model said to the user is an answer: reasoning, commentary, refusals, cut texts and requests to call
a tool are not, and the parts of one answer are joined with nothing between them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from batchor_engine.core.outcomes import Answer, Rejection
from batchor_engine.models import JSONValue, RunUsage
from batchor_engine.providers import failures

# Tuples, because what is looked up in them may be any JSON value, and a list has no hash.
_TEXT_PARTS = ("output_text", "text")
CALLS = ("function_call", "custom_tool_call")
# More than any answer can hold and few enough to add up in 64 bits; NaN and infinity fail the comparison.
MOST_TOKENS = 2**40
_UNFINISHED = frozenset({"failed", "cancelled", "queued", "in_progress"})


@dataclass(frozen=True)
class _Reading:
    """What was found in a body; `stopped` is the provider's word for why the text ended early.

    `calls` are tools that the caller is to run before the model goes on; a provider's own tools have run already.
    """

    text: str
    refusal: str = ""
    stopped: str = ""
    calls: tuple[Mapping[str, Any], ...] = ()


def read_body(body: Mapping[str, Any], usage: RunUsage | None) -> Answer | Rejection:
    """The answer in the body of a successful response, or the reason why there is none."""
    reading = _read_chat(body) if body.get("choices") is not None else _read_responses(body)
    if reading.refusal:
        return _no_answer(failures.REFUSAL, f"the model declined: {reading.refusal}", reading, usage, curable=False)
    if reading.stopped == "content_filter":
        return _no_answer(failures.CONTENT_FILTER, "a content filter stopped the answer", reading, usage, curable=False)
    if reading.stopped:
        return _no_answer(failures.INCOMPLETE, f"the answer was cut: {reading.stopped}", reading, usage, curable=True)
    if reading.calls:
        names = ", ".join(str(call.get("name")) for call in reading.calls)
        return _no_answer(failures.TOOL_CALLS, f"the model asks to call {names}", reading, usage, curable=False)
    if not reading.text.strip():
        return _no_answer(failures.EMPTY, "the answer holds no text", reading, usage, curable=True)
    return Answer(reading.text, usage)


def unfinished_status(body: Mapping[str, Any]) -> str | None:
    """The status of a Responses body that ended in no answer at all, or None."""
    status = body.get("status")
    return status if isinstance(status, str) and status in _UNFINISHED else None


def read_usage(body: Mapping[str, Any]) -> RunUsage | None:
    """Tokens billed for one line, in either endpoint's spelling; None where the body names none."""
    usage = _mapping(body.get("usage"))
    if not usage:
        return None
    asked = _mapping(usage.get("input_tokens_details")) or _mapping(usage.get("prompt_tokens_details"))
    answered = _mapping(usage.get("output_tokens_details")) or _mapping(usage.get("completion_tokens_details"))
    return RunUsage(
        input_tokens=_count(usage.get("input_tokens", usage.get("prompt_tokens"))),
        cached_tokens=_count(asked.get("cached_tokens")),
        output_tokens=_count(usage.get("output_tokens", usage.get("completion_tokens"))),
        reasoning_tokens=_count(answered.get("reasoning_tokens")),
    )


def _no_answer(name: str, message: str, reading: _Reading, usage: RunUsage | None, *, curable: bool) -> Rejection:
    words: JSONValue = {"refusal": reading.refusal} if reading.refusal else {"reason": reading.stopped or "no text"}
    if name == failures.TOOL_CALLS:
        words = {"tool_calls": [_call(call) for call in reading.calls]}
    return Rejection(
        name,
        failures.redact(message),
        curable=curable,
        raw_error=failures.redacted(words),
        text=reading.text or None,
        usage=usage,
    )


def _call(call: Mapping[str, Any]) -> JSONValue:
    """One call in the same shape from either endpoint; `arguments` is the model's own text, mostly JSON."""
    return {
        "id": call.get("call_id") or call.get("id"),
        "name": call.get("name"),
        "arguments": call.get("arguments", call.get("input")),
    }


def _read_responses(body: Mapping[str, Any]) -> _Reading:
    items = [_mapping(item) for item in _sequence(body.get("output"))]
    messages = [item for item in items if _speaks_to_the_user(item)]
    parts = [part for message in messages for part in _sequence(message.get("content"))]
    text = "".join(map(_part_text, parts))
    if not text and isinstance(body.get("output_text"), str):
        text = body["output_text"]
    calls = tuple(item for item in items if item.get("type") in CALLS)
    return _Reading(text, "".join(map(_part_refusal, parts)), _responses_stop(body, messages), calls)


def _speaks_to_the_user(item: Mapping[str, Any]) -> bool:
    return item.get("type", "message") == "message" and item.get("phase") != "commentary"


def _responses_stop(body: Mapping[str, Any], messages: list[Mapping[str, Any]]) -> str:
    if body.get("status") == "incomplete" or any(message.get("status") == "incomplete" for message in messages):
        return str(_mapping(body.get("incomplete_details")).get("reason") or "incomplete")
    return ""


def _read_chat(body: Mapping[str, Any]) -> _Reading:
    choices = _sequence(body.get("choices"))
    choice = _mapping(choices[0] if choices else None)
    message = _mapping(choice.get("message"))
    content = message.get("content")
    parts = [content] if isinstance(content, str) else _sequence(content)
    refusal = message.get("refusal")
    said = refusal if isinstance(refusal, str) else "".join(map(_part_refusal, parts))
    text, stopped = "".join(map(_part_text, parts)), _chat_stop(choice.get("finish_reason"))
    return _Reading(text, said, stopped, _chat_calls(message))


def _chat_calls(message: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    calls = [_mapping(call) for call in _sequence(message.get("tool_calls"))]
    # A call keeps name and arguments one level down; the oldest form has one call and no id.
    found = [{"id": call.get("id"), **_mapping(call.get("function") or call.get("custom"))} for call in calls]
    oldest = _mapping(message.get("function_call"))
    return tuple(found) or ((oldest,) if oldest else ())


def _chat_stop(reason: object) -> str:
    if reason == "length":
        return "max_output_tokens"
    return str(reason) if reason in ("content_filter", "error") else ""


def _part_text(part: object) -> str:
    if isinstance(part, str):
        return part
    fields = _mapping(part)
    text = fields.get("text") if fields.get("type", "text") in _TEXT_PARTS else None
    return text if isinstance(text, str) else ""


def _part_refusal(part: object) -> str:
    fields = _mapping(part)
    if fields.get("type") != "refusal":
        return ""
    return str(fields.get("refusal") or "no reason given")


def _mapping(value: object) -> Mapping[str, Any]:
    # Parsed JSON holds nothing but dicts, whose test is ten times cheaper than that of Mapping.
    return cast("Mapping[str, Any]", value if isinstance(value, dict) else {})


def _sequence(value: object) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MOST_TOKENS:
        return 0
    return int(value)
