"""One request line in, its output line out, line faults included.

Law: a line that was answered is paid, whatever a fault then does to its text.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic_core import from_json, to_json

from .bodies import chat_body, embedding_body, inputs_of, moderation_body, response_body
from .checks import check_body
from .errors import ApiError, error_type
from .faults import Fault, FaultKind, first
from .generate import rng_for
from .responder import as_answer, default_answer, shorten, usage_of
from .text import as_object, count_tokens, read_request
from .values import NO_USAGE, JSONObject, Responder, SandboxAnswer, SandboxRequest, Usage

ODD_TEXT = "line\u2028paragraph\u2029next\u0085tab\x0b \U0001f98a caf\u00e9"


@dataclass(frozen=True)
class MadeLine:
    """What became of one request: the bytes for its file, and what they cost; `dropped` says why nobody can read it."""

    custom_id: str
    data: bytes
    to_error_file: bool = False
    usage: Usage = NO_USAGE
    paid: bool = False
    dropped: str | None = None

    @property
    def count(self) -> int:
        """How many lines the bytes are."""
        return self.data.count(b"\n")


@dataclass(frozen=True)
class LineMaker:
    """Everything that answering needs and that stays the same for all lines of a sandbox."""

    responder: Responder | None
    seed: int
    chars_per_token: float
    dimensions: int
    answer_chars: int

    def make(self, raw: bytes, endpoint: str, faults: Sequence[Fault], key: str, now: int, number: int) -> MadeLine:
        """Answer one request line of a file that passed validation."""
        line: JSONObject = from_json(raw)
        request = read_request(line["custom_id"], endpoint, line["body"])
        mine = [one for one in faults if one.picks(number, request.custom_id, request.prompt)]
        envelope: JSONObject = {"id": f"batch_req_{key}", "custom_id": request.custom_id}
        failed = _error_fault(mine) or self._refused(endpoint, line["body"])
        if failed is not None:
            return _error_line(envelope, failed, key)
        answer = faulty_answer(shorten(request, self.answer(request), self.chars_per_token), mine)
        if answer.status_code != 200:
            code, message = answer.error_code, answer.error_message or "The request failed."
            failed = ApiError(answer.status_code, message, kind=error_type(answer.status_code), code=code)
            return _error_line(envelope, failed, key)
        usage = self.usage(request, answer)
        body = self.body(request, answer, usage, key, now)
        done = {"response": {"status_code": 200, "request_id": key, "body": body}, "error": None}
        return spoil(MadeLine(request.custom_id, b"", usage=usage, paid=True), envelope | done, mine)

    def _refused(self, endpoint: str, body: JSONObject) -> ApiError | None:
        try:
            check_body(endpoint, body)
        except ApiError as error:
            return error
        return None

    def answer(self, request: SandboxRequest) -> SandboxAnswer:
        """The responder's answer; an exception of the user's code is that line's 500."""
        if request.endpoint in ("/v1/embeddings", "/v1/moderations") and self.responder is None:
            return SandboxAnswer()
        if self.responder is None:
            return default_answer(request, self.seed, self.answer_chars)
        try:
            return as_answer(self.responder(request))
        except Exception as error:  # noqa: BLE001 - a user's code may raise anything
            traceback.print_exc(file=sys.stderr)
            message = f"The responder raised {type(error).__name__}: {error}"
            return SandboxAnswer(status_code=500, error_code="server_error", error_message=message)

    def usage(self, request: SandboxRequest, answer: SandboxAnswer) -> Usage:
        """Token counts; embeddings cost input only, moderations nothing."""
        if request.endpoint == "/v1/moderations":
            return NO_USAGE
        if request.endpoint == "/v1/embeddings":
            texts = inputs_of(request.body)
            tokens = sum(len(one) if isinstance(one, list) else self._tokens(one) for one in texts)  # pyright: ignore[reportUnknownArgumentType]
            return Usage(input_tokens=tokens)
        return usage_of(request, answer, self.chars_per_token)

    def _tokens(self, text: Any) -> int:
        return count_tokens(str(text), self.chars_per_token)

    def body(self, request: SandboxRequest, answer: SandboxAnswer, usage: Usage, key: str, now: int) -> JSONObject:
        """The endpoint's response body, or the one that the answer brings itself."""
        if answer.body is not None:
            return answer.body
        if request.endpoint == "/v1/embeddings":
            return embedding_body(request, usage, self.dimensions, self.seed)
        if request.endpoint == "/v1/moderations":
            return moderation_body(request, key)
        make = response_body if request.endpoint == "/v1/responses" else chat_body
        return make(request, answer, usage, key, now)


