"""Where each answer stands in the downloaded files of one batch: one pass builds the index, then one seek an answer.

Law: memory is one small entry a line, never a file; every line is counted as an answer, a duplicate, an unknown id or
unreadable; and of two lines of one request the first success wins.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from batchor_engine.config import OpenAIEndpoint
from batchor_engine.core.outcomes import Answer, FileAnomalies, LineRef, Missing, Outcome
from batchor_engine.providers.lines import read_line
from batchor_engine.providers.plain_lines import id_at_front
from batchor_engine.providers.wire import id_of, read_object


# Pydantic reads typing.TypedDict from Python 3.12 on only, hence typing_extensions, which it brings along.
class _WithId(TypedDict):
    custom_id: str


# Checks a whole line's syntax but builds only its id: a third of the cost of reading it.
_ID_ONLY = TypeAdapter(_WithId)
_BUFFER_BYTES = 1 << 18


class FileOutcomes:
    """The outcomes of one batch by custom id, read from disk one at a time."""

    def __init__(
        self,
        *,
        output_path: Path | None,
        error_path: Path | None,
        known_ids: Collection[str] | None = None,
        endpoint: OpenAIEndpoint = OpenAIEndpoint.RESPONSES,
    ) -> None:
        self._endpoint = endpoint
        self._open = ExitStack()
        self._files: dict[str, BinaryIO] = {}
        self._lines: dict[str, LineRef] = {}
        self._unreadable = self._unknown = self._duplicates = 0
        known = known_ids if known_ids is None else frozenset(known_ids)
        with self._open:
            for name, path in (("output", output_path), ("error", error_path)):
                if path is not None:
                    self._files[name] = self._open.enter_context(path.open("rb"))
                    self._index(name, path, known)
            # Nothing failed, so the files stay open for outcome().
            self._open = self._open.pop_all()

    @property
    def anomalies(self) -> FileAnomalies:
        """Lines that answered no row, or one row twice; unknown ids are told only where the known ones were given."""
        return FileAnomalies(self._unreadable, self._unknown, self._duplicates)

    def outcome(self, custom_id: str) -> Outcome:
        """What became of the request `custom_id`; Missing() where no line answers it."""
        ref = self._lines.get(custom_id)
        if ref is None:
            return Missing()
        found = self._read(custom_id, ref)
        if isinstance(found, Missing):
            del self._lines[custom_id]
            self._unreadable += 1
        return found

    def close(self) -> None:
        """Let go of both files."""
        self._open.close()

    def _index(self, name: str, path: Path, known: frozenset[str] | None) -> None:
        offset = 0
        with path.open("rb", buffering=_BUFFER_BYTES) as stream:
            # A binary file ends a line at b"\n" and nowhere else.
            for line in stream:
                custom_id = id_at_front(line)
                if custom_id is not None and (known is None or custom_id in known):
                    self._keep(custom_id, LineRef(name, offset, _length_of(line)))
                elif content := line.strip():
                    self._index_odd(content, LineRef(name, offset, _length_of(line)), known)
                offset += len(line)

    def _index_odd(self, line: bytes, ref: LineRef, known: frozenset[str] | None) -> None:
        """A line whose id does not stand where the provider writes it, or is not one of ours."""
        custom_id = _id_in(line)
        if custom_id is None:
            self._unreadable += 1
        elif known is not None and custom_id not in known:
            self._unknown += 1
        else:
            self._keep(custom_id, ref)

    def _keep(self, custom_id: str, ref: LineRef) -> None:
        held = self._lines.setdefault(custom_id, ref)
        if held is ref:
            return
        before, after = self._read(custom_id, held), self._read(custom_id, ref)
        if isinstance(before, Missing) or isinstance(after, Missing):
            self._unreadable += 1
        else:
            self._duplicates += 1
        if isinstance(before, Missing) or (isinstance(after, Answer) and not isinstance(before, Answer)):
            self._lines[custom_id] = ref

    def _read(self, custom_id: str, ref: LineRef) -> Outcome:
        """The line at `ref`; Missing() where it is not the line of that request after all."""
        line = os.pread(self._files[ref.file].fileno(), ref.length, ref.offset)
        found = read_line(line, self._endpoint, ref)
        return found.outcome if found.custom_id == custom_id else Missing()


def _length_of(line: bytes) -> int:
    """Without what ends the line."""
    # Nearly all lines end in "}\n", and a copy of each only to measure it would cost as much as finding its id.
    return len(line) - 1 if line.endswith(b"}\n") else len(line.rstrip(b"\r\n"))


def _id_in(line: bytes) -> str | None:
    try:
        return _ID_ONLY.validate_json(line)["custom_id"] or None
    except ValidationError:
        record = read_object(line)
        return None if record is None else id_of(record)
