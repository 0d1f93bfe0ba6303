"""Starts and stops a sandbox: in a thread beside a test, or as a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from .config import SandboxConfig
from .desk import Desk
from .errors import SandboxError
from .faults import Fault, FaultBoard
from .stats import all_batches, paid_lines, stats
from .values import JSONObject

if TYPE_CHECKING:
    import uvicorn

START_SEC = 20.0


class SandboxServer:
    """A sandbox on a loopback port; as a context manager it runs in a thread of this process.

    Keyword arguments replace fields of the config: `SandboxServer(clock="polls")`.
    """

    def __init__(
        self, config: SandboxConfig | None = None, *, faults: Iterable[Fault | JSONObject] = (), **changes: Any
    ) -> None:
        self.config = replace(config or SandboxConfig(), **changes)
        self._first_faults = list(faults)
        self._desk: Desk | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self.port = 0

    def start(self) -> SandboxServer:
        """Bind, serve and return once calls are answered."""
        import uvicorn

        from .routes import build_app
        from .wire import SandboxProtocol

        sock = bind(self.config.host, self.config.port)
        try:
            self._desk = Desk(self.config)
            self._desk.faults.add(*self._first_faults)
            settings = uvicorn.Config(
                build_app(self._desk),
                http=SandboxProtocol,
                loop="asyncio",
                ws="none",
                log_config=None,
                lifespan="off",
                log_level="error",
                access_log=False,
                timeout_graceful_shutdown=2,
            )
        except BaseException:
            sock.close()
            self.stop()
            raise
        self.port = sock.getsockname()[1]
        self._server = uvicorn.Server(settings)
        self._thread = threading.Thread(target=self._server.run, args=([sock],), name="sandbox", daemon=True)
        self._thread.start()
        self._await_start(self._server, self._thread)
        if self.config.port_file is not None:
            write_port(Path(self.config.port_file), self.port)
        return self

    def _await_start(self, server: uvicorn.Server, thread: threading.Thread) -> None:
        deadline = time.monotonic() + START_SEC
        while not server.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                raise SandboxError(f"the sandbox did not start on port {self.port}")
            time.sleep(0.005)

    def stop(self) -> None:
        """Stop serving; a private state directory is removed. Stopping twice is harmless."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join()
        if self._desk is not None:
            self._desk.close()
        self._server = self._thread = self._desk = None

    def __enter__(self) -> SandboxServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def desk(self) -> Desk:
        """The running sandbox behind the HTTP server."""
        if self._desk is None:
            raise SandboxError("the sandbox is not running; call start() first")
        return self._desk

    @property
    def root_url(self) -> str:
        """Where /sandbox/stats and its like are."""
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        return f"http://{host}:{self.port}"

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes as `base_url`."""
        return f"{self.root_url}{self.config.prefix}"

    @property
    def faults(self) -> FaultBoard:
        """The armed faults: `.add(Fault(...))`, `.clear()`, `.listing()`."""
        return self.desk.faults

    def stats(self) -> JSONObject:
        """Calls, batches and paid lines; the same as GET /sandbox/stats."""
        return stats(self.desk)

    def paid(self, batch_id: str | None = None) -> list[JSONObject]:
        """Each paid line as {batch_id, custom_id, dropped}."""
        return paid_lines(self.desk, batch_id)

    def batches(self) -> list[JSONObject]:
        """Every batch object as it truly is, oldest first; looking does not count as a poll."""
        return [one.public() for one in all_batches(self.desk)]

    def journal(self) -> list[JSONObject]:
        """The last thousand calls, oldest first."""
        return self.desk.journal.entries()

    def advance(self, batch_id: str | None = None, steps: int = 1) -> None:
        """End the current phase of one batch or of all live ones, so many times, on any clock."""
        self.desk.advance(batch_id, steps)

    def finish(self, batch_id: str | None = None) -> None:
        """Take one batch or all live ones to their end."""
        self.desk.finish(batch_id)


def bind(host: str, port: int) -> socket.socket:
    """A bound listening socket on loopback, or one clear error."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle's algorithm off only for sockets that name TCP; else each answer waits some 40 ms.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(128)
    except OSError as error:
        sock.close()
        raise SandboxError(
            f"port {port} on {host} cannot be used ({error.strerror}); choose another one or 0 for a free one"
        ) from error
    return sock


def write_port(path: Path, port: int) -> None:
    """Write the port's number to a file that appears whole."""
    aside = path.with_name(f"{path.name}.part{os.getpid()}")
    aside.write_text(f"{port}\n", "utf-8")
    aside.replace(path)


def serve(config: SandboxConfig, faults: Iterable[Fault] = ()) -> None:
    """Run a sandbox in this process until SIGINT or SIGTERM; prints one line with its URL."""
    done = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        done.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with SandboxServer(config, faults=faults) as server:
            sys.stdout.write(f"batchor sandbox listening on {server.base_url}\n")
            sys.stdout.flush()
            done.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
