"""A way to a PostgreSQL server that can be cut at the worst moment: around a COMMIT."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from pathlib import Path

_COMMIT = b"COMMIT\x00"


class Cut:
    """Forwards a socket folder to another one; `arm("before")` swallows the next COMMIT, `arm("after")` its answer."""

    def __init__(self, folder: Path, server: Path) -> None:
        folder.mkdir()
        self._server = str(server / ".s.PGSQL.5432")
        self._armed: str | None = None
        self.cuts = 0
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / ".s.PGSQL.5432"))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def arm(self, when: str) -> None:
        self._armed = when

    def close(self) -> None:
        # Only a shutdown wakes the thread that waits in accept().
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.socket(socket.AF_UNIX)
                with suppress(OSError):
                    far.connect(self._server)
                threading.Thread(target=self._forward, args=(near, far, True), daemon=True).start()
                threading.Thread(target=self._forward, args=(far, near, False), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, asking: bool) -> None:
        with source, target:
            try:
                while data := source.recv(65536):
                    if asking and self._armed and data.endswith(_COMMIT):
                        self._cut(source, target, data)
                        return
                    target.sendall(data)
                target.shutdown(socket.SHUT_WR)
            except OSError:
                # To close a socket wakes nobody who waits for it.
                for one in (source, target):
                    with suppress(OSError):
                        one.shutdown(socket.SHUT_RDWR)

    def _cut(self, near: socket.socket, far: socket.socket, data: bytes) -> None:
        when, self._armed = self._armed, None
        self.cuts += 1
        near.shutdown(socket.SHUT_RDWR)
        if when == "after":
            far.sendall(data)
        far.shutdown(socket.SHUT_WR)
