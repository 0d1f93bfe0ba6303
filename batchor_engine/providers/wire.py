"""The provider's two line formats: a request line out, an output line in.

Law: rendering is exact or fails with the request's id; reading never raises, whatever the line holds.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from pydantic_core import PydanticSerializationError, from_json, to_json

from batchor_engine.config import OpenAIEndpoint, OpenAIProviderConfig
from batchor_engine.core.outcomes import Answer, Rejection
from batchor_engine.core.types import BatchRequestLine
from batchor_engine.models import JSONObject, PromptParts
from batchor_engine.ports.providers import StructuredOutputSchema
from batchor_engine.providers.answers import read_body, read_usage, unfinished_status
from batchor_engine.providers.data_answers import read_embedding, read_moderation
from batchor_engine.providers.failures import row_failure

_BOM = b"\xef\xbb\xbf"
# A line ends by closing the schema's two holders, the body and the line; the schema is spliced in before that.
_CLOSING = b"}}}}"


class RequestWriter:
    """Renders request lines of one config; what lines have in common is made once and reused."""

    def __init__(self, config: OpenAIProviderConfig) -> None:
        self._url = config.line_url or str(config.endpoint)
        self._body = _BODIES[config.endpoint]
        self._config = config
        self._spliced: tuple[StructuredOutputSchema, bytes] | None = None
        self._forms: dict[bool, _Form] = {}
        self._forms_schema: StructuredOutputSchema | None = None
        _check_json(config.request_options, "OpenAIProviderConfig.request_options")

    def line(self, custom_id: str, parts: PromptParts, structured: StructuredOutputSchema | None) -> BatchRequestLine:
        """The request as an object; ValueError where an option collides with what the engine sets."""
        try:
            body = self._body(self._config, parts, self._options(parts), structured)
        except ValueError as error:
            raise ValueError(f"request {custom_id!r}: {error}") from None
        return BatchRequestLine(custom_id=custom_id, method="POST", url=self._url, body=body)

    def render(self, custom_id: str, parts: PromptParts, structured: StructuredOutputSchema | None) -> bytes:
        """The bytes of line(), without a newline; ValueError where a text cannot be written as UTF-8."""
        if parts.messages is not None or parts.request_options:
            return self._render_whole(custom_id, parts, structured)
        if structured is not self._forms_schema:
            self._forms, self._forms_schema = {}, structured
        form = self._forms.get(parts.system_prompt is not None)
        if form is None:
            # The first line of its kind is rendered as a whole, so that what is wrong with it names the request.
            first = self._render_whole(custom_id, parts, structured)
            self._forms[parts.system_prompt is not None] = self._new_form(parts.system_prompt is not None, structured)
            return first
        try:
            return form.filled(custom_id, parts)
        except (PydanticSerializationError, UnicodeEncodeError) as error:
            raise _unwritable(custom_id, error) from None

    def _new_form(self, has_system_prompt: bool, structured: StructuredOutputSchema | None) -> _Form:
        marks = [uuid.uuid4().hex for _ in range(3)]
        parts = PromptParts(marks[1], marks[2] if has_system_prompt else None)
        return _Form.cut(self._render_whole(marks[0], parts, structured), marks)

    def _render_whole(self, custom_id: str, parts: PromptParts, structured: StructuredOutputSchema | None) -> bytes:
        bare = structured and StructuredOutputSchema(structured.name, {})
        line = self.line(custom_id, parts, bare)
        try:
            rendered = to_json(line)
        except (PydanticSerializationError, UnicodeEncodeError) as error:
            raise _unwritable(custom_id, error) from None
        if structured is None:
            return rendered
        # `bare` ends in an empty schema, {} and the closing braces.
        return rendered[: -len(_CLOSING) - 2] + self._schema_text(structured) + _CLOSING

    def _options(self, parts: PromptParts) -> JSONObject:
        if parts.messages is not None:
            _check_json(parts.messages, "messages")
        if not parts.request_options:
            return self._config.request_options
        _check_json(parts.request_options, "request_options")
        return merged(self._config.request_options, parts.request_options)

    def _schema_text(self, structured: StructuredOutputSchema) -> bytes:
        if self._spliced is None or self._spliced[0] is not structured:
            self._spliced = structured, to_json(structured.schema)
        return self._spliced[1]


class _Form(NamedTuple):
    """A line with gaps: bytes, then for each gap which of the three texts belongs there and the bytes behind it."""

    front: bytes
    gaps: tuple[tuple[int, bytes], ...]

    @classmethod
    def cut(cls, line: bytes, marks: Sequence[str]) -> _Form:
        """Cut a line at its marks, which stand for custom id, prompt and system prompt."""
        places = sorted((line.find(to_json(mark)), which) for which, mark in enumerate(marks))
        found = [(place, place + len(to_json(marks[which])), which) for place, which in places if place >= 0]
        ends = [place for place, _, _ in found[1:]] + [len(line)]
        gaps = tuple((which, line[after:end]) for (_, after, which), end in zip(found, ends, strict=True))
        return cls(line[: found[0][0]], gaps)

    def filled(self, custom_id: str, parts: PromptParts) -> bytes:
        texts = (custom_id, parts.prompt, parts.system_prompt)
        pieces = [self.front]
        for which, after in self.gaps:
            pieces += (to_json(texts[which]), after)
        return b"".join(pieces)


def _unwritable(custom_id: str, error: Exception) -> ValueError:
    return ValueError(f"request {custom_id!r} cannot be written as JSON (a lone surrogate, or no JSON value): {error}")


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> JSONObject:
    """Both objects in one, object by object; where both have a value, `over` wins."""
    result = dict(under)
    for key, value in over.items():
        below = result.get(key)
        both = isinstance(below, dict) and isinstance(value, dict)
        result[key] = merged(cast(JSONObject, below), cast(JSONObject, value)) if both else value
    return result


def read_object(line: bytes) -> JSONObject | None:
    """The JSON object of a line; None where it is none. Bytes that are no UTF-8 become U+FFFD, so the rest is kept."""
    try:
        found = from_json(line.removeprefix(_BOM), cache_strings="keys")
    except ValueError:
        found = _read_leniently(line)
    return cast(JSONObject, found) if isinstance(found, dict) else None


def id_of(record: Mapping[str, Any]) -> str | None:
    """The custom id of a record, None where it has none that a request could have had."""
    custom_id = record.get("custom_id")
    return custom_id if isinstance(custom_id, str) and custom_id else None


def read_record(record: Mapping[str, Any], endpoint: OpenAIEndpoint = OpenAIEndpoint.RESPONSES) -> Answer | Rejection:
    """What one record of an output or error file says of its request; texts of either kind are told by their shape."""
    response = _object(record.get("response"))
    body = _object(response.get("body"))
    status = read_status(response.get("status_code"))
    usage = read_usage(body)
    error = record.get("error") or body.get("error")
    if error or not body or not (status is None or 200 <= status < 300):
        reason = error or (response.get("body") or "the line holds no response" if not body else None)
        return row_failure(reason, status=status, record=record, retry_after_sec=retry_after(response), usage=usage)
    if unfinished := unfinished_status(body):
        return row_failure(f"the response is {unfinished}", status=None, record=record, usage=usage)
    return DATA_READERS.get(endpoint, read_body)(body, usage)


def read_status(status: object) -> int | None:
    """An HTTP status as a number, also from text; 0 for what is none, None where nothing is said."""
    if status is None:
        return None
    try:
        return int(cast(Any, status)) if not isinstance(status, bool) else 0
    except (TypeError, ValueError, OverflowError):
        return 0


def retry_after(response: Mapping[str, Any]) -> float | None:
    """The seconds a response line asks to wait, where it carries its headers."""
    headers = {key.lower(): value for key, value in _object(response.get("headers")).items()}
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) * unit)
        except (KeyError, TypeError, ValueError):
            continue
    return None


def _object(value: object) -> dict[str, Any]:
    if isinstance(value, str):
        # Some servers send the body as a JSON text within the JSON.
        value = read_object(value.encode("utf-8", "replace"))
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _read_leniently(line: bytes) -> object:
    try:
        return _without_surrogates(json.loads(line.removeprefix(_BOM).decode("utf-8", "replace"), strict=False))
    except (ValueError, RecursionError):
        return None


def _without_surrogates(value: Any) -> Any:
    """Half a surrogate pair cannot be stored as UTF-8, but is no reason to lose a paid answer."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        found = cast("dict[str, Any]", value)
        return {_without_surrogates(key): _without_surrogates(part) for key, part in found.items()}
    if isinstance(value, list):
        return [_without_surrogates(part) for part in cast("list[Any]", value)]
    return value


