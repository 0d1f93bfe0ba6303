"""What a run came to, in files of the user: whole, true, and again when asked again."""

from __future__ import annotations

import hashlib
import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel

from batchor_engine import (
    ArtifactPolicy,
    BatchItem,
    BatchRunner,
    ChunkPolicy,
    PromptParts,
    RunNotFinishedError,
)
from batchor_engine.core.records import RunRecord
from batchor_engine.errors import ArtifactMissingError, RunBusyError
from batchor_engine.models import ArtifactExportResult
from batchor_engine.results.segments import read_rows
from batchor_engine.runtime import readback
from batchor_engine.runtime.export import encoded, export_artifacts, export_terminal, failures_table, write_parquet
from batchor_engine.runtime.hold import held
from batchor_engine.testing import CrashError, CrashPoints

from ..text_only import TextOnly
from .conftest import World


class Sighting(BaseModel):
    species: str
    count: int | None


def record(runner: BatchRunner, run_id: str) -> RunRecord:
    found = runner.storage.run(run_id)
    assert found is not None
    return found


def export(runner: BatchRunner, run_id: str, destination: Path) -> ArtifactExportResult:
    return export_artifacts(runner.host, record(runner, run_id), destination)


def manifest_of(result: ArtifactExportResult) -> dict[str, Any]:
    return json.loads(Path(result.manifest_path).read_bytes())


def lines_of(path: str | Path) -> list[dict[str, Any]]:
    # Not splitlines(): U+2028 in a text is no end of a line.
    return [json.loads(line) for line in Path(path).read_bytes().split(b"\n")[:-1]]


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def finished(world: World, items: Any = 4, run_id: str = "r", **options: Any) -> BatchRunner:
    runner = world.runner()
    runner.run_and_wait(world.job(items, chunk_policy=ChunkPolicy(max_requests=2), **options), run_id=run_id)
    return runner


def as_they_ended(runner: BatchRunner) -> list[str]:
    """Ids in terminal order; which of two batches ends first is open, because polls ask for them in turn."""
    return [result.item_id for result in runner.get_run("r").read_terminal_results().items]


# --- export_artifacts


def test_an_export_holds_every_file_of_the_run_under_its_key(world: World, tmp_path: Path) -> None:
    runner = finished(world)
    result = export(runner, "r", tmp_path / "out")
    folder = tmp_path / "out" / "r"
    assert (result.run_id, result.destination_dir) == ("r", str(folder))
    assert result.manifest_path == str(folder / "manifest.json")
    assert result.results_path == str(folder / "results.jsonl")
    manifest = manifest_of(result)
    requests, outputs = manifest["request_artifact_paths"], manifest["output_artifact_paths"]
    assert (len(requests), len(outputs), manifest["error_artifact_paths"]) == (2, 2, [])
    assert result.exported_artifact_paths == [*requests, *outputs]
    assert manifest["results_path"] == "results.jsonl"
    files = world.files()
    assert files_below(folder) == {file.key for file in files} | {"manifest.json", "results.jsonl"}
    for file in files:
        assert (folder / file.key).read_bytes() == file.read_bytes()


def test_the_manifest_names_size_and_hash_of_every_exported_file_and_counts_the_rows(
    world: World, tmp_path: Path
) -> None:
    world.fault("line_error", custom_ids=("row-1:*",), status=400, times=1)
    runner = finished(world)
    result = export(runner, "r", tmp_path)
    manifest, folder = manifest_of(result), Path(result.destination_dir)
    assert set(manifest["files"]) == files_below(folder) - {"manifest.json"}
    for key, entry in manifest["files"].items():
        data = (folder / key).read_bytes()
        assert entry == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert manifest["counts"] == {"total_items": 4, "completed_items": 3, "failed_items": 1}
    assert manifest["status"] == "completed_with_failures"
    failed = lines_of(result.results_path)[1]
    assert failed["error"]["error_class"] == "provider_item_error"
    assert failed["error"]["raw_error"] is not None


