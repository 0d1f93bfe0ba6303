"""Removing what a finished run no longer needs: its request files, and on demand the provider's raw files.

Law: everything is checked before anything is deleted. A raw file goes only while an exported copy equals it byte for
byte. Files go before their pointers: a crash in between leaves pointers to missing files, which the next prune clears.
"""

from __future__ import annotations

from batchor_engine.artifacts import keys
from batchor_engine.core.records import Lease, RunRecord
from batchor_engine.models import ArtifactPruneResult
from batchor_engine.ports.artifacts import ArtifactStore
from batchor_engine.runtime.host import Host
from batchor_engine.runtime.manifest import RunFiles, at_rest, files_of, is_saved, read_manifest
from batchor_engine.runtime.signature import sharers
from batchor_engine.runtime.sweep import sweep


def prune_artifacts(host: Host, run: RunRecord, *, include_raw_output_artifacts: bool = False) -> ArtifactPruneResult:
    """Remove request files with their sidecars, and raw files where asked; results stay readable.

    RunNotFinishedError before the end, RunBusyError while another worker has the run, ValueError where raw files have
    no equal exported copy; then nothing has changed. The paths reported are those of requests and raw files.
    """
    with at_rest(host, run) as (current, lease):
        files, artifacts = files_of(host.store, current), host.artifacts(current)
        doomed = files.requests + (files.raw if include_raw_output_artifacts else ())
        _check(host, artifacts, current, files, include_raw_output_artifacts)
        result = _remove(host, current, lease, artifacts, files, doomed, include_raw_output_artifacts)
        _tidy(host, current, artifacts)
    host.emit(
        current,
        "artifacts_pruned",
        removed_artifact_count=len(result.removed_artifact_paths),
        include_raw_output_artifacts=include_raw_output_artifacts,
    )
    return result


def _check(host: Host, artifacts: ArtifactStore, run: RunRecord, files: RunFiles, with_raw: bool) -> None:
    """Every key leads to a file below the root or to nothing, and raw files that are there are saved elsewhere."""
    for key in files.requests + files.sidecars:
        artifacts.exists(key)
    there = [key for key in files.raw if artifacts.exists(key)] if with_raw else []
    if there:
        _check_exported(host, artifacts, run, there)


def _check_exported(host: Host, artifacts: ArtifactStore, run: RunRecord, raw: list[str]) -> None:
    if run.export_root is None:
        raise ValueError(
            f"Run {run.run_id!r} was never exported, so its raw files have no copy: export it first "
            "(export_artifacts(), `batchor export-artifacts`), or prune without include_raw_output_artifacts "
            "(--include-raw-output-artifacts)."
        )
    copies = host.artifacts_at(run.export_root)
    saved = read_manifest(copies, run.run_id)
    for key in raw:
        if key not in saved or not is_saved(artifacts, copies, key, saved[key]):
            raise ValueError(
                f"{key} is not in the export of run {run.run_id!r} at {run.export_root} as it is in the run: nothing "
                "was pruned. Export the run again."
            )


def _remove(
    host: Host,
    run: RunRecord,
    lease: Lease,
    artifacts: ArtifactStore,
    files: RunFiles,
    doomed: tuple[str, ...],
    with_raw: bool,
) -> ArtifactPruneResult:
    host.reached("prune.checked")
    removed: list[str] = []
    missing: list[str] = []
    for key in doomed:
        (removed if artifacts.remove(key) else missing).append(key)
        host.reached("prune.file_removed")
    for key in files.sidecars:
        artifacts.remove(key)
    host.reached("prune.files_removed")
    items, batches = host.store.record_prune(run.pk, lease, raw=with_raw)
    host.reached("prune.recorded")
    return ArtifactPruneResult(run.run_id, removed, missing, items, batches)


def _tidy(host: Host, run: RunRecord, artifacts: ArtifactStore) -> None:
    """Remove what no row points to. The run is over and held, so nobody is writing there."""
    if sharers(host, run):
        return
    sweep(host, run)
    for prefix in (keys.requests_prefix(run.run_id), keys.outputs_prefix(run.run_id)):
        artifacts.sweep_unfinished(prefix, older_than_sec=0.0)
