"""One HTTP call from door to door: note it, ask for the key, let faults strike, do the work, answer.

Law: `http_error`, `drop` and `not_visible` strike before any work, `lost_answer` after all of it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from pydantic_core import from_json
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from .desk import Desk, no_such_file
from .errors import ApiError, error_type
from .faults import Fault, FaultKind
from .wire import Dropped

P = ParamSpec("P")
T = TypeVar("T")

MAX_JSON_BYTES = 1_000_000
HTML = "<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"


@dataclass(frozen=True)
class Call:
    """One call as its handler sees it; `body` is the parsed JSON body, `target` the id in the path."""

    desk: Desk
    request: Request
    operation: str
    target: str | None
    body: Any
    scope: str
    organization: str
    faults: tuple[Fault, ...]


Handler = Callable[[Call], Awaitable[Response]]
Endpoint = Callable[[Request], Awaitable[Response]]


def endpoint(desk: Desk, operation: str, handler: Handler) -> Endpoint:
    """The ASGI-facing function of one operation."""

    async def answer(request: Request) -> Response:
        target = next(iter(request.path_params.values()), None)
        struck: list[str] = []
        try:
            response = await _answer(desk, request, operation, target, handler, struck)
        except ApiError as error:
            await _drain(request)
            response = JSONResponse(error.body(), error.status, error.headers)
        except ClientDisconnect:
            response = Dropped()
        status = 0 if isinstance(response, Dropped) else response.status_code
        desk.journal.note(operation, status, target, struck)
        return response

    return answer


async def _answer(
    desk: Desk, request: Request, operation: str, target: str | None, handler: Handler, struck: list[str]
) -> Response:
    scope = authorize(desk, request)
    body = await _json_body(request) if operation == "batches.create" else None
    faults = desk.faults.for_call(operation, *_subject(desk, operation, target, body))
    struck += [one.kind for one in faults]
    call = Call(desk, request, operation, target, body, scope, _organization(desk, request), tuple(faults))
    before = await _strike([one for one in faults if not late(one)], target or _input_file(body))
    if before is not None:
        await _drain(request)
        return before
    response = await handler(call)
    after = await _strike([one for one in faults if late(one)], target)
    return response if after is None else after


def late(fault: Fault) -> bool:
    """True for a fault that lets the work be done first."""
    return fault.after_work or fault.kind == FaultKind.LOST_ANSWER


async def _strike(faults: list[Fault], target: str | None) -> Response | None:
    for fault in faults:
        match fault.kind:
            case FaultKind.DELAY:
                await asyncio.sleep(fault.seconds)
            case FaultKind.DROP | FaultKind.LOST_ANSWER:
                await asyncio.sleep(fault.seconds)
                return Dropped()
            case FaultKind.HTTP_ERROR:
                return _refusal(fault)
            case FaultKind.NOT_VISIBLE:
                return _respond(no_such_file(target or ""))
            case FaultKind.HTML:
                return Response(fault.body or HTML, fault.status or 200, media_type="text/html")
            case FaultKind.RAW_BODY:
                return Response(fault.body, fault.status or 200, media_type=fault.content_type)
            case _:
                pass
    return None


def _refusal(fault: Fault) -> Response:
    status = fault.status or 500
    headers = {} if fault.retry_after is None else {"retry-after": f"{fault.retry_after:g}"}
    message = fault.message or f"The sandbox was told to answer {status}."
    kind = "insufficient_quota" if fault.code == "insufficient_quota" else error_type(status)
    return _respond(ApiError(status, message, kind=kind, code=fault.code, headers=headers))


def _respond(error: ApiError) -> Response:
    return JSONResponse(error.body(), error.status, error.headers)


def authorize(desk: Desk, request: Request) -> str:
    """The scope of the caller: the empty one for all, or one per key and project; the key itself is not kept."""
    word, _, key = request.headers.get("authorization", "").partition(" ")
    if desk.config.azure and request.headers.get("api-key"):
        word, key = "bearer", request.headers["api-key"]
    if word.lower() != "bearer" or not key.strip():
        if desk.config.require_key:
            message = "You didn't provide an API key. Provide it in an Authorization header using Bearer auth."
            raise ApiError(401, message, code="invalid_api_key")
        key = ""
    if not desk.config.scoped:
        return ""
    project = request.headers.get("openai-project", "")
    return hashlib.sha256(f"{key.strip()}\0{project}".encode()).hexdigest()[:16]


def _organization(desk: Desk, request: Request) -> str:
    return request.headers.get("openai-organization") or desk.config.organization


async def _json_body(request: Request) -> Any:
    raw = bytearray()
    async for block in request.stream():
        raw += block
        if len(raw) > MAX_JSON_BYTES:
            raise ApiError(413, "The request body is too large.")
    try:
        return from_json(bytes(raw))
    except ValueError:
        message = "We could not parse the JSON body of your request."
        raise ApiError(400, message) from None


def _input_file(body: Any) -> str | None:
    return body.get("input_file_id") if isinstance(body, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def _subject(desk: Desk, operation: str, target: str | None, body: Any) -> tuple[str | None, Mapping[str, str] | None]:
    if operation == "batches.create":
        given = body.get("metadata") if isinstance(body, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        return _input_file(body), given if isinstance(given, dict) else None  # pyright: ignore[reportUnknownVariableType]
    record = desk.state.get_batch(target) if target is not None and operation.startswith("batches.") else None
    return target, None if record is None else record.metadata


async def _drain(request: Request) -> None:
    """Read a body to its end, so that a refusal reaches a client that is still sending."""
    try:
        async for _ in request.stream():
            pass
    except (ClientDisconnect, RuntimeError):
        return


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do blocking work without holding up other calls."""
    return await run_in_threadpool(work, *args, **kwargs)