def test_result_lines_are_those_of_the_run_in_item_order(world: World, tmp_path: Path) -> None:
    runner = finished(world, structured_output=Sighting)
    lines = lines_of(export(runner, "r", tmp_path).results_path)
    results = runner.get_run("r").results()
    assert [line["item_id"] for line in lines] == [result.item_id for result in results]
    assert [line["raw_response"] for line in lines] == [result.raw_response for result in results]
    assert [set(line["output_json"]) for line in lines] == [{"species", "count"}] * 4


def test_half_a_surrogate_pair_stays_an_escape_in_a_result_line() -> None:
    assert json.loads(encoded({"item_id": "a", "metadata": {"half": "\ud83d"}}))["metadata"] == {"half": "\ud83d"}


def test_line_separators_survive_the_export(world: World, tmp_path: Path) -> None:
    items = [BatchItem(f"row-{n}", "a\u2028b\u2029c\u0085d", {"tag": "x\u2028y"}) for n in range(3)]
    runner = finished(world, items, build_prompt=lambda item: PromptParts(item.payload))
    result = export(runner, "r", tmp_path)
    assert [line["metadata"] for line in lines_of(result.results_path)] == [item.metadata for item in items]
    requests = [
        line
        for key in manifest_of(result)["request_artifact_paths"]
        for line in lines_of(Path(result.destination_dir, key))
    ]
    assert [line["custom_id"] for line in requests] == ["row-0:a1", "row-1:a1", "row-2:a1"]
    assert all("a\u2028b" in json.dumps(line, ensure_ascii=False) for line in requests)


def test_a_raw_line_with_half_a_surrogate_pair_is_still_a_raw_response(world: World, tmp_path: Path) -> None:
    runner = finished(world, 1)
    raw = world.file("*_output.jsonl")
    data = raw.read_bytes()
    # The reference to the line stays right: the name of a field gives way to the escape.
    raw.write_bytes(data.replace(b'"object":"response"', b'"other":"x\\ud83dyz"'))
    assert len(raw.read_bytes()) == len(data)
    line = lines_of(export(runner, "r", tmp_path).results_path)[0]
    assert line["raw_response"]["custom_id"] == "row-0:a1"
    assert line["raw_response"]["response"]["body"]["other"] == "x\ufffdyz"


def test_an_export_needs_neither_key_nor_model(world: World, tmp_path: Path) -> None:
    finished(world, structured_output=Sighting).close()
    runner = world.runner(connection=None)
    runner.host.model_of = lambda run: pytest.fail("the model was asked for")  # type: ignore[method-assign]
    assert len(lines_of(export(runner, "r", tmp_path).results_path)) == 4


def test_a_run_without_raw_files_exports_the_rest(world: World, tmp_path: Path) -> None:
    runner = finished(world, artifact_policy=ArtifactPolicy(persist_raw_output_artifacts=False))
    result = export(runner, "r", tmp_path)
    manifest = manifest_of(result)
    assert (manifest["output_artifact_paths"], manifest["error_artifact_paths"]) == ([], [])
    assert result.exported_artifact_paths == manifest["request_artifact_paths"]
    assert {line["raw_response"] for line in lines_of(result.results_path)} == {None}


def test_an_empty_run_exports_no_line(world: World, tmp_path: Path) -> None:
    result = export(finished(world, []), "r", tmp_path)
    assert Path(result.results_path).read_bytes() == b""
    assert manifest_of(result)["counts"]["total_items"] == 0


def test_an_export_alone_rebuilds_the_answers(world: World, tmp_path: Path) -> None:
    runner = finished(world)
    texts = [result.output_text for result in runner.get_run("r").results()]
    result = export(runner, "r", tmp_path / "out")
    files = world.files()
    for file in files:
        file.unlink()
    segments = [Path(result.destination_dir, key) for key in manifest_of(result)["segment_artifact_paths"]]
    rows = sorted((row for path in segments for row in read_rows(path)), key=lambda row: row.item_index)
    assert [row.text for row in rows] == texts
    for file in files:
        file.write_bytes(Path(result.destination_dir, file.key).read_bytes())


