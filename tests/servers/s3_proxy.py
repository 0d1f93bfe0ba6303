"""A proxy before an S3 server that has bad moments on demand: cut connections, lost answers, errors, silence.

Law: a request that no trouble is meant for passes unchanged; every trouble is used up as often as it says.
"""

from __future__ import annotations

import http.client
import re
import socket
import threading
from collections import Counter
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_BLOCK = 1 << 16


@dataclass
class Trouble:
    """What befalls the next `times` requests of a method whose address matches.

    "cut_request" breaks off within the body, "lost_answer" after the server has done its work, "cut_answer" within the
    answer; "silence" never answers; a number is answered as that status.
    """

    kind: str
    method: str = "PUT"
    path: str = ""
    times: int = 1
    skip: int = 0


@dataclass
class Proxy:
    """The proxy's address, what is to go wrong, and what was asked."""

    endpoint: str
    troubles: list[Trouble] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    bodies: list[int] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    over: threading.Event = field(default_factory=threading.Event)

    def plan(self, method: str, path: str) -> str:
        with self.lock:
            self.seen[method] += 1
            for one in self.troubles:
                if one.times and one.method == method and re.search(one.path, path):
                    if one.skip:
                        one.skip -= 1
                        continue
                    one.times -= 1
                    self.seen[one.kind] += 1
                    return one.kind
        return ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy
    upstream: str

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
        del format, args

    def handle_any(self) -> None:
        plan = self.proxy.plan(self.command, self.path)
        length = int(self.headers.get("Content-Length") or 0)
        if plan == "cut_request":
            self.rfile.read(length // 2)
            self._hang_up()
            return
        body = self.rfile.read(length)
        if len(body) < length:
            # The client gave up; the server would wait for the rest of what it was promised.
            self.close_connection = True
        elif plan == "silence":
            self.proxy.over.wait()
            self._hang_up()
        elif plan.isdigit():
            self._answer(int(plan), {}, b"<Error><Code>SlowDown</Code></Error>")
        else:
            self._forward(plan, body)

    def _forward(self, plan: str, body: bytes) -> None:
        with closing(http.client.HTTPConnection(self.upstream, timeout=30)) as connection:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            response = connection.getresponse()
            content = response.read()
        if plan == "lost_answer":
            self._hang_up()
            return
        kept = {name: value for name, value in response.getheaders() if name.lower() not in _OWN_HEADERS}
        length = int(response.getheader("Content-Length") or 0) if self.command == "HEAD" else len(content)
        if plan == "cut_answer":
            self._answer(response.status, kept, content[: length // 2], length)
            self._hang_up()
        else:
            self._answer(response.status, kept, content, length)

    def _answer(self, status: int, headers: dict[str, str], content: bytes, length: int | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        # After HEAD no content follows; a client would take it for the beginning of its next answer.
        if self.command != "HEAD":
            self.wfile.write(content)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any


_OWN_HEADERS = {"content-length", "transfer-encoding", "connection"}


class _Server(ThreadingHTTPServer):
    daemon_threads = False

    def __init__(self, handler: type[_Handler]) -> None:
        self.connections: list[socket.socket] = []
        super().__init__(("127.0.0.1", 0), handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.append(request)
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """What became of a connection is the client's to say."""

    def hang_up(self) -> None:
        """Wakes the threads that wait for a client's next request; `server_close` waits for all of them."""
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def s3_proxy(endpoint: str, *troubles: Trouble) -> Generator[Proxy]:
    """A proxy on a free port of loopback, before the server at `endpoint`; no thread or connection outlives it."""
    handler = type("Handler", (_Handler,), {"upstream": urlsplit(endpoint).netloc})
    with _Server(handler) as server:
        proxy = Proxy(f"http://127.0.0.1:{server.server_port}", list(troubles))
        handler.proxy = proxy  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield proxy
        finally:
            proxy.over.set()
            server.shutdown()
            thread.join()
            server.hang_up()