def _responses_body(
    config: OpenAIProviderConfig, parts: PromptParts, options: JSONObject, structured: StructuredOutputSchema | None
) -> JSONObject:
    asked = parts.prompt if parts.messages is None else parts.messages
    own: JSONObject = {"model": str(config.model), "input": cast(Any, asked)}
    if parts.system_prompt is not None:
        own["instructions"] = parts.system_prompt
    body = _joined(own, options)
    if config.reasoning_effort is not None:
        _put_inside(body, "reasoning", "effort", str(config.reasoning_effort))
    if structured is not None:
        _put_inside(body, "text", "format", {"type": "json_schema", **_named(structured)})
    return body


def _chat_body(
    config: OpenAIProviderConfig, parts: PromptParts, options: JSONObject, structured: StructuredOutputSchema | None
) -> JSONObject:
    asked = [{"role": "user", "content": parts.prompt}] if parts.messages is None else parts.messages
    first = [] if parts.system_prompt is None else [{"role": "system", "content": parts.system_prompt}]
    own: JSONObject = {"model": str(config.model), "messages": cast(Any, [*first, *asked])}
    if config.reasoning_effort is not None:
        own["reasoning_effort"] = str(config.reasoning_effort)
    if structured is not None:
        _refuse_taken(options, "response_format")
    body = _joined(own, options)
    if structured is not None:
        body["response_format"] = {"type": "json_schema", "json_schema": _named(structured)}
    return body