def test_time_and_absolute_root_of_an_export_are_recorded_and_told(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = finished(world)
    monkeypatch.chdir(tmp_path)
    export(runner, "r", Path("here"))
    stored = record(runner, "r")
    assert (stored.exported_at, stored.export_root) == (world.clock.now().timestamp(), str(tmp_path / "here" / "r"))
    assert [event.data for event in world.happened("artifacts_exported")] == [
        {"destination_dir": str(tmp_path / "here" / "r")}
    ]


def test_an_export_may_be_repeated(world: World, tmp_path: Path) -> None:
    runner = finished(world)
    first = export(runner, "r", tmp_path)
    Path(first.results_path).write_text("spoiled")
    world.clock.advance(60)
    assert export(runner, "r", tmp_path) == first
    assert len(lines_of(first.results_path)) == 4
    assert record(runner, "r").exported_at == world.clock.now().timestamp()


def test_a_running_run_is_not_exported(world: World, tmp_path: Path) -> None:
    runner = world.runner()
    run = runner.start(world.job(3), run_id="r")
    with pytest.raises(RunNotFinishedError):
        export(runner, "r", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    run.wait()


def test_a_run_that_was_reopened_meanwhile_is_not_exported(world: World, tmp_path: Path) -> None:
    world.fault("line_error", custom_ids=("row-1:*",), status=400, times=1)
    runner = finished(world)
    seen = record(runner, "r")
    run = runner.get_run("r")
    run.retry_failed()
    with pytest.raises(RunNotFinishedError):
        export_artifacts(runner.host, seen, tmp_path / "out")
    run.wait()


def test_a_run_that_another_worker_has_is_busy(world: World, tmp_path: Path) -> None:
    runner = finished(world)
    with held(runner.storage, "run:r") as lease:
        assert lease is not None
        with pytest.raises(RunBusyError):
            export(world.runner(), "r", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("suffix", ["requests_*.jsonl", "*.items", "*_output.jsonl", "*.parquet"])
def test_a_recorded_file_that_is_gone_leaves_no_manifest(world: World, tmp_path: Path, suffix: str) -> None:
    runner = finished(world)
    lost = world.files(suffix)[0]
    data = lost.read_bytes()
    lost.unlink()
    with pytest.raises(FileNotFoundError, match=lost.name) as caught:
        export(runner, "r", tmp_path / "out")
    assert isinstance(caught.value, ArtifactMissingError)
    assert not (tmp_path / "out" / "r" / "manifest.json").exists()
    assert record(runner, "r").exported_at is None
    lost.write_bytes(data)


def test_an_export_that_fails_leaves_the_older_one_true(world: World, tmp_path: Path) -> None:
    runner = finished(world)
    result = export(runner, "r", tmp_path / "out")
    before = manifest_of(result)
    world.files("requests_*.jsonl")[0].unlink()
    with pytest.raises(FileNotFoundError):
        export(runner, "r", tmp_path / "out")
    assert manifest_of(result) == before
    for key, entry in before["files"].items():
        assert hashlib.sha256(Path(result.destination_dir, key).read_bytes()).hexdigest() == entry["sha256"]


@pytest.mark.parametrize("point", ["export.file_copied", "export.results_written"])
@pytest.mark.parametrize("repeated", [False, True])
def test_a_crash_before_the_manifest_leaves_none_that_lies(
    world: World, tmp_path: Path, point: str, repeated: bool
) -> None:
    runner = finished(world)
    if repeated:
        export(runner, "r", tmp_path / "out")
    CrashPoints({point: 1}).install(runner)
    with pytest.raises(CrashError):
        export(runner, "r", tmp_path / "out")
    manifest = tmp_path / "out" / "r" / "manifest.json"
    # Copying alone changes nothing that an older manifest says.
    assert manifest.exists() == (repeated and point == "export.file_copied")
    assert not [name for name in files_below(tmp_path / "out") if name.endswith(".unfinished")]
    assert len(lines_of(export(world.runner(), "r", tmp_path / "out").results_path)) == 4


def test_a_crash_after_the_manifest_is_an_export_that_was_not_recorded(world: World, tmp_path: Path) -> None:
    runner = finished(world)
    CrashPoints({"export.manifest_written": 1}).install(runner)
    with pytest.raises(CrashError):
        export(runner, "r", tmp_path)
    assert record(runner, "r").exported_at is None
    assert world.happened("artifacts_exported") == []


def test_what_a_killed_export_left_goes_with_the_next_one(world: World, tmp_path: Path) -> None:
    runner = finished(world)
    folder = tmp_path / "out" / "r"
    folder.mkdir(parents=True)
    (folder / f".{'0' * 32}.unfinished").write_text("half")
    (folder / "notes.txt").write_text("mine")
    export(runner, "r", tmp_path / "out")
    assert {path.name for path in folder.iterdir()} == {"manifest.json", "results.jsonl", "notes.txt", "r"}


def test_exported_files_are_their_owners_alone(world: World, tmp_path: Path) -> None:
    folder = Path(export(finished(world), "r", tmp_path / "out").destination_dir)
    assert {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in [folder, *folder.rglob("*")] if path.is_dir()} == {0o700}


def test_a_strange_run_id_is_one_folder_name(world: World, tmp_path: Path) -> None:
    runner = finished(world, run_id="a/../b c")
    result = export(runner, "a/../b c", tmp_path / "out")
    assert Path(result.destination_dir).parent == tmp_path / "out"
    assert manifest_of(result)["run_id"] == "a/../b c"


@pytest.mark.files_in_a_folder
@pytest.mark.parametrize("inside", ["r/requests", "r/outputs/deep", "r/results"])
def test_an_export_among_the_runs_own_files_is_refused(world: World, inside: str) -> None:
    runner = finished(world)
    root = Path(runner.get_run("r").artifact_root)
    before = files_below(root)
    with pytest.raises(ValueError, match="another folder"):
        export(runner, "r", root / inside)
    assert files_below(root) == before


@pytest.mark.files_in_a_folder
def test_a_folder_that_leads_back_to_the_originals_is_refused(world: World, tmp_path: Path) -> None:
    runner = finished(world)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "r").symlink_to(runner.get_run("r").artifact_root, target_is_directory=True)
    with pytest.raises(ValueError, match="another folder"):
        export(runner, "r", tmp_path / "out")


@pytest.mark.files_in_a_folder
def test_an_export_beside_the_runs_files_is_no_orphan(world: World) -> None:
    runner = finished(world)
    root = Path(runner.get_run("r").artifact_root)
    result = export(runner, "r", root)
    assert len(lines_of(result.results_path)) == 4
    assert list(runner.host.artifacts(record(runner, "r")).list_keys("r/requests"))


def test_a_store_with_only_the_five_methods_exports_the_same_layout(world: World, tmp_path: Path) -> None:
    runner = world.runner(storage="memory", artifact_store=TextOnly(tmp_path / "root"))
    runner.run_and_wait(world.job(2), run_id="r")
    result = export(runner, "r", tmp_path / "out")
    manifest = manifest_of(result)
    assert set(manifest["files"]) == files_below(Path(result.destination_dir)) - {"manifest.json"}
    assert [line["item_id"] for line in lines_of(result.results_path)] == ["row-0", "row-1"]
    runner.close()


def test_a_run_may_have_more_raw_files_than_may_be_open(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readback, "_OPEN_RAW_FILES", 3)
    run = world.runner().run_and_wait(world.job(15, chunk_policy=ChunkPolicy(max_requests=1)), run_id="r")
    opened, most = len(os.listdir("/proc/self/fd")), 0
    for result in run.iter_results(raw=True):
        assert result.raw_response is not None
        assert result.raw_response["custom_id"] == f"{result.item_id}:a1"
        most = max(most, len(os.listdir("/proc/self/fd")))
    assert most - opened < 10


# A bucket is read in blocks of 8 MiB, beside which the rows of this test would not show.
@pytest.mark.files_in_a_folder
def test_exporting_holds_few_rows_at_a_time(world: World, tmp_path: Path) -> None:
    metadata = {"pad": "x" * 2000}
    items = [BatchItem(f"row-{n}", "hi", metadata) for n in range(6000)]
    runner = world.runner()
    job = world.job(items, build_prompt=lambda item: PromptParts(item.payload))
    runner.run_and_wait(job, run_id="r")
    export(runner, "r", tmp_path / "warm")
    tracemalloc.start()
    result = export(runner, "r", tmp_path / "out")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert Path(result.results_path).stat().st_size > 12_000_000
    assert peak < 12_000_000


# --- incremental export of result lines


def append(runner: BatchRunner, path: Path, after: int = 0, **options: Any) -> tuple[int, int]:
    given: dict[str, Any] = {"append": True, "limit": None, **options}
    done = export_terminal(runner.host, record(runner, "r"), path, after_sequence=after, **given)
    assert done.destination_path == str(path)
    return done.exported_count, done.next_after_sequence


def test_pages_appended_one_by_one_are_the_whole_run(world: World, tmp_path: Path) -> None:
    runner, path, cursor = finished(world, 5), tmp_path / "deep" / "lines.jsonl", 0
    while (page := append(runner, path, cursor, limit=2))[0]:
        cursor = page[1]
    assert [line["item_id"] for line in lines_of(path)] == [f"row-{n}" for n in range(5)]
    assert cursor == 5
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kept", [1, 5, 30])
def test_a_line_torn_by_a_killed_append_is_written_again_whole(world: World, tmp_path: Path, kept: int) -> None:
    runner, path = finished(world), tmp_path / "lines.jsonl"
    _, cursor = append(runner, path, limit=2)
    whole = path.read_bytes()
    append(runner, path, cursor)
    path.write_bytes(path.read_bytes()[: len(whole) + kept])
    append(runner, path, cursor)
    assert [line["item_id"] for line in lines_of(path)] == as_they_ended(runner)


def test_a_torn_line_goes_even_when_nothing_is_appended(world: World, tmp_path: Path) -> None:
    runner, path = finished(world), tmp_path / "lines.jsonl"
    append(runner, path)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 5])
    assert append(runner, path, 4) == (0, 4)
    assert path.read_bytes() == whole


