"""Writing what a run came to into files of the user: result lines, tables, and whole exports with a manifest.

Law: a file is whole or not there, and its owner's alone; a cursor is handed out after the data is on disk. A few rows
are in memory at a time, whatever the size of the run.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from pydantic_core import from_json, to_json

from batchor_engine.artifacts import keys
from batchor_engine.artifacts.atomic import make_directory, sync_directory, whole_file
from batchor_engine.artifacts.destination import destination_file
from batchor_engine.artifacts.local import LocalArtifactStore
from batchor_engine.artifacts.urls import artifact_place, is_object_url
from batchor_engine.core.parsing import strip_fence
from batchor_engine.core.records import RunRecord
from batchor_engine.errors import ArtifactMissingError
from batchor_engine.models import (
    ArtifactExportResult,
    BatchResultItem,
    EmbeddingItemResult,
    Form,
    JSONObject,
    JSONValue,
    TerminalResultsExportResult,
)
from batchor_engine.ports.artifacts import ArtifactStore
from batchor_engine.results import failures, parquet
from batchor_engine.runtime.garbage import seldom_collected
from batchor_engine.runtime.host import Host, policies_of
from batchor_engine.runtime.manifest import (
    MANIFEST,
    RESULTS,
    FileDigest,
    RunFiles,
    at_rest,
    copy,
    exported_raw_keys,
    files_of,
    write_manifest,
)
from batchor_engine.runtime.readback import iter_failures, iter_results, iter_terminal

_LINE_START = b'{"item_id":'


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
    if isinstance(result, EmbeddingItemResult):
        line["embedding"] = None if result.embedding is None else list(result.embedding)
    if structured:
        line["output_json"] = parsed(result.output_text)
    return line


def parsed(text: str | None) -> JSONValue:
    """The JSON of an answer that is read without its model; None where there is none."""
    with suppress(ValueError):
        return from_json(strip_fence(text)) if text else None
    return None


def encoded(line: JSONValue) -> bytes:
    """A JSON line as bytes up to its newline; half a surrogate pair, which UTF-8 cannot hold, stays an escape."""
    try:
        return to_json(line) + b"\n"
    except ValueError:
        return json.dumps(line, separators=(",", ":")).encode("ascii") + b"\n"


# --- result lines after a cursor


@seldom_collected()
def export_terminal(
    host: Host,
    run: RunRecord,
    destination: Path,
    *,
    after_sequence: int,
    append: bool,
    limit: int | None,
    group: int | None = None,
) -> TerminalResultsExportResult:
    """Write results after a cursor as JSONL; without `append` the old file is replaced when the new one is whole.

    A last line that a killed append left torn is dropped first: its cursor was never handed out. ValueError where the
    file ends in something else. A link is followed; FileExistsError for what is no regular file.
    """
    target = _absolute(destination)
    place = destination_file(target)
    policies = policies_of(run)
    structured, form = policies.structured, policies.plain_form
    pairs = iter_terminal(host, run, form, after_sequence=after_sequence, limit=limit, group=group)
    if append:
        count, cursor = _append(place, pairs, after_sequence, structured)
    else:
        with whole_file(place, root=place.parent) as aside, aside.open("wb") as stream:
            count, cursor = _write(stream, pairs, after_sequence, structured)
    return TerminalResultsExportResult(run.run_id, str(target), count, cursor)


def _write(
    stream: BinaryIO, pairs: Iterable[tuple[int, BatchResultItem]], cursor: int, structured: bool
) -> tuple[int, int]:
    count = 0
    for sequence, result in pairs:
        stream.write(encoded(result_line(result, structured=structured)))
        count, cursor = count + 1, sequence
    return count, cursor


def _append(
    target: Path, pairs: Iterable[tuple[int, BatchResultItem]], after_sequence: int, structured: bool
) -> tuple[int, int]:
    make_directory(target.parent)
    is_new = not target.exists()
    handle = os.open(target, os.O_RDWR | os.O_CREAT, 0o600)
    end: int | None = None
    try:
        with open(handle, "r+b") as stream:
            end, separator = _end_of_lines(stream, target)
            stream.truncate(end)
            stream.seek(end)
            stream.write(separator)
            count, cursor = _write(stream, pairs, after_sequence, structured)
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        _undo(target, end, is_new)
        raise
    if is_new:
        sync_directory(target.parent)
    return count, cursor


def _end_of_lines(stream: BinaryIO, path: Path) -> tuple[int, bytes]:
    """Where appended lines begin, and what must stand before them."""
    size = stream.seek(0, os.SEEK_END)
    tail = _last_line(stream, size)
    if not tail:
        return size, b""
    with suppress(ValueError):
        from_json(tail)
        return size, b"\n"
    # The start of an object is no JSON, so a line of ours that does not parse is torn.
    if tail.startswith(_LINE_START) or _LINE_START.startswith(tail):
        return size - len(tail), b""
    raise ValueError(f"{path} does not end in a result line: name another file, or replace it with append=False.")


def _last_line(stream: BinaryIO, size: int) -> bytes:
    """What stands after the last newline."""
    tail, start = b"", size
    while start > 0 and b"\n" not in tail:
        step = min(start, 1 << 16)
        start = stream.seek(start - step)
        tail = stream.read(step) + tail
    return tail.rpartition(b"\n")[2]


def _undo(path: Path, size: int | None, is_new: bool) -> None:
    """A failed append leaves the whole lines that were there before it."""
    with suppress(OSError):
        if is_new:
            path.unlink()
        elif size is not None:
            os.truncate(path, size)


def _absolute(path: str | Path) -> Path:
    return Path(os.path.abspath(Path(path).expanduser()))


# --- tables


@seldom_collected()
def write_parquet(
    host: Host,
    run: RunRecord,
    form: Form,
    path: str | Path,
    *,
    rows_per_file: int | None = None,
    group: int | None = None,
) -> Path:
    """Write results as typed Parquet: one file, or with `rows_per_file` a folder of files; returns the absolute path.

    An older file or dataset at `path` is replaced once the new one is whole, and a link to it stays. FileExistsError
    for a folder that holds anything else, and for what is no regular file.
    """
    target = _absolute(path)
    results = iter_results(host, run, form, raw=False, group=group)
    if rows_per_file is not None:
        _write_dataset(target, results, form, rows_per_file)
        return target
    place = destination_file(target)
    with whole_file(place, root=place.parent) as aside:
        parquet.write_file(aside, results, form)
    return target


def _write_dataset(target: Path, results: Iterator[BatchResultItem], form: Form, rows_per_file: int) -> None:
    place = Path(os.path.realpath(target))
    _check_replaceable(place)
    aside = LocalArtifactStore(place.with_name(f".{secrets.token_hex(16)}.unfinished"))
    try:
        parquet.write_dataset(aside.new_file, results, form, rows_per_file=rows_per_file)
        _put_in_place(aside.root, place)
    except BaseException:
        shutil.rmtree(aside.root, ignore_errors=True)
        raise


def _check_replaceable(target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "rows_per_file writes a folder, and this is a file", str(target))
    if target.is_dir() and not all(parquet.is_part_name(entry.name) for entry in target.iterdir()):
        raise FileExistsError(errno.EEXIST, "the folder holds other files than a dataset of ours", str(target))


def _put_in_place(new: Path, target: Path) -> None:
    """Folders cannot be swapped in one step: a kill between the two renames leaves no dataset, and both beside it."""
    old = new.with_name(f".{secrets.token_hex(16)}.replaced")
    had_one = target.is_dir()
    if had_one:
        target.rename(old)
    try:
        new.rename(target)
    except BaseException:
        if had_one:
            old.rename(target)
        raise
    sync_directory(target.parent)
    if had_one:
        shutil.rmtree(old, ignore_errors=True)


def failures_table(host: Host, run: RunRecord, *, group: int | None = None) -> Any:
    """A pyarrow.Table of the rows that failed for good, in item order; only they are in memory."""
    return failures.failures_table(iter_failures(host, run, group=group))


# --- whole exports


@seldom_collected()
def export_artifacts(host: Host, run: RunRecord, destination_dir: str | Path) -> ArtifactExportResult:
    """Copy every file of a finished run to `destination_dir`/<run id>, with result lines and a manifest.

    The destination is a folder or an object-store URL.
    Sidecars and result segments are copied too, so that an export suffices to rebuild results, usage and attempts
    without the store. ArtifactMissingError (a FileNotFoundError) where a recorded file is gone; an export that fails
    leaves no manifest, or the older one while all that it names is still true. ValueError where the folder holds an
    export with raw files that were pruned here: a new one would forget them.
    """
    with at_rest(host, run) as (current, lease):
        artifacts, files = host.artifacts(current), files_of(host.store, current)
        target = _export_place(host, artifacts, current, destination_dir)
        _require(artifacts, files.all)
        _keep_last_copies(target, current, files)
        # What a killed export left: this run is held, so nobody else is writing there.
        target.sweep_unfinished("", older_than_sec=0.0)
        digests = {key: _copied(host, artifacts, key, target) for key in files.all}
        digests[RESULTS] = _write_results(host, current, target)
        host.reached("export.results_written")
        write_manifest(target, current, files, digests, at=host.clock)
        host.reached("export.manifest_written")
        host.store.record_export(current.pk, lease, target.location)
    host.emit(current, "artifacts_exported", destination_dir=target.location)
    return ArtifactExportResult(
        run_id=current.run_id,
        destination_dir=target.location,
        manifest_path=f"{target.location}/{MANIFEST}",
        results_path=f"{target.location}/{RESULTS}",
        exported_artifact_paths=[*files.requests, *files.raw],
    )


def _export_place(host: Host, artifacts: ArtifactStore, run: RunRecord, destination: str | Path) -> ArtifactStore:
    """Where the export goes; ValueError where copies would lie on their originals or among what is swept."""
    prefix = keys.run_prefix(run.run_id)
    target = host.artifacts_at(f"{artifact_place(destination)}/{prefix}")
    copies, own = _real(f"{target.location}/{prefix}"), _real(f"{artifacts.location}/{prefix}")
    swept = [_real(f"{own}/{folder}") for folder in ("requests", "outputs", "results")]
    if copies == own or any(f"{copies}/".startswith(f"{folder}/") for folder in swept):
        raise ValueError(f"{destination} is among the run's own files, {own}: export to another folder.")
    return target


def _real(place: str) -> str:
    """A place under the one name by which it can be compared."""
    return place if is_object_url(place) else os.path.realpath(place)


def _require(artifacts: ArtifactStore, wanted: Iterable[str]) -> None:
    for key in wanted:
        if not artifacts.exists(key):
            raise ArtifactMissingError(key, artifacts.location)


def _keep_last_copies(target: ArtifactStore, run: RunRecord, files: RunFiles) -> None:
    # Their lines in the results, too, would lose the raw response.
    if exported_raw_keys(target, run.run_id).difference(files.raw):
        raise ValueError(
            f"{target.location} holds raw answers of run {run.run_id!r} that were pruned from the run itself, perhaps "
            "their only copy, and a new export there would forget them: export to another folder."
        )


def _copied(host: Host, artifacts: ArtifactStore, key: str, target: ArtifactStore) -> FileDigest:
    found = copy(artifacts, key, target)
    host.reached("export.file_copied")
    return found


def _write_results(host: Host, run: RunRecord, target: ArtifactStore) -> FileDigest:
    policies = policies_of(run)
    size, sha = 0, hashlib.sha256()
    with target.new_file(RESULTS) as aside:
        with aside.open("wb") as stream:
            for result in iter_results(host, run, policies.plain_form, raw=True):
                line = encoded(result_line(result, structured=policies.structured))
                stream.write(line)
                sha.update(line)
                size += len(line)
        # Copies are what they were; the results may differ, so an older manifest ends before they are replaced.
        target.delete(MANIFEST)
    return FileDigest(size, sha.hexdigest())
