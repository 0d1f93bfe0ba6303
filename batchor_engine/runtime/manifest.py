"""What a run has on disk, and the manifest that says what an export holds.

Law: a manifest stands beside an export only while every file it names is there, whole, with the size and SHA-256 it
says.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, BinaryIO, NamedTuple

from pydantic_core import from_json, to_json

from batchor_engine.artifacts import keys
from batchor_engine.artifacts.urls import is_object_url
from batchor_engine.core.records import Lease, RunRecord
from batchor_engine.errors import RunNotFinishedError
from batchor_engine.models import JSONObject
from batchor_engine.ports.artifacts import ArtifactStore
from batchor_engine.ports.state import StateStore
from batchor_engine.runtime.advance import read_run
from batchor_engine.runtime.hold import owned
from batchor_engine.runtime.host import Host
from batchor_engine.states import ItemStatus

MANIFEST, RESULTS = "manifest.json", "results.jsonl"
_VERSION = 1
_CHUNK = 1 << 20


class FileDigest(NamedTuple):
    """Size and content of a file."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class RunFiles:
    """Keys of the files that a run's rows point to; the n-th sidecar belongs to the n-th request part."""

    requests: tuple[str, ...]
    sidecars: tuple[str, ...]
    outputs: tuple[str, ...]
    errors: tuple[str, ...]
    segments: tuple[str, ...]

    @property
    def raw(self) -> tuple[str, ...]:
        return self.outputs + self.errors

    @property
    def all(self) -> tuple[str, ...]:
        return self.requests + self.sidecars + self.raw + self.segments


def files_of(store: StateStore, run: RunRecord) -> RunFiles:
    """Every file that a row of the run points to; a pruned part is pointed to no more."""
    parts = [part for part in store.parts(run.pk) if part.pruned_at is None]
    batches = store.batches(run_pk=run.pk)
    return RunFiles(
        requests=tuple(part.key for part in parts),
        sidecars=tuple(part.sidecar_key for part in parts),
        outputs=tuple(batch.output_key for batch in batches if batch.output_key),
        errors=tuple(batch.error_key for batch in batches if batch.error_key),
        segments=tuple(segment.key for segment in store.segments(run.pk)),
    )


def run_keys(artifacts: ArtifactStore, run_id: str) -> Iterator[str]:
    """Every file of the run, where the artifact store can list; an export that a user put beside them is not ours."""
    for prefix in (keys.requests_prefix, keys.outputs_prefix, keys.results_prefix):
        yield from artifacts.list_keys(prefix(run_id))


@contextmanager
def at_rest(host: Host, run: RunRecord) -> Generator[tuple[RunRecord, Lease]]:
    """The run as stored now, over, and held so that nobody can reopen or prune it; RunNotFinished- or RunBusyError."""
    _require_end(run)
    with owned(host.store, run.run_id) as lease:
        current = read_run(host, run.run_id)
        _require_end(current)
        yield current, lease


def _require_end(run: RunRecord) -> None:
    if not run.is_finished:
        raise RunNotFinishedError(run.run_id)


def is_saved(artifacts: ArtifactStore, copies: ArtifactStore, key: str, expected: FileDigest) -> bool:
    """Whether a file has a copy that is another file with the same bytes, and both are as the manifest says."""
    try:
        if _is_one_file(artifacts, copies, key):
            return False
        return _digest(artifacts, key) == _digest(copies, key) == expected
    except FileNotFoundError:
        return False


def _is_one_file(artifacts: ArtifactStore, copies: ArtifactStore, key: str) -> bool:
    if is_object_url(artifacts.location) or is_object_url(copies.location):
        return artifacts.location == copies.location
    # Folders can lead to each other by links.
    with artifacts.local_file(key) as original, copies.local_file(key) as copied:
        return os.path.realpath(original) == os.path.realpath(copied)


def copy(artifacts: ArtifactStore, key: str, target: ArtifactStore) -> FileDigest:
    """Copy a file to the same key of an export."""
    with artifacts.open_read(key) as stream, target.open_write(key) as out:
        return _pump(stream, out)


def _digest(artifacts: ArtifactStore, key: str) -> FileDigest:
    with artifacts.open_read(key) as stream:
        return _pump(stream, None)


def _pump(stream: BinaryIO, out: BinaryIO | None) -> FileDigest:
    size, sha = 0, hashlib.sha256()
    while chunk := stream.read(_CHUNK):
        size += len(chunk)
        sha.update(chunk)
        if out is not None:
            out.write(chunk)
    return FileDigest(size, sha.hexdigest())


def write_manifest(
    target: ArtifactStore, run: RunRecord, files: RunFiles, digests: Mapping[str, FileDigest], *, at: float
) -> None:
    """Write the manifest of a whole export; paths are relative to its folder."""
    manifest: dict[str, Any] = {
        "run_id": run.run_id,
        "request_artifact_paths": files.requests,
        "output_artifact_paths": files.outputs,
        "error_artifact_paths": files.errors,
        "results_path": RESULTS,
        "manifest_version": _VERSION,
        "exported_at": datetime.fromtimestamp(at, UTC).isoformat(),
        "status": run.status.value,
        "counts": {
            "total_items": run.total_items,
            "completed_items": run.counts[ItemStatus.COMPLETED],
            "failed_items": run.counts[ItemStatus.FAILED_PERMANENT],
        },
        "sidecar_artifact_paths": files.sidecars,
        "segment_artifact_paths": files.segments,
        "files": {key: found._asdict() for key, found in digests.items()},
    }
    with target.new_file(MANIFEST) as aside:
        aside.write_bytes(to_json(manifest, indent=2) + b"\n")


def read_manifest(export: ArtifactStore, run_id: str) -> dict[str, FileDigest]:
    """The files that an export names; ValueError where no whole export of this run is there."""
    try:
        manifest: JSONObject = from_json(export.read_text(MANIFEST))
        files: Any = manifest["files"]
        found = {str(key): FileDigest(int(entry["bytes"]), str(entry["sha256"])) for key, entry in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        found = None
        manifest = {}
    if found is None or manifest.get("run_id") != run_id:
        raise ValueError(f"{export.location} holds no whole export of run {run_id!r} any more: export the run again.")
    return found


def exported_raw_keys(export: ArtifactStore, run_id: str) -> set[str]:
    """The raw files that the manifest of an export of this run names; none without a readable manifest.

    Another failure to read it is raised: it must not pass for a folder without an export.
    """
    try:
        manifest: Any = from_json(export.read_text(MANIFEST))
        keys = [*manifest["output_artifact_paths"], *manifest["error_artifact_paths"]]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return set()
    return {str(key) for key in keys} if manifest.get("run_id") == run_id else set()
