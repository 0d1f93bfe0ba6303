"""A file as a source knows it: its absolute path and a fingerprint of its bytes.

Law: the fingerprint follows the content alone: touching a file or copying it back changes nothing, any edit does.
"""

from __future__ import annotations

import codecs
import hashlib
import os
from pathlib import Path
from typing import TextIO

_BLOCK_BYTES = 1024 * 1024
# The mark of UTF-32 begins with the one of UTF-16, so it comes first.
_OTHER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_GZIP_MARK = b"\x1f\x8b"


class FileContent:
    """One file; the fingerprint is computed once for each state of the file that this object has seen."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(os.path.abspath(Path(path).expanduser()))
        self._seen: tuple[int, ...] | None = None
        self._fingerprint = ""

    @property
    def ref(self) -> str:
        return str(self.path)

    def check(self) -> None:
        """Raise FileNotFoundError or IsADirectoryError unless there is a file."""
        if self.path.is_dir():
            raise IsADirectoryError(f"{self.path} is a folder: name one file, or join several by CompositeItemSource.")
        if not self.path.exists():
            raise FileNotFoundError(f"There is no file {self.path} (relative paths start at {Path.cwd()}).")

    def state(self) -> tuple[int, ...]:
        """A cheap value that changes with every edit of the file; it means nothing to another process."""
        self.check()
        stat = self.path.stat()
        # Changed-at time included: a same-size edit that restores the modification time still moves it.
        return stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns

    def fingerprint(self) -> str:
        """SHA-256 of the bytes as hex, read in blocks."""
        state = self.state()
        if state != self._seen:
            self._fingerprint = _sha256(self.path)
            self._seen = state
        return self._fingerprint


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def text_encoding(name: str) -> str:
    """The canonical name of a text encoding; ValueError where Python knows none of that name."""
    try:
        return codecs.lookup(name).name
    except LookupError as error:
        raise ValueError(f"Python knows no text encoding {name!r}.") from error


def check_is_utf8(path: Path) -> None:
    """ValueError naming what a file is that begins as UTF-16, UTF-32 or gzip does; spreadsheets save the former."""
    with path.open("rb") as stream:
        head = stream.read(4)
    if head.startswith(_GZIP_MARK):
        raise ValueError(f"{path} is gzip-compressed: decompress it first, for instance with gunzip.")
    if found := next((name for mark, name in _OTHER_MARKS.items() if head.startswith(mark)), None):
        raise ValueError(f"{path} is {found}, not utf-8: {name_encoding(found)}")
    # Without a mark: every other byte of plain text is zero, and no text in UTF-8 begins so.
    if len(head) > 1 and head[:2].count(0) == 1:
        found = "utf-16-be" if head[0] == 0 else "utf-16-le"
        raise ValueError(f"{path} looks like {found}, not utf-8: {name_encoding(found)}")


def name_encoding(found: str = "...") -> str:
    """The way out of a wrong encoding, for a caller and for a shell."""
    return f"name its encoding (encoding={found!r}, --encoding {found}) or save it as UTF-8."


def skip_byte_order_mark(stream: TextIO) -> None:
    """Move a stream that was just opened behind its byte-order mark, where it has one."""
    if stream.read(1) != "\ufeff":
        stream.seek(0)
