"""What the sandbox remembers: one SQLite file beside the bytes of the files, all under the state directory.

Law: a record is committed before its answer leaves; SIGKILL loses nothing that a client was told.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from .errors import SandboxError
from .values import BatchRecord, FileRecord, JSONObject, Usage

SCHEMA = """
CREATE TABLE IF NOT EXISTS numbers (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS texts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS files (id TEXT PRIMARY KEY, seq INTEGER NOT NULL, doc TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS batches
    (id TEXT PRIMARY KEY, seq INTEGER NOT NULL, live INTEGER NOT NULL, doc TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS batches_live ON batches (live, seq);
CREATE TABLE IF NOT EXISTS paid (batch_id TEXT, custom_id TEXT, dropped TEXT, PRIMARY KEY (batch_id, custom_id));
"""


class StateDir:
    """Directory and database of one sandbox; every method is one transaction and may be called by any thread."""

    def __init__(self, path: Path | str | None) -> None:
        self.temporary = path is None
        self.path = Path(tempfile.mkdtemp(prefix="batchor-sandbox-")) if path is None else Path(path)
        self.files = self.path / "files"
        self.work = self.path / "work"
        # Shared with the fault board: two locks taken in both orders would stop the server for ever.
        self.lock = threading.RLock()
        try:
            for folder in (self.files, self.work):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._owner = claim(self.path)
            self._db = sqlite3.connect(self.path / "sandbox.sqlite3", check_same_thread=False, isolation_level=None)
            # A killed process loses nothing without fsync; only a power cut would, and then the sandbox starts anew.
            self._db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;" + SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise SandboxError(f"the state directory {self.path} cannot be used: {error}") from error

    def close(self) -> None:
        """Close the database; a temporary directory goes away whole."""
        with self.lock:
            self._db.close()
            self._owner.close()
        if self.temporary:
            shutil.rmtree(self.path, ignore_errors=True)

    @contextmanager
    def write(self) -> Generator[sqlite3.Connection]:
        """One write transaction, rolled back by any exception; nested calls join the outer one."""
        with self.lock:
            if self._db.in_transaction:
                yield self._db
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def rows(self, sql: str, args: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """All rows of a small query."""
        with self.lock:
            return self._db.execute(sql, args).fetchall()

    def count(self, name: str, add: int = 1) -> int:
        """Add to a counter and return its new value."""
        with self.write() as db:
            db.execute(
                "INSERT INTO numbers VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
                (name, add),
            )
            return int(db.execute("SELECT value FROM numbers WHERE name = ?", (name,)).fetchone()[0])

    def counters(self, prefix: str) -> dict[str, int]:
        """All counters whose name starts with the prefix, without it."""
        found = self.rows("SELECT name, value FROM numbers WHERE substr(name, 1, ?) = ?", (len(prefix), prefix))
        return {name[len(prefix) :]: value for name, value in found}

    def text(self, name: str) -> str | None:
        """A remembered text."""
        found = self.rows("SELECT value FROM texts WHERE name = ?", (name,))
        return found[0][0] if found else None

    def remember(self, name: str, value: str) -> None:
        """Keep a text under a name."""
        with self.write() as db:
            db.execute("INSERT OR REPLACE INTO texts VALUES (?, ?)", (name, value))

    def content_path(self, file_id: str) -> Path:
        """Where the bytes of a file lie."""
        return self.files / file_id

    def input_path(self, batch_id: str) -> Path:
        """A batch's own link to its input, which outlives a deletion of the file."""
        return self.work / f"{batch_id}.input"

    def keep_input(self, file_id: str, batch_id: str) -> None:
        """Link a file's bytes for a batch, or copy them where the file system knows no links."""
        try:
            os.link(self.content_path(file_id), self.input_path(batch_id))
        except OSError:
            shutil.copyfile(self.content_path(file_id), self.input_path(batch_id))

    def index_path(self, batch_id: str) -> Path:
        """Where the order of a batch's lines lies."""
        return self.work / f"{batch_id}.index"

    def put_file(self, record: FileRecord) -> None:
        """Make a file known whose bytes already lie at `content_path`."""
        with self.write() as db:
            seq = self.count("seq")
            db.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", (record.id, seq, json.dumps(asdict(record))))

    def get_file(self, file_id: str) -> FileRecord | None:
        """The record of a file, or None."""
        found = self.rows("SELECT doc FROM files WHERE id = ?", (file_id,))
        return FileRecord(**json.loads(found[0][0])) if found else None

    def drop_file(self, file_id: str) -> None:
        """Forget a file and remove its bytes."""
        with self.write() as db:
            db.execute("DELETE FROM files WHERE id = ?", (file_id,))
        self.content_path(file_id).unlink(missing_ok=True)

    def all_files(self, order: str) -> list[FileRecord]:
        """Every file, by age."""
        sql = "SELECT doc FROM files ORDER BY seq"
        found = self.rows(sql if order == "asc" else f"{sql} DESC")
        return [FileRecord(**json.loads(doc)) for (doc,) in found]

    def put_batch(self, record: BatchRecord) -> None:
        """Store a batch as it is now."""
        with self.write() as db:
            row = (record.id, record.seq, int(record.live), json.dumps(asdict(record)))
            db.execute("INSERT OR REPLACE INTO batches VALUES (?, ?, ?, ?)", row)

    def get_batch(self, batch_id: str) -> BatchRecord | None:
        """The record of a batch, or None."""
        found = self.rows("SELECT doc FROM batches WHERE id = ?", (batch_id,))
        return read_batch(found[0][0]) if found else None

    def change_batch(self, batch_id: str, change: Callable[[BatchRecord], BatchRecord]) -> BatchRecord:
        """Read, change and store a batch in one transaction; returns what is stored now."""
        with self.write():
            record = self.get_batch(batch_id)
            if record is None:
                raise KeyError(batch_id)
            changed = change(record)
            if changed is not record:
                self.put_batch(changed)
            return changed

    def batches_before(self, seq: int | None, limit: int) -> list[BatchRecord]:
        """A page of batches, newest first."""
        top = 2**62 if seq is None else seq
        sql = "SELECT doc FROM batches WHERE seq < ? ORDER BY seq DESC LIMIT ?"
        return [read_batch(doc) for (doc,) in self.rows(sql, (top, limit))]

    def live_batches(self) -> list[BatchRecord]:
        """Every batch that has not ended, oldest first."""
        return [read_batch(doc) for (doc,) in self.rows("SELECT doc FROM batches WHERE live = 1 ORDER BY seq")]

    def add_paid(self, batch_id: str, lines: Iterable[tuple[str, str | None]]) -> None:
        """Note answered lines as (custom id, reason why the answer is withheld or None)."""
        with self.write() as db:
            rows = [(batch_id, custom_id, dropped) for custom_id, dropped in lines]
            db.executemany("INSERT OR REPLACE INTO paid VALUES (?, ?, ?)", rows)

    def mark_dropped(self, batch_id: str, custom_id: str, why: str) -> None:
        """Note that a paid answer was lost on purpose; an id that was not paid changes nothing."""
        with self.write() as db:
            db.execute("UPDATE paid SET dropped = ? WHERE batch_id = ? AND custom_id = ?", (why, batch_id, custom_id))


def claim(path: Path) -> IO[bytes]:
    """Hold a directory for this process; the system lets go of it at any kind of death."""
    file = (path / "lock").open("ab")
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        return file  # without fcntl (Windows) nobody is kept out
    except OSError:
        file.close()
        raise SandboxError(f"the state directory {path} is in use by another sandbox; stop it first") from None
    return file


def read_batch(doc: str) -> BatchRecord:
    """A batch from its stored text."""
    raw: JSONObject = json.loads(doc)
    raw["usage"] = Usage(**raw["usage"])
    raw["faults"] = tuple(raw["faults"])
    return BatchRecord(**raw)
