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


def skip_byte_order_mark(stream: TextIO) -> None:
    """Move a stream that was just opened behind its byte-order mark, where it has one."""
    if stream.read(1) != "\ufeff":
        stream.seek(0)
