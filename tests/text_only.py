"""An artifact store as somebody else may write one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from batchor_engine import ArtifactStore, LocalArtifactStore


class TextOnly(ArtifactStore):
    """The contract's five abstract methods and nothing else."""

    def __init__(self, root: Path) -> None:
        self._files = LocalArtifactStore(root)

    def write_text(self, key: str, content: str, *, encoding: str = "utf-8") -> None:
        self._files.write_text(key, content, encoding=encoding)

    def read_text(self, key: str, *, encoding: str = "utf-8") -> str:
        return self._files.read_text(key, encoding=encoding)

    def delete(self, key: str) -> bool:
        return self._files.delete(key)

    @contextmanager
    def stage_local_copy(self, key: str) -> Iterator[Path]:
        with self._files.stage_local_copy(key) as path:
            yield path

    def export_to_directory(self, key: str, destination_root: str | Path) -> Path:
        return self._files.export_to_directory(key, destination_root)