def _embedding_body(
    config: OpenAIProviderConfig, parts: PromptParts, options: JSONObject, structured: StructuredOutputSchema | None
) -> JSONObject:
    _refuse_text_parts(parts, structured)
    if parts.messages is not None:
        # The provider counts inputs, not requests, so several in one would save nothing and fail together.
        raise ValueError("an embeddings request has one input: give each text an item of its own, without messages")
    # Packed vectors are a quarter of the digits, of which a full batch would have gigabytes.
    return {"encoding_format": "base64", **_joined({"model": str(config.model), "input": parts.prompt}, options)}


def _moderation_body(
    config: OpenAIProviderConfig, parts: PromptParts, options: JSONObject, structured: StructuredOutputSchema | None
) -> JSONObject:
    _refuse_text_parts(parts, structured)
    asked = parts.prompt if parts.messages is None else parts.messages
    return _joined({"model": str(config.model), "input": cast(Any, asked)}, options)


def _refuse_text_parts(parts: PromptParts, structured: StructuredOutputSchema | None) -> None:
    if parts.system_prompt is not None:
        raise ValueError("this endpoint has no place for a system prompt; leave system_prompt out")
    if structured is not None:
        raise ValueError("this endpoint has an answer of its own shape; leave structured_output out")


_BODIES = {
    OpenAIEndpoint.RESPONSES: _responses_body,
    OpenAIEndpoint.CHAT_COMPLETIONS: _chat_body,
    OpenAIEndpoint.EMBEDDINGS: _embedding_body,
    OpenAIEndpoint.MODERATIONS: _moderation_body,
}
DATA_READERS = {OpenAIEndpoint.EMBEDDINGS: read_embedding, OpenAIEndpoint.MODERATIONS: read_moderation}


def _named(structured: StructuredOutputSchema) -> JSONObject:
    # The schema comes last: render() splices its text in there.
    return {"name": structured.name, "strict": True, "schema": structured.schema}


def _joined(own: JSONObject, options: JSONObject) -> JSONObject:
    for key in (*own, "stream"):
        _refuse_taken(options, key)
    return {**own, **options}


def _put_inside(body: JSONObject, outer: str, inner: str, value: Any) -> None:
    held = body.pop(outer, None) or {}
    if not isinstance(held, dict):
        raise ValueError(f"the request option {outer!r} must be an object, since the engine sets {outer}.{inner}")
    _refuse_taken(held, inner, f"{outer}.")
    body[outer] = {**held, inner: value}


def _refuse_taken(options: Mapping[str, Any], key: str, inside: str = "") -> None:
    if key in options:
        raise ValueError(f"the request option {inside + key!r} is set by the engine; remove it from request_options")


def _check_json(value: object, where: str) -> None:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{where} must be plain JSON: {error}") from None
