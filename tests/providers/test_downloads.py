"""Downloads from a server that breaks connections in every way, over a real socket."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from batchor_engine.config import OpenAIProviderConfig
from batchor_engine.errors import ProviderError, ProviderErrorKind
from batchor_engine.providers.openai import OpenAIBatchProvider

CONTENT = bytes(range(256)) * 40


class RudeServer:
    """Serves CONTENT as one file; `break_after` bytes it drops the connection, for the first `breaks` times."""

    def __init__(self, *, break_after: int, breaks: int, ranges: bool, size: int | None = len(CONTENT)) -> None:
        self._break_after, self._breaks, self._ranges, self._size = break_after, breaks, ranges, size
        self.asked: list[str] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(65536)
        if b"/content" not in head.split(b"\r\n")[0]:
            size = b"null" if self._size is None else str(self._size).encode()
            body = b'{"id":"file-1","bytes":' + size + b"}"
            connection.sendall(_head(200, len(body), b"Content-Type: application/json\r\n") + body)
            return
        wanted = re.search(rb"(?i)\r\nrange: bytes=(\d+)-", head)
        self.asked.append(wanted[1].decode() if wanted else "")
        start = int(wanted[1]) if wanted and self._ranges else 0
        if start >= len(CONTENT):
            connection.sendall(_head(416, 0))
            return
        extra = f"Content-Range: bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}\r\n".encode() if start else b""
        body = CONTENT[start:]
        connection.sendall(_head(206 if start else 200, len(body), extra))
        if self._breaks:
            self._breaks -= 1
            body = body[: self._break_after]
        connection.sendall(body)


def _head(status: int, length: int, extra: bytes = b"") -> bytes:
    return f"HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n".encode() + extra + b"\r\n"


Serve = Callable[..., RudeServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[RudeServer] = []

    def make(**how: object) -> RudeServer:
        servers.append(RudeServer(**how))  # type: ignore[arg-type]
        return servers[-1]

    yield make
    for server in servers:
        server.close()


def download(server: RudeServer, target: Path) -> None:
    provider = OpenAIBatchProvider(OpenAIProviderConfig(model="m", api_key="sk-x", base_url=server.url))
    try:
        provider.download_file_to("file-1", target)
    finally:
        provider.close()


def test_many_breaks_are_resumed_where_they_were(serve: Serve, tmp_path: Path) -> None:
    server = serve(break_after=3000, breaks=3, ranges=True)
    download(server, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert server.asked == ["", "3000", "6000", "9000"]


def test_a_server_without_ranges_starts_over(serve: Serve, tmp_path: Path) -> None:
    server = serve(break_after=3000, breaks=2, ranges=False)
    download(server, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert server.asked == ["", "3000", "3000"]


def test_a_server_without_ranges_that_always_breaks_is_given_up(serve: Serve, tmp_path: Path) -> None:
    server = serve(break_after=3000, breaks=99, ranges=False)
    with pytest.raises(ProviderError, match="broke off after 3000 of 10240 bytes") as caught:
        download(server, tmp_path / "out")
    assert caught.value.kind is ProviderErrorKind.TRANSIENT
    assert len(server.asked) == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [None, 0])
def test_a_server_that_knows_no_size_is_trusted_by_its_content_length(
    serve: Serve, tmp_path: Path, size: int | None
) -> None:
    server = serve(break_after=3000, breaks=1, ranges=True, size=size)
    download(server, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == CONTENT


def test_a_file_that_stays_shorter_than_its_size_is_given_up_and_not_fetched_for_ever(
    serve: Serve, tmp_path: Path
) -> None:
    server = serve(break_after=0, breaks=0, ranges=True, size=len(CONTENT) + 7)
    with pytest.raises(ProviderError, match="broke off after 10240 of 10247 bytes"):
        download(server, tmp_path / "out")
    assert len(server.asked) <= 4
    assert list(tmp_path.iterdir()) == []


def test_a_local_failure_is_no_matter_of_the_provider(serve: Serve, tmp_path: Path) -> None:
    server = serve(break_after=0, breaks=0, ranges=True)
    with pytest.raises(FileNotFoundError):
        download(server, tmp_path / "no folder" / "out")


def test_an_older_file_stays_until_the_new_one_is_whole(serve: Serve, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"older")
    with pytest.raises(ProviderError):
        download(serve(break_after=10, breaks=99, ranges=False), target)
    assert target.read_bytes() == b"older"
    download(serve(break_after=10, breaks=0, ranges=False), target)
    assert target.read_bytes() == CONTENT
