"""The quick way through an output line that holds nothing but a good answer, as nearly all do.

Law: what is read here is what wire.py would read, or None; whatever is odd about a line goes the long way.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from batchor_engine.core.outcomes import Answer, LineRef
from batchor_engine.models import RunUsage
from batchor_engine.providers.answers import CALLS, MOST_TOKENS

_OK = 200
# How the provider begins a line; an id with an escape in it goes the long way.
_ID_NEAR_THE_FRONT = re.compile(rb'\{"id":\s?"[^"\\]*",\s?"custom_id":\s?"([^"\\]+)"')


# What is decoded from one line holds no cycle, so the garbage collector need not look at it.
class _Details(msgspec.Struct, gc=False):
    cached_tokens: int = 0
    reasoning_tokens: int = 0


class _Usage(msgspec.Struct, gc=False):
    """Tokens in the spelling of either endpoint."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None


class _Part(msgspec.Struct, gc=False):
    type: str
    text: str = ""


class _Item(msgspec.Struct, gc=False):
    type: str
    content: list[_Part] | None = None
    status: str | None = None
    phase: str | None = None


class _Message(msgspec.Struct, gc=False):
    content: str
    refusal: str | None = None
    tool_calls: Any = None
    function_call: Any = None


class _Choice(msgspec.Struct, gc=False):
    message: _Message
    finish_reason: str


class _Body(msgspec.Struct, gc=False):
    usage: _Usage
    status: str | None = None
    output: list[_Item] | None = None
    choices: list[_Choice] | None = None
    error: Any = None


class _Response(msgspec.Struct, gc=False):
    status_code: int
    body: _Body


class _Line(msgspec.Struct, gc=False):
    custom_id: str
    response: _Response
    error: Any = None


# Typed decoding skips what is not asked for, which is most of a line.
_DECODER = msgspec.json.Decoder(_Line)


def id_at_front(line: bytes) -> str | None:
    """The custom id of a line that begins as the provider writes it; its syntax after that is not looked at."""
    found = _ID_NEAR_THE_FRONT.match(line)
    try:
        return found[1].decode() if found else None
    except UnicodeDecodeError:
        return None


def read_plain(line: bytes, ref: LineRef | None = None) -> tuple[str, Answer] | None:
    """Id and answer (with its `ref`) of a line whose response ended well, in text alone; None for every other line."""
    try:
        record = _DECODER.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    body = record.response.body
    if record.response.status_code != _OK or record.error or body.error or not record.custom_id:
        return None
    text = _responses_text(body) if body.choices is None else _chat_text(body)
    usage = _usage_of(body.usage)
    return (record.custom_id, Answer(text, usage, ref)) if text and usage is not None and not text.isspace() else None


def _responses_text(body: _Body) -> str | None:
    if body.status != "completed" or body.output is None:
        return None
    texts: list[str] = []
    for item in body.output:
        if item.type in CALLS:
            return None
        if item.type != "message":
            continue
        if item.phase is not None or (item.status is not None and item.status != "completed"):
            return None
        for part in item.content or ():
            if part.type != "output_text":
                return None
            texts.append(part.text)
    return texts[0] if len(texts) == 1 else "".join(texts)


def _chat_text(body: _Body) -> str | None:
    choice = body.choices[0] if body.choices else None
    if choice is None or body.status is not None or choice.finish_reason != "stop" or choice.message.refusal:
        return None
    said = choice.message
    return None if said.tool_calls or said.function_call else said.content


def _usage_of(found: _Usage) -> RunUsage | None:
    into, out = found.input_tokens, found.output_tokens
    asked, answered = found.input_tokens_details, found.output_tokens_details
    if into is None and out is None:
        into, out = found.prompt_tokens, found.completion_tokens
        asked, answered = found.prompt_tokens_details, found.completion_tokens_details
    if into is None or out is None:
        return None
    cached, thought = asked.cached_tokens if asked else 0, answered.reasoning_tokens if answered else 0
    # Absurd counts go the long way, which knows what to make of them.
    if (
        0 <= into <= MOST_TOKENS
        and 0 <= out <= MOST_TOKENS
        and 0 <= cached <= MOST_TOKENS
        and 0 <= thought <= MOST_TOKENS
    ):
        return RunUsage(into, cached, out, thought)
    return None