def test_a_last_line_without_its_newline_is_kept(world: World, tmp_path: Path) -> None:
    runner, path = finished(world), tmp_path / "lines.jsonl"
    path.write_bytes(b'{"mine": 1}')
    append(runner, path, limit=1)
    assert [sorted(line)[-1] for line in lines_of(path)] == ["mine", "status"]


def test_a_file_of_something_else_is_not_appended_to(world: World, tmp_path: Path) -> None:
    runner, path = finished(world), tmp_path / "notes.txt"
    path.write_bytes(b"first\nsecond, without an end")
    with pytest.raises(ValueError, match="result line"):
        append(runner, path)
    assert path.read_bytes() == b"first\nsecond, without an end"


def break_after(monkeypatch: pytest.MonkeyPatch, world: World, rows: int) -> None:
    """Reading results fails after some rows, as when a disk goes away."""
    read = readback.result_of
    left = [rows]

    def failing(*args: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise OSError("the disk is gone")
        return read(*args)

    monkeypatch.setattr(readback, "result_of", failing)


@pytest.mark.parametrize("append_to", [True, False])
@pytest.mark.parametrize("existing", [True, False])
def test_a_failed_export_leaves_what_was_there(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, append_to: bool, existing: bool
) -> None:
    runner, folder = finished(world), tmp_path / "lines"
    folder.mkdir()
    path = folder / "out.jsonl"
    if existing:
        append(runner, path, limit=1)
    before = path.read_bytes() if existing else None
    break_after(monkeypatch, world, 2)
    with pytest.raises(OSError, match="disk is gone"):
        append(runner, path, append=append_to)
    assert (path.read_bytes() if path.exists() else None) == before
    assert files_below(folder) == ({"out.jsonl"} if existing else set())


def test_replacing_leaves_only_the_new_lines(world: World, tmp_path: Path) -> None:
    runner, path = finished(world), tmp_path / "lines.jsonl"
    path.write_text("old and torn")
    assert append(runner, path, append=False, limit=2) == (2, 2)
    assert [line["item_id"] for line in lines_of(path)] == as_they_ended(runner)[:2]


@pytest.mark.parametrize("append_to", [True, False])
def test_a_folder_is_no_place_for_lines(world: World, tmp_path: Path, append_to: bool) -> None:
    runner = finished(world)
    (tmp_path / "lines").mkdir()
    with pytest.raises(IsADirectoryError, match="name a file"):
        append(runner, tmp_path / "lines", append=append_to)


# --- links, and what is no file


def writers(runner: BatchRunner) -> dict[str, Callable[[Path], object]]:
    """Every way that writes one file which the user named."""
    run = record(runner, "r")
    return {
        "lines": lambda path: append(runner, path, append=False),
        "more lines": lambda path: append(runner, path),
        "table": lambda path: write_parquet(runner.host, run, None, path),
    }


@pytest.mark.parametrize("way", ["lines", "more lines", "table"])
@pytest.mark.parametrize("old", [b"", None])
def test_a_link_stays_and_its_target_is_written(world: World, tmp_path: Path, way: str, old: bytes | None) -> None:
    write = writers(finished(world))[way]
    real, link = tmp_path / "far" / "away" / "real", tmp_path / "link"
    link.symlink_to("far/away/real")
    if old is not None:
        real.parent.mkdir(parents=True)
        real.write_bytes(old)
    write(link)
    assert link.readlink() == Path("far/away/real")
    assert real.stat().st_size > 0


@pytest.mark.parametrize("way", ["lines", "more lines", "table"])
def test_a_failed_write_through_a_link_leaves_link_and_target(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    write = writers(finished(world))[way]
    link = tmp_path / "link"
    link.symlink_to("real")
    break_after(monkeypatch, world, 2)
    with pytest.raises(OSError, match="disk is gone"):
        write(link)
    assert link.is_symlink()
    assert not link.exists()


@pytest.mark.parametrize("way", ["lines", "more lines", "table"])
@pytest.mark.parametrize("through_a_link", [False, True])
def test_what_is_no_regular_file_is_not_replaced(world: World, tmp_path: Path, way: str, through_a_link: bool) -> None:
    write = writers(finished(world))[way]
    pipe, named = tmp_path / "pipe", tmp_path / "named"
    os.mkfifo(pipe)
    named.symlink_to(pipe)
    target = named if through_a_link else pipe
    with pytest.raises(FileExistsError, match=r"not a regular file but a named pipe.*name a file") as caught:
        write(target)
    assert caught.value.filename == str(target)
    assert pipe.is_fifo()
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".unfinished")]


