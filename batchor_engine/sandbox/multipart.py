"""A multipart/form-data reader that keeps one boundary's worth of bytes and hands the rest on at once.

Law: nothing here grows with the size of the upload.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .errors import ApiError

MAX_HEADER_BYTES = 16_384
MAX_FIELD_BYTES = 65_536


@dataclass(frozen=True)
class PartHeader:
    """Name and file name of one form part; `filename` is None for a plain field."""

    name: str
    filename: str | None


PartSink = Callable[[PartHeader, bytes], None]


def boundary_of(content_type: str) -> bytes:
    """The boundary of a multipart content type; anything else is a 400."""
    found = re.search(r'boundary="?([^";,]+)"?', content_type)
    if not content_type.lower().startswith("multipart/form-data") or found is None:
        raise ApiError(400, "The request body must be multipart/form-data with a boundary.")
    return found.group(1).strip().encode("latin-1")


class MultipartReader:
    """Feed it blocks of the body; it calls `sink(header, data)` for each piece of each part, in order."""

    def __init__(self, boundary: bytes, sink: PartSink) -> None:
        self._mark = b"\r\n--" + boundary
        # The first boundary has no line break before it; we pretend that it had.
        self._buffer = b"\r\n"
        self._sink = sink
        self._part: PartHeader | None = None
        self._state = "preamble"

    def feed(self, block: bytes) -> None:
        """Take one block of the body."""
        self._buffer += block
        while self._step():
            pass

    def close(self) -> None:
        """Refuse a body that ended before its last boundary."""
        if self._state != "end":
            raise ApiError(400, "The multipart body ended before its closing boundary.")

    def _step(self) -> bool:
        moves = {"preamble": self._data, "data": self._data, "mark": self._mark_end, "header": self._header}
        move = moves.get(self._state)
        return move() if move is not None else False

    def _data(self) -> bool:
        at = self._buffer.find(self._mark)
        if at >= 0:
            self._emit(self._buffer[:at])
            self._buffer = self._buffer[at + len(self._mark) :]
            self._state = "mark"
            return True
        keep = len(self._mark) - 1
        if len(self._buffer) > keep:
            self._emit(self._buffer[:-keep])
            self._buffer = self._buffer[-keep:]
        return False

    def _emit(self, data: bytes) -> None:
        if self._part is not None and data:
            self._sink(self._part, data)

    def _mark_end(self) -> bool:
        if len(self._buffer) < 2:
            return False
        self._state = "end" if self._buffer[:2] == b"--" else "header"
        if self._state == "header" and self._buffer[:2] != b"\r\n":
            raise ApiError(400, "A multipart boundary must be followed by a line break.")
        self._buffer = self._buffer[2:]
        return self._state == "header"

    def _header(self) -> bool:
        at = self._buffer.find(b"\r\n\r\n")
        if at < 0:
            if len(self._buffer) > MAX_HEADER_BYTES:
                raise ApiError(400, "A multipart part's header is too long.")
            return False
        self._part = parse_header(self._buffer[:at])
        # An empty part announces itself too, so that an empty file is a file.
        self._sink(self._part, b"")
        self._buffer = self._buffer[at + 4 :]
        self._state = "data"
        return True


def parse_header(raw: bytes) -> PartHeader:
    """Read name and file name from a part's Content-Disposition."""
    text = raw.decode("utf-8", "replace")
    lines = [line for line in text.split("\r\n") if line.lower().startswith("content-disposition:")]
    if not lines:
        raise ApiError(400, "A multipart part has no Content-Disposition.")
    pairs = dict(_parameters(lines[0]))
    if "name" not in pairs:
        raise ApiError(400, "A multipart part has no name.")
    return PartHeader(pairs["name"], pairs.get("filename"))


def _parameters(line: str) -> Iterator[tuple[str, str]]:
    for found in re.finditer(r';\s*([\w*]+)=(?:"((?:[^"\\]|\\.)*)"|([^;]*))', line):
        quoted = found.group(2)
        yield found.group(1).lower(), quoted if quoted is not None else found.group(3).strip()
