"""Bringing one remote file to disk in blocks, through connections that break.

Law: the target path is whole or not there; a file shorter than promised is an error, never a short success.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, Protocol

from batchor_engine.errors import ProviderError, ProviderErrorKind

# Tries that got no further than an earlier one, and tries in all, after which the caller's back-off waits.
_FRUITLESS_TRIES = 2
_TRIES = 50
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class Opening(Protocol):
    """Opens the remote file's content; `headers` are sent along."""

    def __call__(self, headers: Mapping[str, str]) -> contextlib.AbstractContextManager[Any]: ...


def fetch(opening: Opening, path: Path, *, what: str, size: int | None) -> None:
    """Write the content to `path`, resuming a broken stream where the server can; ProviderError where it ends short."""
    with _whole_or_absent(path) as target:
        farthest = fruitless = 0
        for left in reversed(range(_TRIES)):
            end = _Attempt(opening, target, what).run()
            if end.broken is None and not _is_short(target, size):
                return
            # A server without Range starts over each time, so only getting farther than ever is progress.
            fruitless = 0 if target.tell() > farthest else fruitless + 1
            farthest = max(farthest, target.tell())
            if not left or fruitless >= _FRUITLESS_TRIES:
                _give_up(what, farthest, size or end.promised, end.broken)


class _Attempt:
    """One request for the rest of a file."""

    def __init__(self, opening: Opening, target: BinaryIO, what: str) -> None:
        self._opening, self._target, self._what = opening, target, what
        self.promised: int | None = None
        self.broken: Exception | None = None

    def run(self) -> _Attempt:
        # Compressed lengths could not be compared, and would buy little on a stream that may have to resume.
        headers = {"Accept-Encoding": "identity"}
        if self._target.tell():
            headers["Range"] = f"bytes={self._target.tell()}-"
        with contextlib.ExitStack() as stack:
            try:
                response = stack.enter_context(self._opening(headers))
            except ProviderError as error:
                if error.status_code == 416:
                    return self._start_over(error)
                raise
            self._place(response)
            self._read(response)
        return self

    def _start_over(self, error: ProviderError) -> _Attempt:
        _rewind(self._target)
        self.broken = error
        return self

    def _place(self, response: Any) -> None:
        """Go to where the response's first byte belongs, and note how long the whole will be."""
        headers = {str(key).lower(): str(value) for key, value in dict(response.headers).items()}
        if "text/html" in headers.get("content-type", ""):
            raise ProviderError(f"{self._what} got an HTML page", kind=ProviderErrorKind.TRANSIENT)
        part = _CONTENT_RANGE.match(headers.get("content-range", ""))
        if not part or int(part[1]) != self._target.tell():
            _rewind(self._target)
        if "content-encoding" not in headers and headers.get("content-length", "").isdigit():
            self.promised = self._target.tell() + int(headers["content-length"])

    def _read(self, response: Any) -> None:
        # Without a block size: one would hold back bytes that have arrived, and lose them when the stream breaks.
        blocks: Iterator[bytes] = iter(response.iter_bytes())
        while True:
            try:
                block = next(blocks, None)
            except Exception as error:  # noqa: BLE001 - a dropped stream raises the transport's errors, of no fixed type
                self.broken = error
                return
            if block is None:
                break
            self._target.write(block)
        if self.promised is not None and self._target.tell() < self.promised:
            self.broken = EOFError("the stream ended early")


@contextmanager
def _whole_or_absent(path: Path) -> Generator[BinaryIO]:
    aside = path.with_name(path.name + ".part")
    try:
        with aside.open("wb") as target:
            yield target
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _rewind(target: BinaryIO) -> None:
    target.seek(0)
    target.truncate()


def _is_short(target: BinaryIO, size: int | None) -> bool:
    return size is not None and target.tell() < size


def _give_up(what: str, got: int, promised: int | None, cause: Exception | None) -> NoReturn:
    why = f": {type(cause).__name__}" if cause else ""
    raise ProviderError(
        f"{what} broke off after {got} of {promised if promised is not None else 'unknown'} bytes{why}",
        kind=ProviderErrorKind.TRANSIENT,
    )
