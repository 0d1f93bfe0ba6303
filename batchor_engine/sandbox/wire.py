"""The connection itself, for what a well-behaved server never does: hang up, break off, end too early."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

BLOCK_BYTES = 65_536


class SandboxProtocol(H11Protocol):
    """HTTP/1.1 whose requests can reach their own connection through `scope["state"]`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.app_state = {**self.app_state, "connection": self}


class Dropped(Response):
    """No answer: the connection is reset."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        await hang_up(scope, receive, reset=True)


class BrokenDownload(Response):
    """The first bytes of a file, then a reset, or (clean) an ordinary end that comes too early."""

    def __init__(self, head: bytes, total: int, content_length: bool, clean: bool) -> None:
        super().__init__()
        self._head = head
        self._total = total
        self._content_length = content_length
        self._clean = clean

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        transport = transport_of(scope)
        lines = ["HTTP/1.1 200 OK", "content-type: application/octet-stream", "connection: close"]
        if self._content_length:
            lines.append(f"content-length: {self._total}")
        transport.write("\r\n".join(lines).encode() + b"\r\n\r\n" + self._head)
        # The client should get these bytes before the reset, which would otherwise overtake them.
        for _ in range(200):
            if transport.get_write_buffer_size() == 0:
                break
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        await hang_up(scope, receive, reset=not self._clean)


def transport_of(scope: Scope) -> asyncio.Transport:
    """The socket transport of a request."""
    protocol: H11Protocol = scope["state"]["connection"]
    return protocol.transport


async def hang_up(scope: Scope, receive: Receive, *, reset: bool) -> None:
    """Close the connection now, by reset or by an ordinary close, and wait until the server has noticed."""
    transport = transport_of(scope)
    if reset:
        sock = transport.get_extra_info("socket")
        # A client that was killed has closed the socket already.
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    else:
        transport.close()
    while (await receive())["type"] != "http.disconnect":
        pass


def file_response(path: Path, start: int, stop: int, size: int, name: str) -> StreamingResponse:
    """Bytes `start` to `stop` of a file, streamed, with their length."""
    headers = {
        "content-length": str(stop - start),
        "accept-ranges": "bytes",
        "content-disposition": f'attachment; filename="{name.encode("ascii", "replace").decode()}"',
    }
    partial = (start, stop) != (0, size)
    if partial:
        headers["content-range"] = f"bytes {start}-{stop - 1}/{size}"
    status = 206 if partial else 200
    return StreamingResponse(_blocks(path, start, stop), status, headers, "application/octet-stream")


async def _blocks(path: Path, start: int, stop: int) -> AsyncIterator[bytes]:
    # Blocks are small and mostly in the page cache: a thread per block would cost more than it saves.
    with path.open("rb") as file:
        file.seek(start)
        left = stop - start
        while left > 0:
            block = file.read(min(BLOCK_BYTES, left))
            if not block:
                return
            left -= len(block)
            yield block
