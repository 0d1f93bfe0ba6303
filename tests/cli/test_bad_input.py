"""Everything that can be wrong with a command: one line, the right code, nothing half-stored."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from batchor_engine.sandbox import SandboxServer
from tests.cli.conftest import Shell

ROWS = ("--input", "rows.csv", "--id-field", "slug", "--model", "gpt-5-mini", "--db-path", "runs.sqlite3")
FIELD = ("--prompt-field", "body")


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (
            (*ROWS, "--prompt-field", "nope"),
            1,
            "rows.csv has no column 'nope': its columns are 'slug', 'title', 'body'",
        ),
        ((*ROWS, "--prompt-template", "{nope} {body} {gone}"), 1, "has no columns 'nope', 'gone'"),
        ((*ROWS, "--id-field", "key", *FIELD), 1, "has no column 'key'"),
        ((*ROWS, *FIELD, "--input", "missing.csv"), 1, "missing.csv: No such file"),
        (
            (*ROWS, *FIELD, "--structured-output-class", "dish_models:Loose"),
            1,
            "Loose cannot be sent as a strict schema",
        ),
        ((*ROWS, *FIELD, "--structured-output-class", "dish_models:Nope"), 1, "has no Pydantic model 'Nope'"),
        ((*ROWS, *FIELD, "--structured-output-class", "nowhere:Nope"), 1, "Cannot import 'nowhere'"),
        ((*ROWS, *FIELD, "--structured-output-class", "Dish"), 2, "is not module:Class"),
        ((*ROWS, *FIELD, "--prompt-template", "{body}"), 2, "give exactly one of them"),
        (ROWS, 2, "give exactly one of them"),
        ((*ROWS, "--prompt-template", "{body"), 2, "the '{' at character 1 has no partner"),
        ((*ROWS, "--prompt-template", "body"), 2, "names no {column}"),
        ((*ROWS, *FIELD, "--input", "./rows.csv"), 2, "rows.csv is given twice"),
        ((*ROWS, *FIELD, "--input", "rows.txt"), 2, "rows.txt is none of .csv, .jsonl, .parquet"),
        ((*ROWS, *FIELD, "--endpoint", "/v1/images"), 2, "'/v1/images' is none of /v1/responses"),
        ((*ROWS, *FIELD, "--max-attempts", "0"), 2, "max_attempts must be greater than 0"),
        ((*ROWS, *FIELD, "--target-ratio", "2"), 2, "target_ratio"),
        ((*ROWS, *FIELD, "--batch-metadata", "owner"), 2, "'owner' is not NAME=VALUE"),
        ((*ROWS, *FIELD, "--batch-metadata", "run_id=x"), 1, "batch_metadata must not set 'run_id'"),
        ((*ROWS, *FIELD, "--run-id", ""), 2, "run_id must not be empty"),
        ((*ROWS, *FIELD, "--store-url", "sqlite:///x.sqlite3"), 2, "not both"),
        ((*ROWS, *FIELD, "--base-url", "ftp://x"), 2, "base_url must be http(s)"),
        ((*ROWS, *FIELD, "--encoding", "klingon"), 1, "no text encoding 'klingon'"),
        (("--input", "rows.csv"), 2, "Missing option '--id-field'"),
    ],
    ids=lambda value: str(value[-1])[:40] if isinstance(value, tuple) else None,
)
@pytest.mark.usefixtures("models")
def test_a_wrong_start_is_one_line_and_stores_nothing(
    shell: Shell, words: tuple[str, ...], code: int, part: str
) -> None:
    said = shell("start", *words)
    assert (said.code, said.out) == (code, b"")
    assert part in said.complaint
    assert said.err.count("\n") == 1
    assert not list(shell.folder.glob("*.sqlite3*"))
    assert not list(shell.folder.glob("*_artifacts"))


@pytest.mark.parametrize("name", ["none.csv", "none.jsonl"])
def test_an_empty_file_is_refused(shell: Shell, name: str) -> None:
    shell.write(name, "")
    said = shell.start(rows=name)
    assert said.code == 1
    assert said.complaint == f"{name} is empty: there is nothing to run."
    assert shell.stored() == []


def test_a_header_alone_is_a_finished_run_without_rows(shell: Shell) -> None:
    shell.write("head.csv", "slug,body\n")
    said = shell.start(rows="head.csv")
    assert said.json["status"] == "completed"
    assert "the input has no rows" in said.err


def test_a_duplicate_id_leaves_no_run_behind(shell: Shell, quick_sandbox: SandboxServer) -> None:
    before = len(quick_sandbox.batches())
    shell.write("twice.csv", "slug,body\na,x\nb,y\na,z\n")
    said = shell.start(rows="twice.csv")
    assert said.code == 1
    assert "item id 'a' twice" in said.complaint
    assert shell.stored() == []
    assert len(quick_sandbox.batches()) == before


def test_no_key_is_said_before_a_row_is_read(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    said = shell.start()
    assert said.code == 1
    assert "OPENAI_API_KEY" in said.complaint
    assert not list(shell.folder.glob("runs*"))


def test_a_bad_row_in_the_middle_names_it_and_keeps_the_rows_before(shell: Shell) -> None:
    shell.write("bad.jsonl", '{"slug": 1, "body": "x"}\n{"slug": 2}\n')
    said = shell.start(rows="bad.jsonl")
    assert said.code == 1
    assert "row 2" in said.complaint
    assert "1 row is stored in run 'r': correct the input and start it under a new --run-id" in said.complaint
    assert "`batchor cancel --drain --run-id r --db-path runs.sqlite3`" in said.complaint
    assert shell.on("cancel", "r").json["status"] == "completed_with_failures"


@pytest.mark.parametrize(
    ("row", "part"),
    [("[1]", "must be an object"), ('{"slug": 1.5, "body": ""}', "the id is 1.5"), ("nonsense", "is not JSON")],
)
def test_a_row_that_is_no_row_is_named(shell: Shell, row: str, part: str) -> None:
    shell.write("bad.jsonl", '{"slug": "first", "body": "x"}\n' + row + "\n")
    said = shell.start(rows="bad.jsonl")
    assert (said.code, said.out) == (1, b"")
    assert part in said.complaint


def test_a_file_in_another_encoding_says_which_option_helps(shell: Shell) -> None:
    shell.write("latin.csv", b"slug,body\na,caf\xe9\n")
    refused = shell.start(rows="latin.csv")
    assert "--encoding" in refused.complaint
    assert shell.finish("--encoding", "latin-1", rows="latin.csv").json["completed_items"] == 1


def test_another_model_under_the_same_run_id_is_refused(shell: Shell) -> None:
    shell.start()
    said = shell.start("--model", "gpt-5-nano")
    assert said.code == 1
    assert "was started with another config" in said.complaint


def test_an_edited_file_under_the_same_run_id_is_another_source_or_a_finished_run(shell: Shell) -> None:
    shell.write("bad.jsonl", '{"slug": 1, "body": "x"}\n{"slug": 2}\n')
    shell.start(rows="bad.jsonl")
    shell.write("bad.jsonl", '{"slug": 1, "body": "x"}\n{"slug": 2, "body": "y"}\n')
    said = shell.start(rows="bad.jsonl")
    assert said.code == 1
    assert "bad.jsonl has changed" in said.complaint


@pytest.mark.parametrize("command", ["status", "wait", "results", "pause", "resume", "cancel", "collect"])
def test_an_unknown_run_is_one_line_and_makes_no_file(shell: Shell, command: str) -> None:
    said = shell.on(command, "nobody")
    assert (said.code, said.out) == (1, b"")
    assert said.complaint.startswith("No run 'nobody' in ")
    assert not list(shell.folder.glob("runs*"))


def test_an_unwritable_place_for_the_store_is_named(shell: Shell) -> None:
    # A file where a folder should be refuses root too.
    said = shell("start", *ROWS[:-1], "rows.csv/below/runs.sqlite3", *FIELD)
    assert said.code == 1
    assert "rows.csv/below/runs.sqlite3" in said.complaint


def test_an_unwritable_place_for_the_files_is_named_and_no_run_stays(shell: Shell) -> None:
    said = shell.start("--artifacts-url", "rows.csv/files")
    assert said.code == 1
    assert "rows.csv/files" in said.complaint
    assert shell.stored() == []


def test_an_unwritable_place_for_results_leaves_nothing_there(shell: Shell) -> None:
    shell.finish()
    said = shell.on("results", "r", "--output", "rows.csv/answers.jsonl")
    assert said.code == 1
    assert "rows.csv" in said.complaint
    assert not list(Path(shell.folder).glob(".*.unfinished"))


def test_a_taken_port_is_named(shell: Shell) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        said = shell("sandbox", "--port", taken.getsockname()[1])
    assert said.code == 1
    assert f"port {taken_port(said.complaint)} on 127.0.0.1 cannot be used" in said.complaint


def taken_port(text: str) -> str:
    return text.split()[1]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--clock", "sundial"), "clock must be one of real, polls, manual"),
        (("--phases", "1,2"), "is not four numbers"),
        (("--token-limit", "gpt"), "is not NAME=VALUE"),
        (("--token-limit", "gpt=many"), "N is a number of tokens"),
    ],
)
def test_a_wrong_sandbox_is_wrong_usage(shell: Shell, words: tuple[str, ...], part: str) -> None:
    said = shell("sandbox", *words)
    assert said.code == 2
    assert part in said.complaint


def test_a_fault_script_that_is_no_json_is_named(shell: Shell) -> None:
    shell.write("faults.json", "{")
    said = shell("sandbox", "--faults", "faults.json")
    assert said.code == 1
    assert "faults.json cannot be read" in said.complaint


@pytest.mark.parametrize("words", [(), ("frobnicate",), ("status",), ("status", "--run-id")])
def test_a_command_that_does_not_exist_points_to_the_help(shell: Shell, words: tuple[str, ...]) -> None:
    said = shell(*words)
    assert said.code == 2
    assert "--help`" in said.complaint


def test_debug_shows_the_traceback_wherever_it_stands(shell: Shell) -> None:
    for words in (("--debug", "status"), ("status", "--debug")):
        said = shell(*words, "--run-id", "nobody", "--db-path", "runs.sqlite3")
        assert said.code == 1
        assert "Traceback" in said.err
        assert "UnknownRunError" in said.err
