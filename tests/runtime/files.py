"""The files of runs as their artifact store has them, in a folder or in a bucket: found, read, spoiled and removed."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import PurePosixPath

from batchor_engine import ArtifactStore


@dataclass(frozen=True)
class StoredFile:
    """One file of a store, as far as a test needs it to be like a path."""

    store: ArtifactStore = field(compare=False)
    key: str

    @property
    def name(self) -> str:
        return PurePosixPath(self.key).name

    def with_name(self, name: str) -> StoredFile:
        return StoredFile(self.store, str(PurePosixPath(self.key).with_name(name)))

    def exists(self) -> bool:
        return self.store.exists(self.key)

    def read_bytes(self) -> bytes:
        with self.store.open_read(self.key) as stream:
            return stream.read()

    def write_bytes(self, data: bytes) -> None:
        with self.store.open_write(self.key) as stream:
            stream.write(data)

    def unlink(self) -> None:
        assert self.store.remove(self.key)


def stored_files(store: ArtifactStore, pattern: str = "*") -> list[StoredFile]:
    """Files whose name, or whose key where the pattern has a folder, is like the pattern.

    Without those that say whose a folder is, which hold nothing of a run.
    """
    found = [StoredFile(store, key) for key in store.list_keys("") if "/owners/" not in key]
    return [one for one in found if fnmatch(one.key if "/" in pattern else one.name, pattern)]