def test_a_file_that_was_deleted_is_not_written_by_another_name(world: World, tmp_path: Path) -> None:
    write = writers(finished(world))["lines"]
    with (tmp_path / "gone").open("w") as stream:
        (tmp_path / "gone").unlink()
        with pytest.raises(FileExistsError, match="no name any more"):
            write(Path(f"/proc/self/fd/{stream.fileno()}"))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("gone")]


def test_a_bad_cursor_touches_no_file(world: World, tmp_path: Path) -> None:
    runner = finished(world)
    with pytest.raises(ValueError, match="after_sequence"):
        append(runner, tmp_path / "lines.jsonl", -1)
    assert not (tmp_path / "lines.jsonl").exists()


# --- tables


def test_parquet_has_the_models_types_and_every_row(world: World, tmp_path: Path) -> None:
    runner = finished(world, 5, structured_output=Sighting)
    run = record(runner, "r")
    path = write_parquet(runner.host, run, Sighting, tmp_path / "deep" / "rows.parquet")
    assert pq.read_table(path).equals(runner.get_run("r").to_arrow())
    assert path == tmp_path / "deep" / "rows.parquet"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_dataset_has_files_of_equal_length_and_replaces_an_older_one(world: World, tmp_path: Path) -> None:
    runner = finished(world, 5)
    run = record(runner, "r")
    write_parquet(runner.host, run, None, tmp_path / "rows", rows_per_file=1)
    folder = write_parquet(runner.host, run, None, tmp_path / "rows", rows_per_file=2)
    assert [pq.read_metadata(path).num_rows for path in sorted(folder.iterdir())] == [2, 2, 1]
    assert pq.read_table(folder).column("item_id").to_pylist() == [f"row-{n}" for n in range(5)]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_an_empty_run_still_has_a_schema(world: World, tmp_path: Path) -> None:
    runner = finished(world, [], structured_output=Sighting)
    run = record(runner, "r")
    one = write_parquet(runner.host, run, Sighting, tmp_path / "one.parquet")
    many = write_parquet(runner.host, run, Sighting, tmp_path / "many", rows_per_file=10)
    assert pq.read_schema(one).field("count").type == "int64"
    assert [path.name for path in many.iterdir()] == ["part-00000.parquet"]


