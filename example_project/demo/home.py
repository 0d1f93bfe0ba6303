"""The demo's folder: one demo at a time in it, and a note of how far the last one came.

Law: nothing outside the folder is written, and inside it only the names below are removed.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO

from example_project.demo.trouble import DemoError

DAGSTER_YAML = """\
telemetry:
  enabled: false
nux:
  enabled: false
"""
OWN_NAMES = ("dagster", "sandbox", "artifacts", "logs", "sandbox.port", "demo.json")
OWN_PATTERNS = ("runs.sqlite3*",)


@dataclass(frozen=True)
class Child:
    """A process group that we started: its leader's pid, and when that process began, so that a reused pid is told."""

    name: str
    pid: int
    began: str


@dataclass(frozen=True)
class Note:
    """How far the last demo came: nothing submitted (no backfill), submitted, or done."""

    backfill_id: str = ""
    done: bool = False
    ports: dict[str, int] = field(default_factory=dict)
    children: list[Child] = field(default_factory=list)


@dataclass
class Home:
    """The folder, locked for this process as long as the object lives."""

    path: Path
    note: Note = field(default_factory=Note)
    _lock: IO[str] | None = None

    @classmethod
    def open(cls, path: Path) -> Home:
        """Create and lock the folder, and read the last demo's note."""
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = (path / "lock").open("a+")
        except OSError as error:
            raise DemoError(f"{path} cannot be written: {error.strerror}. Choose another folder with --home") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise DemoError(f"another demo is running in {path}: end it first, or choose another --home") from None
        home = cls(path, _lock=lock)
        home.note = home._read()
        return home

    def close(self) -> None:
        """Give the folder up for another demo."""
        if self._lock:
            self._lock.close()

    @property
    def dagster(self) -> Path:
        return self.path / "dagster"

    @property
    def sandbox_state(self) -> Path:
        return self.path / "sandbox"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def log_of(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def remember(self, **changes: object) -> None:
        """Write the note anew, whole or not at all."""
        self.note = replace(self.note, **changes)
        aside = self.path / "demo.json.new"
        aside.write_text(json.dumps(asdict(self.note), indent=1))
        os.replace(aside, self.path / "demo.json")

    def clear(self) -> None:
        """Remove what a demo has written, keeping the ports in mind."""
        ports = self.note.ports
        gone = [self.path / name for name in OWN_NAMES]
        for path in [*gone, *(path for pattern in OWN_PATTERNS for path in self.path.glob(pattern))]:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        self.note = Note(ports=ports)

    def lay_out(self) -> None:
        """Make the folders and Dagster's settings."""
        try:
            for folder in (self.dagster, self.sandbox_state, self.logs):
                folder.mkdir(parents=True, exist_ok=True)
            (self.dagster / "dagster.yaml").write_text(DAGSTER_YAML)
        except OSError as error:
            raise DemoError(f"{self.path} cannot be written: {error.strerror}. Choose another --home") from None

    def _read(self) -> Note:
        try:
            stored = json.loads((self.path / "demo.json").read_text())
            children = [Child(**one) for one in stored.pop("children", [])]
            return Note(**stored, children=children)
        except (OSError, ValueError, TypeError):
            return Note()
