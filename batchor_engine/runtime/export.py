"""Writing results to files: result lines, whole exports with a manifest, and pruning.

Law: a file is whole or not there; a cursor is handed out after the data is on disk; prune checks before it deletes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from pydantic_core import from_json, to_json

from batchor_engine.core.parsing import strip_fence
from batchor_engine.core.records import RunRecord
from batchor_engine.models import (
    BatchResultItem,
    JSONObject,
    JSONValue,
    TerminalResultsExportResult,
)
from batchor_engine.runtime.host import Host
from batchor_engine.runtime.readback import iter_terminal


def result_line(result: BatchResultItem, *, structured: bool) -> JSONObject:
    """The one JSON shape of a result, in exports and on the command line."""
    line: JSONObject = {
        "item_id": result.item_id,
        "status": result.status.value,
        "attempt_count": result.attempt_count,
        "metadata": result.metadata,
        "output_text": result.output_text,
        "raw_response": result.raw_response,
        "error": None if result.error is None else asdict(result.error),
    }
    if structured:
        line["output_json"] = parsed(result.output_text)
    return line


def parsed(text: str | None) -> JSONValue:
    """The JSON of an answer that is read without its model; None where there is none."""
    with suppress(ValueError):
        return from_json(strip_fence(text)) if text else None
    return None


def export_terminal(
    host: Host,
    run: RunRecord,
    destination: Path,
    *,
    after_sequence: int,
    append: bool,
    limit: int | None,
    structured: bool,
) -> TerminalResultsExportResult:
    """Write results after a cursor as JSONL; without `append` the old file is replaced when the new one is whole."""
    target = destination.expanduser().absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target if append else target.with_name(f".{target.name}.{os.getpid()}.tmp")
    start = target.stat().st_size if append and target.exists() else 0
    pairs = iter_terminal(host, run, None, after_sequence=after_sequence, limit=limit)
    try:
        with aside.open("ab" if append else "wb") as stream:
            count, cursor = _write(stream, pairs, after_sequence, structured)
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        _undo(aside, start, append)
        raise
    if not append:
        aside.replace(target)
    return TerminalResultsExportResult(run.run_id, str(target), count, cursor)


def _write(
    stream: BinaryIO, pairs: Iterable[tuple[int, BatchResultItem]], cursor: int, structured: bool
) -> tuple[int, int]:
    count = 0
    for sequence, result in pairs:
        stream.write(to_json(result_line(result, structured=structured)) + b"\n")
        count, cursor = count + 1, sequence
    return count, cursor


def _undo(path: Path, size: int, append: bool) -> None:
    """A failed export leaves what was there before it."""
    with suppress(OSError):
        if append:
            os.truncate(path, size)
        else:
            path.unlink(missing_ok=True)
