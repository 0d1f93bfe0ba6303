"""Artifacts as files below one folder of the local file system.

Law: no key reaches outside the root, not through `..` and not through a symlink; every file is its owner's alone.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from batchor_engine.artifacts.atomic import is_unfinished, remove_empty_folders, walk_files, whole_file
from batchor_engine.artifacts.keys import key_parts
from batchor_engine.errors import ArtifactMissingError
from batchor_engine.ports.artifacts import ArtifactStore


class LocalArtifactStore(ArtifactStore):
    """Files below `root` (made absolute, `~` expanded; created with the first file)."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(os.path.abspath(Path(root).expanduser()))

    def __repr__(self) -> str:
        return f"LocalArtifactStore({str(self.root)!r})"

    @property
    def location(self) -> str:
        return str(self.root)

    def resolve_path(self, key: str) -> Path:
        """The path of `key`; ValueError where the key is malformed or leads out of the root."""
        path = self.root.joinpath(*key_parts(key))
        home = os.path.realpath(self.root)
        if os.path.commonpath([home, os.path.realpath(path)]) != home:
            raise ValueError(f"Artifact key {key!r} leads out of {self.root} through a symlink.")
        return path

    def write_text(self, key: str, content: str, *, encoding: str = "utf-8") -> None:
        data = content.encode(encoding)
        with self.new_file(key) as path:
            path.write_bytes(data)

    def read_text(self, key: str, *, encoding: str = "utf-8") -> str:
        # Bytes, because text mode would turn \r\n into \n.
        return self._existing(key).read_bytes().decode(encoding)

    def delete(self, key: str) -> bool:
        path = self.resolve_path(key)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "An artifact key names a file, not a folder", str(path))
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return False
        remove_empty_folders(path.parent, self.root)
        return True

    @contextmanager
    def stage_local_copy(self, key: str) -> Generator[Path]:
        yield self._existing(key)

    def export_to_directory(self, key: str, destination_root: str | Path) -> Path:
        source = self._existing(key)
        root = Path(os.path.abspath(Path(destination_root).expanduser()))
        target = root.joinpath(*key_parts(key))
        with whole_file(target, root=root) as path:
            shutil.copyfile(source, path)
        return target

    @contextmanager
    def new_file(self, key: str) -> Generator[Path]:
        target = self.resolve_path(key)
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "An artifact key names a file, not a folder", str(target))
        with whole_file(target, root=self.root) as path:
            yield path

    def exists(self, key: str) -> bool:
        """IsADirectoryError for a folder."""
        with suppress(ArtifactMissingError):
            self._existing(key)
            return True
        return False

    @contextmanager
    def local_file(self, key: str) -> Generator[Path]:
        yield self._existing(key)

    def remove(self, key: str) -> bool:
        return self.delete(key)

    def list_keys(self, prefix: str) -> Iterator[str]:
        """Keys of the files in the folder `prefix` and below ("" for all), without files still being written."""
        for path in self._files(prefix):
            if not is_unfinished(path.name):
                yield path.relative_to(self.root).as_posix()

    def sweep_unfinished(self, prefix: str, *, older_than_sec: float = 3600.0) -> int:
        """Remove what killed writers left in the folder `prefix` and below; returns how many files that were."""
        limit = time.time() - older_than_sec
        stale = [path for path in self._files(prefix) if is_unfinished(path.name) and _modified(path) <= limit]
        for path in stale:
            path.unlink(missing_ok=True)
            remove_empty_folders(path.parent, self.root)
        return len(stale)

    def _files(self, prefix: str) -> Iterator[Path]:
        folder = prefix.rstrip("/")
        return walk_files(self.resolve_path(folder) if folder else self.root)

    def _existing(self, key: str) -> Path:
        path = self.resolve_path(key)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "An artifact key names a file, not a folder", str(path))
        if not path.exists():
            raise ArtifactMissingError(key, str(self.root))
        return path


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")