@pytest.mark.parametrize("rows_per_file", [None, 2])
def test_a_failed_table_leaves_the_older_one(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_per_file: int | None
) -> None:
    runner = finished(world, 5)
    run, place = record(runner, "r"), tmp_path / "tables" / "rows"
    write_parquet(runner.host, run, None, place, rows_per_file=rows_per_file)
    before = {name: (tmp_path / "tables" / name).read_bytes() for name in files_below(tmp_path / "tables")}
    break_after(monkeypatch, world, 3)
    with pytest.raises(OSError, match="disk is gone"):
        write_parquet(runner.host, run, None, place, rows_per_file=rows_per_file)
    assert {name: (tmp_path / "tables" / name).read_bytes() for name in files_below(tmp_path / "tables")} == before


def test_a_table_does_not_replace_what_is_not_its_kind(world: World, tmp_path: Path) -> None:
    runner = finished(world)
    run = record(runner, "r")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="other files"):
        write_parquet(runner.host, run, None, tmp_path / "mine", rows_per_file=2)
    with pytest.raises(IsADirectoryError, match="name a file"):
        write_parquet(runner.host, run, None, tmp_path / "mine")
    with pytest.raises(NotADirectoryError, match="rows_per_file"):
        write_parquet(runner.host, run, None, tmp_path / "file", rows_per_file=2)
    with pytest.raises(ValueError, match="rows_per_file"):
        write_parquet(runner.host, run, None, tmp_path / "new", rows_per_file=0)
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith("runs")} == {"mine", "file"}


def test_failures_are_a_table_of_their_own(world: World) -> None:
    world.fault("line_error", custom_ids=("row-1:*", "row-3:*"), status=400, times=2)
    items = [BatchItem(f"row-{n}", n, {"n": n}) for n in range(5)]
    runner = finished(world, items)
    table = failures_table(runner.host, record(runner, "r"))
    assert table.column("item_id").to_pylist() == ["row-1", "row-3"]
    first = table.to_pylist()[0]
    assert (first["error_class"], first["attempt_count"], first["retryable"]) == ("provider_item_error", 1, False)
    assert json.loads(first["metadata"])["n"] == 1
    assert json.loads(first["raw_error"])
    assert first["message"]


def test_failures_that_were_retried_are_failures_no_more(world: World) -> None:
    world.fault("line_error", custom_ids=("row-1:*",), status=400, times=1)
    runner = finished(world)
    empty = failures_table(runner.host, record(runner, "r")).schema
    run = runner.get_run("r")
    run.retry_failed()
    run.wait()
    table = failures_table(runner.host, record(runner, "r"))
    assert table.num_rows == 0
    assert table.schema == empty
