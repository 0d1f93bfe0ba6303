"""Pruning: everything is checked first, raw files go only while a copy equals them, results stay."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchor_engine import ArtifactPolicy, BatchRunner, RunNotFinishedError
from batchor_engine.errors import ArtifactMissingError, RunBusyError
from batchor_engine.models import ArtifactPruneResult
from batchor_engine.ports.artifacts import ArtifactStore
from batchor_engine.runtime.hold import held
from batchor_engine.runtime.prune import prune_artifacts
from batchor_engine.testing import CrashError, CrashPoints

from ..text_only import TextOnly
from .conftest import World
from .files import StoredFile, stored_files
from .test_export import export, finished, lines_of, manifest_of, record


def prune(runner: BatchRunner, run_id: str = "r", *, raw: bool = False) -> ArtifactPruneResult:
    return prune_artifacts(runner.host, record(runner, run_id), include_raw_output_artifacts=raw)


def root_of(runner: BatchRunner) -> Path:
    return Path(runner.get_run("r").artifact_root)


def files(runner: BatchRunner, pattern: str = "*") -> list[StoredFile]:
    return stored_files(runner.host.artifacts(record(runner, "r")), pattern)


def keys(runner: BatchRunner, pattern: str = "*") -> list[str]:
    return [file.key for file in files(runner, pattern)]


def folders(runner: BatchRunner) -> set[str]:
    """What is left of the run, by kind."""
    return {key.split("/")[1] for key in keys(runner)}


def everything(runner: BatchRunner) -> tuple[Any, ...]:
    """Files and pointers: what a refused prune must not touch."""
    run = record(runner, "r")
    store = runner.storage
    return keys(runner), store.parts(run.pk), store.batches(run_pk=run.pk), run


# --- what goes and what stays


def test_pruning_removes_requests_and_keeps_raw_files_and_results(world: World) -> None:
    runner = finished(world, 5)
    before = runner.get_run("r").results()
    requests, outputs = keys(runner, "requests_*.jsonl"), keys(runner, "*_output.jsonl")
    result = prune(runner)
    assert sorted(result.removed_artifact_paths) == requests
    assert (result.missing_artifact_paths, result.cleared_item_pointers, result.cleared_batch_pointers) == ([], 5, 0)
    assert folders(runner) == {"outputs", "results"}
    assert keys(runner, "*_output.jsonl") == outputs
    assert runner.get_run("r").results() == before


def test_a_full_prune_leaves_only_the_results(world: World, tmp_path: Path) -> None:
    world.fault("line_error", custom_ids=("row-1:*",), status=400, times=1)
    runner = finished(world, 5)
    run = runner.get_run("r")
    before, summary = run.results(), run.summary()
    export(runner, "r", tmp_path / "out")
    result = prune(runner, raw=True)
    batches = runner.storage.batches(run_pk=record(runner, "r").pk)
    assert (result.cleared_item_pointers, result.cleared_batch_pointers) == (5, len(batches))
    assert folders(runner) == {"results"}
    again = world.runner().get_run("r")
    assert [vars(item) | {"raw_response": None} for item in before] == [vars(item) for item in again.results()]
    assert again.summary() == summary
    assert [item.item_id for item in again.read_terminal_results().items] == [
        item.item_id for item in run.read_terminal_results().items
    ]
    assert again.failure_counts() == {"provider_item_error": 1}
    assert again.to_arrow().num_rows == 5


def test_pruning_tells_what_it_did_after_it_is_recorded(world: World, tmp_path: Path) -> None:
    runner = finished(world)
    export(runner, "r", tmp_path / "out")
    prune(runner, raw=True)
    assert [event.data for event in world.happened("artifacts_pruned")] == [
        {"removed_artifact_count": 4, "include_raw_output_artifacts": True}
    ]


def test_pruning_twice_is_fine(world: World, tmp_path: Path) -> None:
    runner = finished(world)
    export(runner, "r", tmp_path / "out")
    prune(runner, raw=True)
    assert prune(runner, raw=True) == ArtifactPruneResult("r", [], [], 0, 0)


def test_raw_files_may_go_after_the_requests(world: World, tmp_path: Path) -> None:
    runner = finished(world)
    prune(runner)
    result = export(runner, "r", tmp_path / "out")
    assert manifest_of(result)["request_artifact_paths"] == []
    pruned = prune(runner, raw=True)
    assert sorted(pruned.removed_artifact_paths) == sorted(manifest_of(result)["output_artifact_paths"])
    assert (pruned.cleared_item_pointers, pruned.cleared_batch_pointers) == (0, 2)


def test_a_pruned_run_is_still_exported(world: World, tmp_path: Path) -> None:
    runner = finished(world)
    export(runner, "r", tmp_path / "first")
    prune(runner, raw=True)
    result = export(runner, "r", tmp_path / "second")
    assert result.exported_artifact_paths == []
    assert len(lines_of(result.results_path)) == 4


def test_the_export_that_holds_the_only_raw_answers_is_not_replaced(world: World, tmp_path: Path) -> None:
    world.fault("line_error", custom_ids=("row-1:*",), status=400, times=1)
    runner = finished(world)
    export(runner, "r", tmp_path / "out")
    prune(runner, raw=True)
    runs_own = everything(runner)
    kept = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    for _ in range(2):
        with pytest.raises(ValueError, match=r"holds raw answers of run 'r' .*export to another folder"):
            export(runner, "r", tmp_path / "out")
        assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == kept
    assert everything(runner) == runs_own
    for _ in range(2):
        assert len(lines_of(export(runner, "r", tmp_path / "other").results_path)) == 4


def test_an_export_is_repeated_after_a_prune_that_kept_the_raw_answers(world: World, tmp_path: Path) -> None:
    runner = finished(world)
    first = export(runner, "r", tmp_path / "out")
    prune(runner)
    again = export(runner, "r", tmp_path / "out")
    assert manifest_of(again)["output_artifact_paths"] == manifest_of(first)["output_artifact_paths"]
    assert all(line["raw_response"] for line in lines_of(again.results_path))


def test_files_that_are_already_gone_are_reported(world: World) -> None:
    runner = finished(world)
    lost = keys(runner, "requests_*.jsonl")[0]
    assert runner.host.artifacts(record(runner, "r")).remove(lost)
    result = prune(runner)
    assert result.missing_artifact_paths == [lost]
    assert (len(result.removed_artifact_paths), result.cleared_item_pointers) == (1, 4)
    assert prune(runner).missing_artifact_paths == []


def test_a_lost_folder_is_pruned_with_everything_missing(world: World) -> None:
    runner = finished(world)
    requests, outputs = keys(runner, "requests_*.jsonl"), keys(runner, "*_output.jsonl")
    for file in [*files(runner, "r/requests/*"), *files(runner, "r/outputs/*")]:
        file.unlink()
    result = prune(runner, raw=True)
    assert sorted(result.missing_artifact_paths) == [*outputs, *requests]
    assert (result.removed_artifact_paths, result.cleared_batch_pointers) == ([], 2)


@pytest.mark.files_in_a_folder
def test_files_that_nothing_points_to_go_too(world: World) -> None:
    runner = finished(world)
    folder = root_of(runner) / "r" / "requests"
    (folder / f"requests_{'0' * 32}.jsonl").write_text("orphan")
    (folder / f".{'0' * 32}.unfinished").write_text("half")
    prune(runner)
    assert not folder.exists()


def test_requests_that_were_pruned_cannot_be_sent_again(world: World) -> None:
    world.fault("line_error", custom_ids=("row-1:*",), status=400, times=1)
    runner = finished(world)
    prune(runner)
    before = everything(runner)
    with pytest.raises(ArtifactMissingError, match=r"pruned.*start a new run_id"):
        runner.get_run("r").retry_failed()
    assert everything(runner) == before


def test_a_store_with_only_the_five_methods_is_pruned(world: World, tmp_path: Path) -> None:
    runner = world.runner(storage="memory", artifact_store=TextOnly(tmp_path / "root"))
    runner.run_and_wait(world.job(2), run_id="r")
    export(runner, "r", tmp_path / "out")
    result = prune(runner, raw=True)
    assert (len(result.removed_artifact_paths), result.cleared_item_pointers) == (2, 2)
    assert {path.name for path in (tmp_path / "root" / "r").iterdir()} == {"results"}
    runner.close()


# --- what is refused, and then changes nothing


def test_a_running_run_is_not_pruned(world: World) -> None:
    runner = world.runner()
    run = runner.start(world.job(3), run_id="r")
    with pytest.raises(RunNotFinishedError):
        prune(runner)
    assert len(run.wait().results()) == 3


def test_a_run_that_another_worker_has_is_busy(world: World) -> None:
    runner = finished(world)
    before = everything(runner)
    with held(runner.storage, "run:r") as lease:
        assert lease is not None
        with pytest.raises(RunBusyError):
            prune(world.runner())
    assert everything(runner) == before


def test_raw_files_that_were_never_exported_stay_and_so_do_requests(world: World) -> None:
    runner = finished(world)
    before = everything(runner)
    with pytest.raises(ValueError, match="never exported"):
        prune(runner, raw=True)
    assert everything(runner) == before
    assert world.happened("artifacts_pruned") == []


def test_without_raw_files_the_flag_is_harmless(world: World) -> None:
    runner = finished(world, artifact_policy=ArtifactPolicy(persist_raw_output_artifacts=False))
    result = prune(runner, raw=True)
    assert (len(result.removed_artifact_paths), result.cleared_batch_pointers) == (2, 0)
    assert folders(runner) == {"results"}


def _delete_copy(folder: Path, copy: Path) -> None:
    copy.unlink()


def _change_copy(folder: Path, copy: Path) -> None:
    data = copy.read_bytes()
    copy.write_bytes(data[:-2] + b"!\n")


def _cut_copy(folder: Path, copy: Path) -> None:
    copy.write_bytes(copy.read_bytes()[:-1])


def _delete_manifest(folder: Path, copy: Path) -> None:
    (folder / "manifest.json").unlink()


def _spoil_manifest(folder: Path, copy: Path) -> None:
    (folder / "manifest.json").write_text("{")


def _change_copy_and_manifest(folder: Path, copy: Path) -> None:
    import hashlib

    data = copy.read_bytes().replace(b"e", b"f")
    copy.write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    entry = manifest["files"][copy.relative_to(folder).as_posix()]
    entry["sha256"] = hashlib.sha256(data).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def _move_export(folder: Path, copy: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


def _of_another_run(folder: Path, copy: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_bytes())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "run_id": "other"}))


@pytest.mark.parametrize(
    "harm",
    [
        _delete_copy,
        _change_copy,
        _cut_copy,
        _delete_manifest,
        _spoil_manifest,
        _change_copy_and_manifest,
        _move_export,
        _of_another_run,
    ],
)
def test_raw_files_stay_when_their_copy_is_not_what_it_was(
    world: World, tmp_path: Path, harm: Callable[[Path, Path], None]
) -> None:
    runner = finished(world)
    export(runner, "r", tmp_path / "out")
    folder = tmp_path / "out" / "r"
    harm(folder, sorted(folder.rglob("*_output.jsonl"))[-1])
    before = everything(runner)
    with pytest.raises(ValueError, match=r"[Ee]xport the run again|export the run again"):
        prune(runner, raw=True)
    assert everything(runner) == before
    export(runner, "r", tmp_path / "out")
    assert len(prune(runner, raw=True).removed_artifact_paths) == 4


def test_answers_that_came_after_the_export_are_not_pruned(world: World, tmp_path: Path) -> None:
    world.fault("line_error", custom_ids=("row-1:*",), status=400, times=1)
    runner = finished(world)
    export(runner, "r", tmp_path / "out")
    run = runner.get_run("r")
    run.retry_failed()
    run.wait()
    before = everything(runner)
    with pytest.raises(ValueError, match="Export the run again"):
        prune(runner, raw=True)
    assert everything(runner) == before


@pytest.mark.files_in_a_folder
def test_a_copy_that_is_the_original_is_no_copy(world: World, tmp_path: Path) -> None:
    runner = finished(world)
    export(runner, "r", tmp_path / "out")
    copies = tmp_path / "out" / "r"
    root = root_of(runner)
    for name in ("manifest.json", "results.jsonl"):
        shutil.copy(copies / name, root / name)
    shutil.rmtree(copies)
    copies.symlink_to(root, target_is_directory=True)
    before = everything(runner)
    with pytest.raises(ValueError, match="Export the run again"):
        prune(runner, raw=True)
    assert everything(runner) == before


@pytest.mark.files_in_a_folder
def test_a_symlink_out_of_the_root_is_found_before_anything_is_deleted(world: World, tmp_path: Path) -> None:
    runner = finished(world)
    root, outside = root_of(runner), tmp_path / "outside"
    victim = root / runner.storage.parts(record(runner, "r").pk)[-1].key
    outside.mkdir()
    (outside / "precious").write_text("mine")
    victim.rename(outside / "original")
    victim.symlink_to(outside / "precious")
    before = everything(runner)
    with pytest.raises(ValueError, match="symlink"):
        prune(runner)
    assert everything(runner) == before
    assert (outside / "precious").read_text() == "mine"
    victim.unlink()
    (outside / "original").rename(victim)


# --- killed on the way


@pytest.mark.parametrize("point", ["prune.checked", "prune.file_removed", "prune.files_removed", "prune.recorded"])
def test_a_prune_that_was_killed_is_finished_by_the_next_one(world: World, tmp_path: Path, point: str) -> None:
    runner = finished(world, 5)
    texts = [result.output_text for result in runner.get_run("r").results()]
    export(runner, "r", tmp_path / "out")
    CrashPoints({point: 1}).install(runner)
    with pytest.raises(CrashError):
        prune(runner, raw=True)
    assert world.happened("artifacts_pruned") == []
    other = world.runner()
    assert [result.output_text for result in other.get_run("r").results()] == texts
    result = prune(other, raw=True)
    done = point == "prune.recorded"
    assert (result.cleared_item_pointers, result.cleared_batch_pointers) == ((0, 0) if done else (5, 3))
    reported = len(result.removed_artifact_paths) + len(result.missing_artifact_paths)
    assert reported == (0 if done else 6)
    assert folders(other) == {"results"}
    assert prune(other, raw=True) == ArtifactPruneResult("r", [], [], 0, 0)


def test_requests_half_pruned_are_not_sent_again(world: World) -> None:
    world.fault("line_error", custom_ids=("row-1:*",), status=400, times=1)
    runner = finished(world)
    CrashPoints({"prune.file_removed": 1}).install(runner)
    with pytest.raises(CrashError):
        prune(runner)
    with pytest.raises(ArtifactMissingError):
        world.runner().get_run("r").retry_failed()
    assert runner.get_run("r").is_finished


def test_a_file_that_cannot_be_deleted_keeps_its_pointers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = finished(world)
    artifacts: ArtifactStore = runner.host.artifacts(record(runner, "r"))

    def refuse(key: str) -> bool:
        raise PermissionError(13, "not yours", key)

    with monkeypatch.context() as patched:
        patched.setattr(artifacts, "remove", refuse)
        with pytest.raises(PermissionError):
            prune(runner)
    assert all(part.pruned_at is None for part in runner.storage.parts(record(runner, "r").pk))
    assert len(prune(runner).removed_artifact_paths) == 2
