"""Which texts of a request body the model would read: the user's prompt, the system text, the JSON schema."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, cast

from .values import JSONObject, SandboxRequest

SYSTEM_ROLES = frozenset({"system", "developer"})


def read_request(custom_id: str, endpoint: str, body: JSONObject) -> SandboxRequest:
    """The responder's view of a request body that has already been checked."""
    messages = body.get("messages") if endpoint.endswith("/completions") else body.get("input")
    prompt = "\n".join(_texts(messages, system=False))
    system = [str(body["instructions"])] if isinstance(body.get("instructions"), str) else []
    system += list(_texts(messages, system=True))
    return SandboxRequest(
        custom_id=custom_id,
        endpoint=endpoint,
        model=str(body.get("model", "")),
        body=body,
        prompt=prompt,
        system="\n".join(system),
        schema=schema_of(endpoint, body),
    )


def schema_format(endpoint: str, body: JSONObject) -> JSONObject | None:
    """The json_schema wrapper (name, strict, schema) of a body, wherever its endpoint keeps it."""
    if endpoint == "/v1/responses":
        wrapper = as_object(as_object(body.get("text")).get("format"))
        return wrapper if wrapper.get("type") == "json_schema" else None
    wrapper = as_object(body.get("response_format"))
    return as_object(wrapper.get("json_schema")) if wrapper.get("type") == "json_schema" else None


def schema_of(endpoint: str, body: JSONObject) -> JSONObject | None:
    """The JSON schema that the answer must fit, or None."""
    wrapper = schema_format(endpoint, body)
    schema = None if wrapper is None else wrapper.get("schema")
    return cast(JSONObject, schema) if isinstance(schema, dict) else None


def wants_json(endpoint: str, body: JSONObject) -> bool:
    """True when the body asks for any JSON object (`json_object` mode)."""
    key = as_object(body.get("text")).get("format") if endpoint == "/v1/responses" else body.get("response_format")
    return as_object(key).get("type") == "json_object"


def as_object(value: Any) -> JSONObject:
    """The value if it is a JSON object, else an empty one."""
    return cast(JSONObject, value) if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """The value if it is a JSON array, else an empty one."""
    return cast("list[Any]", value) if isinstance(value, list) else []


def count_tokens(text: str, chars_per_token: float) -> int:
    """A plausible token count: characters over a ratio, at least one."""
    return max(1, math.ceil(len(text) / chars_per_token))


def _texts(messages: Any, *, system: bool) -> Iterator[str]:
    if isinstance(messages, str):
        if not system:
            yield messages
        return
    for message in as_list(messages):
        if isinstance(message, str) and not system:
            yield message
        elif isinstance(message, dict):
            found = cast(JSONObject, message)
            if (found.get("role") in SYSTEM_ROLES) == system:
                yield from _content_texts(found.get("content", found.get("text")))


def _content_texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    for part in as_list(content):
        text = as_object(part).get("text")
        if isinstance(text, str):
            yield text
