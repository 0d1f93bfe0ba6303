"""Export, prune, sweep, doctor, delete and paging on files in a bucket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchor_engine import BatchRunner, ChunkPolicy
from batchor_engine.artifacts.urls import open_artifacts
from batchor_engine.errors import ArtifactMissingError
from batchor_engine.runtime import readback
from batchor_engine.sandbox import SandboxConfig, SandboxServer
from batchor_engine.testing import CrashError, CrashPoints, check_invariants

from ..servers.s3 import S3Server
from ..servers.s3_proxy import Trouble, s3_proxy
from .conftest import World


@pytest.fixture
def world(tmp_path: Path, sandbox_config: SandboxConfig, store_url: str, s3: S3Server) -> Iterator[World]:
    with SandboxServer(sandbox_config) as server:
        made = World(server, tmp_path, store_url, s3.new_place())
        yield made
        assert check_invariants(made.runner()) == []


def finished(world: World, rows: int = 4, **options: object) -> BatchRunner:
    runner = world.runner()
    runner.run_and_wait(world.job(rows, chunk_policy=ChunkPolicy(max_requests=2), **options), run_id="r")
    return runner


def there(world: World, s3: S3Server, prefix: str = "r") -> list[str]:
    """Keys below the run's place, asked past our own code."""
    place = world.artifacts_url.removeprefix(f"{s3.url}/")
    found = [key.removeprefix(f"{place}/") for key in s3.keys(f"{place}/{prefix}")]
    # What says whose the folder is holds nothing of a run.
    return [key for key in found if "/owners/" not in key]


def test_an_export_to_a_bucket_is_whole_and_lets_raw_files_be_pruned(world: World, s3: S3Server) -> None:
    runner = finished(world)
    raw = [key for key in there(world, s3) if key.endswith("_output.jsonl")]
    with pytest.raises(ValueError, match="never exported"):
        runner.prune_artifacts("r", include_raw_output_artifacts=True)
    archive = s3.new_place()
    done = runner.export_artifacts("r", destination_dir=f"{archive}/")
    assert done.destination_dir == f"{archive}/r"
    manifest = json.loads(open_artifacts(done.destination_dir).read_text("manifest.json"))
    assert set(manifest["output_artifact_paths"]) == set(raw)
    assert len(open_artifacts(done.destination_dir).read_text("results.jsonl").splitlines()) == 4
    # A copy that is not what it was protects nothing.
    copies = open_artifacts(done.destination_dir)
    original = copies.read_text(raw[0])
    copies.write_text(raw[0], original + "x")
    with pytest.raises(ValueError, match="nothing was pruned"):
        runner.prune_artifacts("r", include_raw_output_artifacts=True)
    copies.write_text(raw[0], original)
    pruned = runner.prune_artifacts("r", include_raw_output_artifacts=True)
    assert set(raw) <= set(pruned.removed_artifact_paths)
    assert {key.split("/")[1] for key in there(world, s3)} == {"results"}
    assert [one.output_text is not None for one in runner.get_run("r").results()] == [True] * 4


def test_an_export_goes_to_a_folder_too(world: World, s3: S3Server, tmp_path: Path) -> None:
    done = finished(world).export_artifacts("r", destination_dir=tmp_path / "out")
    copied = {path.relative_to(done.destination_dir).as_posix() for path in Path(done.destination_dir).rglob("*.*")}
    assert copied == {*there(world, s3), "manifest.json", "results.jsonl"}


def test_an_export_among_the_runs_own_files_is_refused(world: World) -> None:
    runner = finished(world)
    with pytest.raises(ValueError, match="among the run's own files"):
        runner.export_artifacts("r", destination_dir=f"{world.artifacts_url}/r/results")
    assert (
        runner.export_artifacts("r", destination_dir=world.artifacts_url).destination_dir == f"{world.artifacts_url}/r"
    )


def test_doctor_and_delete_know_what_is_in_the_bucket(world: World, s3: S3Server) -> None:
    runner = finished(world)
    assert runner.doctor(deep=True).healthy
    files = open_artifacts(world.artifacts_url)
    files.write_text("r/results/stray.parquet", "x")
    segment = next(key for key in there(world, s3) if key.endswith(".parquet") and "stray" not in key)
    with files.local_file(segment) as path:
        content = path.read_bytes()
    files.delete(segment)
    checks = {one.check for one in runner.doctor().findings}
    assert {"orphan_file", "missing_file"} <= checks
    with pytest.raises(ArtifactMissingError, match=world.artifacts_url):
        runner.get_run("r").results()
    with files.open_write(segment) as stream:
        stream.write(content)
    assert runner.doctor(repair=True).healthy
    assert "r/results/stray.parquet" not in there(world, s3)
    runner.delete_run("r")
    assert there(world, s3) == []


def test_what_a_killed_collection_left_is_swept_when_the_run_ends(world: World, s3: S3Server) -> None:
    runner = world.runner()
    CrashPoints({"collect.segment_written": 1}).install(runner)
    with pytest.raises(CrashError):
        runner.run_and_wait(world.job(2), run_id="r")
    world.runner().get_run("r").wait()
    assert sum(key.endswith(".parquet") for key in there(world, s3)) == 1


def test_a_page_reads_ranges_and_the_whole_run_reads_files(
    world: World, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readback, "_SINGLE_READS", 2)
    finished(world, rows=6)
    with s3_proxy(s3.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        run = world.runner().get_run("r")
        page = run.read_terminal_results(limit=1)
        assert page.items[0].raw_response is not None
        assert proxy.seen["GET"] <= 4
        assert [one.raw_response["custom_id"] for one in run.results()] == [f"row-{n}:a1" for n in range(6)]
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)


def test_a_bucket_that_is_away_for_a_while_costs_nothing(
    world: World, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    troubles = [Trouble("503", method, times=2) for method in ("PUT", "GET", "HEAD")]
    with s3_proxy(s3.endpoint, *troubles, Trouble("cut_request"), Trouble("lost_answer")) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        finished(world)
        assert proxy.seen["503"] == 6
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    assert len(world.runner().get_run("r").results()) == 4
    assert world.stats()["paid_lines"] == 4
