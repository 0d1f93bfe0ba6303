"""Export and prune from the command line."""

from __future__ import annotations

import json

import pytest

from batchor_engine.sandbox import SandboxServer
from tests.cli.conftest import Shell


def test_an_export_holds_the_same_result_lines(shell: Shell) -> None:
    shell.finish()
    told = shell.on("export-artifacts", "r", "--destination-dir", "kept").json
    assert set(told) == {"run_id", "destination_dir", "manifest_path", "results_path", "exported_artifact_paths"}
    assert told["destination_dir"] == str(shell.folder / "kept" / "r")
    lines = (shell.folder / "kept" / "r" / "results.jsonl").read_bytes().split(b"\n")
    assert [json.loads(line) for line in lines if line] == shell.on("results", "r").lines


def test_raw_answers_go_only_after_an_export_and_results_stay(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, models: str
) -> None:
    shell.finish("--structured-output-class", f"{models}:Dish")
    monkeypatch.delenv("OPENAI_API_KEY")
    (shell.folder / f"{models}.py").unlink()
    before = [line["output_json"] for line in shell.on("results", "r").lines]
    refused = shell.on("prune-artifacts", "r", "--include-raw-output-artifacts")
    assert (refused.code, refused.out) == (1, b"")
    assert "`batchor export-artifacts`" in refused.complaint
    assert "--include-raw-output-artifacts" in refused.complaint
    shell.on("export-artifacts", "r", "--destination-dir", "kept")
    pruned = shell.on("prune-artifacts", "r", "--include-raw-output-artifacts").json
    assert set(pruned) == {
        "run_id",
        "removed_artifact_paths",
        "missing_artifact_paths",
        "cleared_item_pointers",
        "cleared_batch_pointers",
    }
    after = shell.on("results", "r").lines
    assert [line["output_json"] for line in after] == before
    assert {line["raw_response"] for line in after} == {None}


@pytest.mark.parametrize("command", [("export-artifacts", "--destination-dir", "kept"), ("prune-artifacts",)])
def test_a_run_that_goes_on_is_neither_exported_nor_pruned(
    shell: Shell, slow_sandbox: SandboxServer, command: tuple[str, ...]
) -> None:
    shell.start()
    refused = shell.on(command[0], "r", *command[1:])
    assert refused.code == 1
    assert refused.complaint.startswith("Run 'r' has not finished: `batchor wait")
    assert not (shell.folder / "kept").exists()


def test_a_deleted_run_is_gone_with_its_files(shell: Shell) -> None:
    shell.finish()
    told = shell.on("delete", "r").json
    assert told["run_id"] == "r"
    assert told["removed_files"] > 0
    gone = shell.on("status", "r")
    assert gone.code == 1
    assert "r" in gone.complaint


def test_a_doctor_finds_a_healthy_store_healthy_and_a_missing_file_not(shell: Shell) -> None:
    shell.finish()
    assert shell("doctor", "--offline", "--db-path", "runs.sqlite3").json["healthy"] is True
    next(shell.folder.rglob("*.parquet")).unlink()
    sick = shell("doctor", "--offline", "--db-path", "runs.sqlite3")
    assert sick.code == 1
    assert sick.json["healthy"] is False
    assert "problem: r: " in sick.err
    assert sick.err.endswith("1 run examined, the provider was not asked: something is wrong.\n")


def test_typed_rows_go_to_parquet(shell: Shell) -> None:
    shell.finish()
    told = shell.on("export-results", "r", "--output", "rows.parquet").json
    assert told["output_path"] == str(shell.folder / "rows.parquet")
    assert (shell.folder / "rows.parquet").read_bytes()[:4] == b"PAR1"


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.JSON", "rows.txt", "-"])
def test_a_name_that_promises_another_format_is_wrong_usage(shell: Shell, name: str) -> None:
    shell.finish()
    before = set(shell.folder.iterdir())
    refused = shell.on("export-results", "r", "--output", name)
    assert (refused.code, refused.out) == (2, b"")
    assert f"{name} " in refused.complaint
    assert "`batchor results`" in refused.complaint
    assert set(shell.folder.iterdir()) == before


@pytest.mark.parametrize("name", ["rows", "rows.pq", "2026.11"])
def test_a_name_that_promises_nothing_else_gets_parquet(shell: Shell, name: str) -> None:
    shell.finish()
    assert shell.on("export-results", "r", "--output", name).code == 0
    assert (shell.folder / name).read_bytes()[:4] == b"PAR1"


def test_a_plan_says_what_start_would_send_and_stores_nothing(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    given = ("--input", "rows.csv", "--id-field", "slug", "--prompt-field", "body", "--model", "gpt-5-mini")
    said = shell("plan", *given, "--db-path", "runs.sqlite3")
    assert said.json["rows"] == 3
    assert said.err.startswith("3 rows in 1 request file, ")
    assert not (shell.folder / "runs.sqlite3").exists()


def test_a_plan_of_a_model_that_is_not_strict_exits_1(shell: Shell, models: str) -> None:
    given = ("--input", "rows.csv", "--id-field", "slug", "--prompt-field", "body", "--model", "gpt-5-mini")
    refused = shell("plan", *given, "--db-path", "runs.sqlite3", "--structured-output-class", f"{models}:Loose")
    assert refused.code == 1
    assert "anything" in refused.err
