"""What an artifact store must be able to do.

Law: a file appears whole or not at all. The five abstract methods suffice; a store that has only those carries binary
files as base64 text under the key with ".b64" added.
"""

from __future__ import annotations

import base64
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

# Lines are short, and a system call for every few of them costs more than making them.
_WRITE_BUFFER_BYTES = 256 * 1024
_BASE64_SUFFIX = ".b64"
# Python would ask the disk for 4 KB at a time, and let other threads in at each.
_READ_AHEAD_BYTES = 1 << 16


class ArtifactStore(ABC):
    """Files by relative POSIX-style keys."""

    @abstractmethod
    def write_text(self, key: str, content: str, *, encoding: str = "utf-8") -> None:
        """Store text; it appears whole or not at all."""

    @abstractmethod
    def read_text(self, key: str, *, encoding: str = "utf-8") -> str:
        """Load text; FileNotFoundError where there is none."""

    @abstractmethod
    def delete(self, key: str) -> bool:
        """Delete a file; True if it existed."""

    @abstractmethod
    def stage_local_copy(self, key: str) -> AbstractContextManager[Path]:
        """A readable local path while the context is open; the caller must not change it."""

    @abstractmethod
    def export_to_directory(self, key: str, destination_root: str | Path) -> Path:
        """Copy a file to `destination_root`/`key`, creating parents, and return the absolute path."""

    @property
    def location(self) -> str:
        """Where the data is, for the run's record and for error messages; holds no credential."""
        return type(self).__name__

    @contextmanager
    def new_file(self, key: str) -> Generator[Path]:
        """A local path to fill; it becomes `key` when the context ends without an exception, else it is gone."""
        with tempfile.TemporaryDirectory(prefix="batchor-") as folder:
            path = Path(folder) / "new"
            yield path
            self.write_text(key + _BASE64_SUFFIX, base64.b64encode(path.read_bytes()).decode("ascii"))

    @contextmanager
    def open_write(self, key: str) -> Generator[BinaryIO]:
        """A binary writer; the file appears when the context ends without an exception, else not at all."""
        with self.new_file(key) as path, path.open("wb", buffering=_WRITE_BUFFER_BYTES) as stream:
            yield stream

    def exists(self, key: str) -> bool:
        """Whether a file made by new_file() or open_write() is there."""
        try:
            self.read_text(key + _BASE64_SUFFIX)
        except FileNotFoundError:
            return False
        return True

    @contextmanager
    def local_file(self, key: str) -> Generator[Path]:
        """A readable local path of a file made by new_file() or open_write(); FileNotFoundError where there is none."""
        content = base64.b64decode(self.read_text(key + _BASE64_SUFFIX))
        with tempfile.TemporaryDirectory(prefix="batchor-") as folder:
            path = Path(folder) / "copy"
            path.write_bytes(content)
            yield path

    @contextmanager
    def open_read(self, key: str) -> Generator[BinaryIO]:
        """A seekable binary reader of a file made by new_file() or open_write(); FileNotFoundError where there is none.

        A store far away fetches only what is read.
        """
        with self.local_file(key) as path, path.open("rb", buffering=_READ_AHEAD_BYTES) as stream:
            yield stream

    @contextmanager
    def reading(self, key: str) -> Generator[Callable[[], AbstractContextManager[BinaryIO]]]:
        """open_read() again and again while the context is open, for a reader that keeps nothing open in between."""
        with self.local_file(key) as path:
            yield partial(path.open, "rb")

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        """`length` bytes of a file made by new_file() or open_write(), fewer where it ends before."""
        with self.open_read(key) as stream:
            stream.seek(offset)
            return stream.read(length)

    @contextmanager
    def made_file(self, key: str, fill: Callable[[Path], object]) -> Generator[Path]:
        """Let `fill` write a new file, and read it here at once: a local path while the context is open."""
        with self.new_file(key) as path:
            fill(path)
        with self.local_file(key) as path:
            yield path

    def remove(self, key: str) -> bool:
        """Delete a file made by new_file() or open_write(); True if it existed."""
        return self.delete(key + _BASE64_SUFFIX)

    def list_keys(self, prefix: str) -> Iterator[str]:
        """Keys below `prefix`; used to find files that no row points to. None where that cannot be listed."""
        del prefix
        return iter(())

    def sweep_unfinished(self, prefix: str, *, older_than_sec: float = 3600.0) -> int:
        """Remove what killed writers left below `prefix`; how many files that were. 0 where a kill leaves nothing."""
        del prefix, older_than_sec
        return 0
