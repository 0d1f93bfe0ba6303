"""The paths of the Files and Batches API, and the sandbox's own under /sandbox."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic_core import from_json
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .calls import Call, Handler, endpoint, in_thread
from .desk import Desk, no_such_file
from .errors import ApiError, SandboxError
from .faults import Fault, FaultKind, first
from .orders import read_batch_order, read_file_order, read_limit, read_range
from .stats import paid_lines, stats
from .uploads import Upload
from .wire import BrokenDownload, file_response


def build_app(desk: Desk) -> Starlette:
    """The ASGI application of one sandbox."""

    def route(path: str, method: str, operation: str, handler: Handler) -> Route:
        return Route(path, endpoint(desk, operation, handler), methods=[method])

    at = desk.config.prefix
    return Starlette(
        routes=[
            route(f"{at}/files", "POST", "files.create", create_file),
            route(f"{at}/files", "GET", "files.list", list_files),
            route(f"{at}/files/{{id}}", "GET", "files.retrieve", retrieve_file),
            route(f"{at}/files/{{id}}", "DELETE", "files.delete", delete_file),
            route(f"{at}/files/{{id}}/content", "GET", "files.content", file_content),
            route(f"{at}/batches", "POST", "batches.create", create_batch),
            route(f"{at}/batches", "GET", "batches.list", list_batches),
            route(f"{at}/batches/{{id}}", "GET", "batches.retrieve", retrieve_batch),
            route(f"{at}/batches/{{id}}/cancel", "POST", "batches.cancel", cancel_batch),
            *admin_routes(desk),
        ],
        exception_handlers={HTTPException: not_routed, SandboxError: broken, Exception: broken},
    )


async def create_file(call: Call) -> Response:
    """Stream an upload to disk and make it a file."""
    file_id, path = call.desk.new_file_path()
    upload = Upload(path, call.request.headers.get("content-type", ""), call.desk.config.max_file_bytes)
    try:
        async for block in call.request.stream():
            upload.feed(block)
        upload.close()
        order = read_file_order(upload.fields, upload.filename)
    except BaseException:
        upload.discard()
        raise
    return JSONResponse(call.desk.add_file(file_id, order, upload.size, call.scope).public())


async def list_files(call: Call) -> Response:
    """A page of files."""
    query = call.request.query_params
    limit = read_limit(query.get("limit"), 10_000, 10_000)
    found = await in_thread(call.desk.files, call.scope, query.get("order", "desc"), query.get("purpose"))
    after = query.get("after")
    ids = [one.id for one in found]
    start = ids.index(after) + 1 if after in ids else 0
    if after is not None and after not in ids:
        raise no_such_file(after)
    page = found[start : start + limit]
    return _page([one.public() for one in page], start + limit < len(found))


async def retrieve_file(call: Call) -> Response:
    """One file."""
    return JSONResponse(call.desk.file(call.target or "", call.scope).public())


async def delete_file(call: Call) -> Response:
    """Remove one file."""
    call.desk.delete_file(call.target or "", call.scope)
    return JSONResponse({"id": call.target, "object": "file", "deleted": True})


async def file_content(call: Call) -> Response:
    """The bytes of one file, or of the range that was asked for."""
    record = call.desk.file(call.target or "", call.scope)
    path = call.desk.state.content_path(record.id)
    size = path.stat().st_size
    start, stop = read_range(call.request.headers.get("range"), size) or (0, size)
    fault = first(call.faults, FaultKind.BREAK_DOWNLOAD)
    if fault is not None:
        return _broken(path, start, stop, fault)
    return file_response(path, start, stop, size, record.filename)


def _broken(path: Path, start: int, stop: int, fault: Fault) -> Response:
    with path.open("rb") as file:
        file.seek(start)
        head = file.read(min(fault.after_bytes, stop - start))
    return BrokenDownload(head, stop - start, fault.content_length, fault.clean)


async def create_batch(call: Call) -> Response:
    """Take in a batch."""
    order = read_batch_order(call.body, azure=call.desk.config.azure)
    record = await in_thread(call.desk.create_batch, order, call.scope, call.organization)
    return JSONResponse(call.desk.view(record))


async def list_batches(call: Call) -> Response:
    """A page of batches, newest first; on the polls clock each of them has now been seen once more."""
    query = call.request.query_params
    limit = read_limit(query.get("limit"), 20, 100)
    page, _ = await in_thread(call.desk.batches, query.get("after"), limit, call.scope)
    await in_thread(call.desk.seen, [one.id for one in page if one.live])
    page, more = await in_thread(call.desk.batches, query.get("after"), limit, call.scope)
    return _page([call.desk.view(one) for one in page], more)


async def retrieve_batch(call: Call) -> Response:
    """One batch; on the polls clock it has now been seen once more."""
    batch_id = call.target or ""
    if call.desk.batch(batch_id, call.scope).live:
        await in_thread(call.desk.seen, [batch_id])
    return JSONResponse(call.desk.view(call.desk.batch(batch_id, call.scope)))


async def cancel_batch(call: Call) -> Response:
    """Begin to cancel a batch."""
    return JSONResponse(call.desk.view(await in_thread(call.desk.cancel, call.target or "", call.scope)))


def _page(data: list[dict[str, Any]], more: bool) -> Response:
    ids = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
    return JSONResponse({"object": "list", "data": data, **ids, "has_more": more})


def admin_routes(desk: Desk) -> list[Route]:
    """Paths for tests: they need no key and are neither counted nor struck by faults."""

    async def show_stats(_request: Request) -> Response:
        return JSONResponse(await in_thread(stats, desk))

    async def show_journal(_request: Request) -> Response:
        return JSONResponse(desk.journal.entries())

    async def show_paid(request: Request) -> Response:
        return JSONResponse(await in_thread(paid_lines, desk, request.query_params.get("batch_id")))

    async def faults(request: Request) -> Response:
        if request.method == "DELETE":
            desk.faults.clear()
        elif request.method == "POST":
            given: Any = await _json(request)
            desk.faults.add(*[Fault.from_json(one) for one in (given if isinstance(given, list) else [given])])  # pyright: ignore[reportUnknownVariableType]
        return JSONResponse(desk.faults.listing())

    async def advance(request: Request) -> Response:
        given: Any = await _json(request)
        if given.get("to") == "end":
            await in_thread(desk.finish, given.get("batch_id"))
        else:
            await in_thread(desk.advance, given.get("batch_id"), int(given.get("steps", 1)))
        return JSONResponse(await in_thread(stats, desk))

    async def health(_request: Request) -> Response:
        return JSONResponse({"status": "ok", "clock": desk.config.clock})

    return [
        Route("/sandbox/health", health),
        Route("/sandbox/stats", show_stats),
        Route("/sandbox/journal", show_journal),
        Route("/sandbox/paid", show_paid),
        Route("/sandbox/faults", faults, methods=["GET", "POST", "DELETE"]),
        Route("/sandbox/advance", advance, methods=["POST"]),
    ]


async def _json(request: Request) -> Any:
    try:
        return from_json(await request.body() or b"{}")
    except ValueError as error:
        raise HTTPException(400, f"The body is not JSON: {error}") from error


async def not_routed(request: Request, error: Exception) -> Response:
    """Starlette's own refusals (no such path, wrong method) in the provider's shape."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    message = f"Invalid URL ({request.method} {request.url.path})"
    if isinstance(error, HTTPException) and status not in (404, 405):
        message = error.detail
    return JSONResponse(ApiError(status, message).body(), status)


async def broken(_request: Request, error: Exception) -> Response:
    """A mistake of a fault script is a 400, one of the sandbox a 500; both in the provider's shape."""
    if isinstance(error, SandboxError):
        return JSONResponse(ApiError(400, str(error)).body(), 400)
    failed = ApiError(500, f"The sandbox itself failed: {type(error).__name__}: {error}", kind="server_error")
    return JSONResponse(failed.body(), 500)