def _error_fault(faults: Sequence[Fault]) -> ApiError | None:
    found = first(faults, FaultKind.LINE_ERROR)
    if found is None:
        return None
    status = found.status or 500
    names = {400: "invalid_request", 429: "rate_limit_exceeded", 500: "server_error"}
    code = found.code or names.get(status, "server_error")
    message = found.message or f"The sandbox was told to fail this line with {status}."
    return ApiError(status, message, kind=error_type(status), code=code)


def _error_line(envelope: JSONObject, error: ApiError, key: str) -> MadeLine:
    done = {"response": {"status_code": error.status, "request_id": key, "body": error.body()}, "error": None}
    return MadeLine(envelope["custom_id"], to_json(envelope | done) + b"\n", to_error_file=True)


def unanswered_line(custom_id: str, key: str, code: str) -> bytes:
    """The error line of a request that a batch ended without: `batch_expired` or `batch_cancelled`."""
    messages = {
        "batch_expired": "This request could not be executed before the completion window expired.",
        "batch_cancelled": "This request was not executed because the batch was cancelled.",
    }
    error = {"code": code, "message": messages[code]}
    return to_json({"id": f"batch_req_{key}", "custom_id": custom_id, "response": None, "error": error}) + b"\n"


def faulty_answer(answer: SandboxAnswer, faults: Sequence[Fault]) -> SandboxAnswer:
    """The answer as a fault wants the model to have given it."""
    for fault in faults:
        match fault.kind:
            case FaultKind.REFUSAL:
                answer = replace(answer, text="", refusal=fault.message or "I'm sorry, I can't assist with that.")
            case FaultKind.INCOMPLETE:
                answer = replace(answer, text=answer.text[: len(answer.text) // 2], incomplete=True)
            case FaultKind.EMPTY_ANSWER:
                answer = replace(answer, text="")
            case FaultKind.INVALID_JSON:
                answer = replace(answer, text='{"broken": [1, 2')
            case FaultKind.BREAK_SCHEMA:
                answer = replace(answer, text='{"no_such_field": {"deep": true}}')
            case FaultKind.ODD_TEXT:
                answer = replace(answer, text=_with_odd_text(answer.text))
            case _:
                pass
    return answer


def _with_odd_text(text: str) -> str:
    """Odd characters in the first string of a JSON object, or at the end of a plain text."""
    try:
        value: Any = from_json(text)
    except ValueError:
        return f"{text} {ODD_TEXT}"
    # Whitespace between tokens would not survive parsing, so the odd text is put into the first string.
    found = as_object(value)
    for name, one in found.items():
        if isinstance(one, str):
            return to_json(found | {name: f"{one} {ODD_TEXT}"}).decode()
    return text if found else f"{text} {ODD_TEXT}"


def spoil(made: MadeLine, record: JSONObject, faults: Sequence[Fault]) -> MadeLine:
    """The answered line as faults want it to lie in the output file."""
    custom_id = made.custom_id
    response: JSONObject = record["response"]
    before = b""
    for fault in faults:
        strange = _strange_line(fault, record)
        if strange is not None and (fault.insert or fault.kind == FaultKind.UNKNOWN_ID_LINE):
            before += strange
            continue
        if strange is not None:
            return replace(made, data=before + strange, dropped=fault.kind)
        match fault.kind:
            case FaultKind.MISSING_LINE:
                return replace(made, data=before, dropped="missing_line")
            case FaultKind.STATUS_ZERO:
                record = record | {"response": response | {"status_code": 0, "request_id": "", "body": None}}
                made = replace(made, dropped="status_zero")
            case FaultKind.STATUS_STRING:
                record = record | {"response": response | {"status_code": "200"}}
            case FaultKind.MISSING_RESPONSE:
                record = {key: value for key, value in record.items() if key != "response"}
                made = replace(made, dropped="missing_response")
            case FaultKind.NULL_RESPONSE:
                record = record | {"response": None}
                made = replace(made, dropped="null_response")
            case FaultKind.BODY_STRING:
                record = record | {"response": response | {"body": to_json(response["body"]).decode()}}
            case _:
                pass
    data = to_json(record) + b"\n"
    if first(faults, FaultKind.DUPLICATE_LINE) is not None:
        data += data
    return replace(made, custom_id=custom_id, data=before + data)


def _strange_line(fault: Fault, record: JSONObject) -> bytes | None:
    match fault.kind:
        case FaultKind.GARBAGE_LINE:
            return (fault.body or "\x00<<< not json \udcff").encode("utf-8", "surrogateescape") + b"\n"
        case FaultKind.NULL_LINE:
            return b"null\n"
        case FaultKind.NON_OBJECT_LINE:
            return (fault.body or '["not", "an", "object"]').encode() + b"\n"
        case FaultKind.UNKNOWN_ID_LINE:
            stranger = fault.body or "stranger-" + rng_for(record["custom_id"]).randbytes(4).hex()
            return to_json(record | {"id": "batch_req_stranger", "custom_id": stranger}) + b"\n"
        case _:
            return None
