"""Is a request body one that the provider would run? Tables of parameters, then a few rules that need more."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from pydantic_core import to_json

from .errors import ApiError
from .schema_check import name_problem, schema_problem
from .text import as_list, as_object, schema_format
from .values import JSONObject

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
ROLES = ("user", "assistant", "system", "developer", "tool", "function")

Check = Callable[[Any], "str | None"]


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    kinds = ((bool, "a boolean"), (int, "an integer"), (float, "a decimal"), (str, "a string"), (list, "an array"))
    return next((name for kind, name in kinds if isinstance(value, kind)), "an object")


def _of(name: str, *types: type) -> Check:
    def check(value: Any) -> str | None:
        fits = isinstance(value, types) and (bool in types or not isinstance(value, bool))
        return None if fits else f"expected {name}, but got {_kind(value)} instead."

    return check


def _number(low: float, high: float, *types: type) -> Check:
    typed = _of("a number" if float in types else "an integer", *types)

    def check(value: Any) -> str | None:
        wrong = typed(value)
        if wrong is None and not low <= value <= high:
            bound = f">= {low:g}" if value < low else f"<= {high:g}"
            return f"expected a value {bound}, but got {value} instead."
        return wrong

    return check


def _one_of(*words: str) -> Check:
    def check(value: Any) -> str | None:
        options = ", ".join(f"'{word}'" for word in words)
        return None if value in words else f"{value!r}. Supported values are: {options}."

    return check


def _no_check(_value: Any) -> str | None:
    return None


STRING, OBJECT, LIST, BOOL = _of("a string", str), _of("an object", dict), _of("an array", list), _of("a boolean", bool)
TEXT_OR_LIST = _of("one of a string or array", str, list)
COMMON: dict[str, Check] = {
    "model": STRING,
    "metadata": OBJECT,
    "parallel_tool_calls": BOOL,
    "prompt_cache_key": STRING,
    "prompt_cache_options": OBJECT,
    "prompt_cache_retention": STRING,
    "safety_identifier": STRING,
    "service_tier": STRING,
    "store": BOOL,
    "stream": BOOL,
    "temperature": _number(0, 2, int, float),
    "tool_choice": _of("one of a string or object", str, dict),
    "tools": LIST,
    "top_logprobs": _number(0, 20, int),
    "top_p": _number(0, 1, int, float),
    "user": STRING,
    "moderation": OBJECT,
}
RESPONSES: dict[str, Check] = {
    **COMMON,
    "access_programs": _no_check,
    "background": BOOL,
    "context_management": _no_check,
    "conversation": _of("one of a string or object", str, dict),
    "image": OBJECT,
    "include": LIST,
    "input": TEXT_OR_LIST,
    "instructions": STRING,
    "max_output_tokens": _number(16, 10_000_000, int),
    "max_tool_calls": _number(1, 10_000, int),
    "previous_response_id": STRING,
    "prompt": OBJECT,
    "reasoning": OBJECT,
    "text": OBJECT,
    "truncation": _one_of("auto", "disabled"),
}
CHAT: dict[str, Check] = {
    **COMMON,
    "audio": OBJECT,
    "frequency_penalty": _number(-2, 2, int, float),
    "function_call": _no_check,
    "functions": LIST,
    "logit_bias": OBJECT,
    "logprobs": BOOL,
    "max_completion_tokens": _number(1, 10_000_000, int),
    "max_tokens": _number(1, 10_000_000, int),
    "messages": LIST,
    "modalities": LIST,
    "n": _number(1, 128, int),
    "prediction": OBJECT,
    "presence_penalty": _number(-2, 2, int, float),
    "reasoning_effort": _one_of(*EFFORTS),
    "response_format": OBJECT,
    "seed": _of("an integer", int),
    "stop": TEXT_OR_LIST,
    "verbosity": _one_of("low", "medium", "high"),
    "web_search_options": OBJECT,
}
EMBEDDINGS: dict[str, Check] = {
    "model": STRING,
    "input": TEXT_OR_LIST,
    "dimensions": _number(1, 4096, int),
    "encoding_format": _one_of("float", "base64"),
    "user": STRING,
}
MODERATIONS: dict[str, Check] = {"model": STRING, "input": TEXT_OR_LIST}
PARAMETERS = {
    "/v1/responses": RESPONSES,
    "/v1/chat/completions": CHAT,
    "/v1/embeddings": EMBEDDINGS,
    "/v1/moderations": MODERATIONS,
}
REQUIRED = {
    "/v1/responses": (),
    "/v1/chat/completions": ("messages",),
    "/v1/embeddings": ("input",),
    "/v1/moderations": ("input",),
}


def check_body(endpoint: str, body: JSONObject) -> None:
    """Raise the provider's 400 for the first thing that is wrong with a request body."""
    table = PARAMETERS[endpoint]
    for name in body:
        if name not in table:
            raise ApiError(400, f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
    for name in REQUIRED[endpoint]:
        if name not in body:
            raise _missing(name)
    for name, value in body.items():
        if value is None and name != "model" and name not in REQUIRED[endpoint]:
            continue
        wrong = table[name](value)
        if wrong is not None:
            raise _invalid(name, wrong)
    EXTRA[endpoint](body)


def _responses(body: JSONObject) -> None:
    if body.get("input") is None and not any(key in body for key in ("prompt", "previous_response_id", "conversation")):
        raise _missing("input")
    if body.get("stream"):
        raise _invalid("stream", "streaming is not supported in the Batch API.")
    if body.get("input") == []:
        raise _invalid("input", "expected a non-empty array.")
    _messages("input", as_list(body.get("input")))
    reasoning = as_object(body.get("reasoning"))
    _only("reasoning", reasoning, ("effort", "summary", "generate_summary", "context", "mode"))
    if reasoning.get("effort") is not None:
        _nested("reasoning.effort", reasoning["effort"], _one_of(*EFFORTS))
    text = as_object(body.get("text"))
    _only("text", text, ("format", "verbosity"))
    _format("text.format", text.get("format"), text.get("format"))
    _schema("/v1/responses", body, "text.format")


def _chat(body: JSONObject) -> None:
    if body.get("stream"):
        raise _invalid("stream", "streaming is not supported in the Batch API.")
    if not body["messages"]:
        raise _invalid("messages", "expected a non-empty array.")
    _messages("messages", as_list(body["messages"]))
    found = as_object(body.get("response_format"))
    _format("response_format", body.get("response_format"), found.get("json_schema"))
    _schema("/v1/chat/completions", body, "response_format")


def _embeddings(body: JSONObject) -> None:
    if body["input"] in ("", []):
        raise _invalid("input", "input cannot be an empty string or array.")
    if as_list(body["input"]) and len(body["input"]) > 2048:
        raise _invalid("input", "expected an array with at most 2048 items.")


def _moderations(body: JSONObject) -> None:
    if body["input"] == []:
        raise _invalid("input", "expected a non-empty array.")
    for at, part in enumerate(as_list(body["input"])):
        if isinstance(part, dict):
            _nested(f"input[{at}].type", as_object(part).get("type"), _one_of("text", "image_url"))


EXTRA: dict[str, Callable[[JSONObject], None]] = {
    "/v1/responses": _responses,
    "/v1/chat/completions": _chat,
    "/v1/embeddings": _embeddings,
    "/v1/moderations": _moderations,
}


def _messages(name: str, messages: list[Any]) -> None:
    for at, message in enumerate(messages):
        where = f"{name}[{at}]"
        if not isinstance(message, dict):
            raise _invalid(where, f"expected an object, but got {_kind(message)} instead.")
        found = as_object(message)
        if "type" in found and found["type"] != "message":
            continue
        _nested(f"{where}.role", found.get("role"), _one_of(*ROLES))
        if "content" not in found and "tool_calls" not in found:
            raise _missing(f"{where}.content")
        if found.get("content") is not None:
            _nested(f"{where}.content", found["content"], TEXT_OR_LIST)


def _format(where: str, value: Any, wrapper: Any) -> None:
    if value is None:
        return
    kind = as_object(value).get("type")
    _nested(f"{where}.type", kind, _one_of("text", "json_object", "json_schema"))
    if kind != "json_schema":
        return
    found = as_object(wrapper)
    inner = where if where == "text.format" else f"{where}.json_schema"
    if "name" not in found:
        raise _missing(f"{inner}.name")
    wrong = name_problem(found["name"])
    if wrong is not None:
        raise _invalid(f"{inner}.name", wrong)
    if "schema" not in found:
        raise _missing(f"{inner}.schema")


def _schema(endpoint: str, body: JSONObject, param: str) -> None:
    wrapper = schema_format(endpoint, body)
    if wrapper is None or wrapper.get("strict") is not True:
        return
    problem = _seen.problem(wrapper.get("schema"))
    if problem is not None:
        inner = f"{param}.schema" if endpoint == "/v1/responses" else param
        message = f"Invalid schema for {param.split('.', maxsplit=1)[0]} '{wrapper.get('name')}': {problem}"
        raise ApiError(400, message, param=inner, code="invalid_json_schema")


class _SeenSchemas:
    """Remembers the verdict on a few schemas, as a batch repeats one of them on every line."""

    def __init__(self) -> None:
        self._verdicts: dict[bytes, str | None] = {}
        self._lock = threading.Lock()

    def problem(self, schema: Any) -> str | None:
        key = to_json(schema)
        with self._lock:
            if key not in self._verdicts:
                if len(self._verdicts) >= 64:
                    self._verdicts.clear()
                self._verdicts[key] = schema_problem(schema)
            return self._verdicts[key]


_seen = _SeenSchemas()


def _only(where: str, found: JSONObject, names: tuple[str, ...]) -> None:
    for name in found:
        if name not in names:
            raise ApiError(
                400, f"Unknown parameter: '{where}.{name}'.", param=f"{where}.{name}", code="unknown_parameter"
            )


def _nested(where: str, value: Any, check: Check) -> None:
    wrong = check(value)
    if wrong is not None:
        raise _invalid(where, wrong)


def _missing(name: str) -> ApiError:
    return ApiError(400, f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")


def _invalid(name: str, why: str) -> ApiError:
    code = "invalid_type" if "but got a" in why or "but got null" in why else "invalid_value"
    return ApiError(400, f"Invalid value for '{name}': {why}", param=name, code=code)
