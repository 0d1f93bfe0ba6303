"""A run from the command line: rows in, answers out, in any order of commands."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchor_engine import BatchItem, BatchJob, BatchRunner, OpenAIProviderConfig, SQLiteStorage
from batchor_engine.sandbox import SandboxServer
from tests.cli.conftest import Shell
from tests.stores import new_url

SUMMARY = {
    "run_id",
    "status",
    "control_state",
    "total_items",
    "completed_items",
    "failed_items",
    "status_counts",
    "active_batches",
    "backoff_remaining_sec",
    "control_reason",
}


def prompts(root: Path) -> list[str]:
    """What was asked, read from the stored request files."""
    lines = [line for path in sorted(root.glob("*/requests/*.jsonl")) for line in path.read_bytes().split(b"\n")]
    return [json.loads(line)["body"]["input"] for line in lines if line]


def test_start_prints_the_summary_and_returns_before_the_answers(shell: Shell, slow_sandbox: SandboxServer) -> None:
    started = shell.start()
    assert started.code == 0
    assert set(started.json) == SUMMARY
    assert started.json["status"] == "running"
    assert started.json["status_counts"] == {"submitted": 3}
    assert "batchor wait --run-id r --db-path runs.sqlite3" in started.err


def test_wait_and_status_print_the_same_summary(shell: Shell) -> None:
    waited = shell.finish()
    assert waited.json["status"] == "completed"
    assert waited.json["completed_items"] == 3
    assert shell.on("status", "r").json == waited.json


def test_results_come_in_the_order_of_the_rows_though_answers_are_shuffled(shell: Shell) -> None:
    shell.write("many.csv", "slug,body\n" + "".join(f"row {at},Say {at}\n" for at in range(300)))
    shell.finish(rows="many.csv")
    found = shell.on("results", "r").lines
    assert [line["item_id"] for line in found] == [f"row {at}" for at in range(300)]
    assert set(found[0]) == {
        "item_id",
        "status",
        "attempt_count",
        "metadata",
        "output_text",
        "raw_response",
        "error",
    }


def test_a_row_is_stored_once_and_not_as_metadata(shell: Shell) -> None:
    shell.finish("--prompt-field", "body")
    metadata = [line["metadata"] for line in shell.on("results", "r").lines]
    assert [set(one) for one in metadata] == [{"batchor_lineage"}] * 3
    stored = b"".join(path.read_bytes() for path in shell.folder.glob("runs*/**/*") if path.is_file())
    stored += b"".join(path.read_bytes() for path in shell.folder.glob("runs.sqlite3*"))
    assert stored.count(b"Bake it") == 1
    assert b"Bread" not in stored


def test_a_template_fills_columns_and_keeps_doubled_braces(shell: Shell) -> None:
    rows = ("--input", "rows.csv", "--id-field", "slug", "--model", "gpt-5-mini")
    template = "{title}: {body} {{as JSON}}"
    assert shell.on("start", "r", *rows, "--prompt-template", template).code == 0
    assert prompts(shell.folder / "runs_artifacts") == [
        "Soup: Boil, then stir {as JSON}",
        "Bread: Bake it {as JSON}",
        "Tea: wait\na while {as JSON}",
    ]


def test_jsonl_and_parquet_rows_with_numbers_nulls_and_objects_become_text(shell: Shell) -> None:
    rows = [{"slug": 7, "body": {"é": [1]}}, {"slug": 8, "body": None}, {"slug": 9, "body": 1.5}]
    shell.write("rows.jsonl", "\n".join(json.dumps(row) for row in rows))
    shell.start(rows="rows.jsonl", run_id="lines")
    assert prompts(shell.folder / "runs_artifacts") == ['{"é": [1]}', "", "1.5"]


def test_parquet_reads_the_columns_it_needs(shell: Shell) -> None:
    table = pa.table({"slug": [1, 2], "body": ["Say one", "Say two"], "other": [object.__name__] * 2})
    pq.write_table(table, shell.folder / "rows.parquet")
    assert shell.finish(rows="rows.parquet").json["completed_items"] == 2
    lineage = shell.on("results", "r").lines[1]["metadata"]["batchor_lineage"]
    assert lineage["source_primary_key"] == "2"
    assert lineage["partition_id"] == "0"


def test_two_files_with_the_same_ids_are_one_run_of_different_items(shell: Shell) -> None:
    shell.write("more.csv", "slug,body\na,Another a\n")
    shell.finish("--input", "more.csv")
    found = shell.on("results", "r").lines
    keys = [line["metadata"]["batchor_lineage"]["source_primary_key"] for line in found]
    assert keys == ["a", "b", "c", "a"]
    assert len({line["item_id"] for line in found}) == 4


def test_a_structured_run_is_read_without_its_class(shell: Shell, models: str) -> None:
    waited = shell.finish("--structured-output-class", f"{models}:Dish")
    assert waited.json["completed_items"] == 3
    (shell.folder / f"{models}.py").unlink()
    first = shell.on("results", "r").lines[0]
    assert set(first["output_json"]) == {"name", "minutes"}
    assert json.loads(first["output_text"]) == first["output_json"]


def test_reading_needs_neither_key_nor_input_nor_server(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.finish()
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    (shell.folder / "rows.csv").unlink()
    assert shell.on("status", "r").json["completed_items"] == 3
    assert len(shell.on("results", "r").lines) == 3
    assert [run["run_id"] for run in shell.stored()] == ["r"]


def test_results_go_to_a_file_that_is_its_owners(shell: Shell) -> None:
    shell.finish()
    told = shell.on("results", "r", "--output", "answers.jsonl").json
    path = shell.folder / "answers.jsonl"
    assert told == {"run_id": "r", "status": "completed", "result_count": 3, "output_path": str(path)}
    assert path.read_bytes() == shell.on("results", "r").out
    assert path.stat().st_mode & 0o077 == 0


def test_the_same_command_again_sends_nothing(shell: Shell, quick_sandbox: SandboxServer) -> None:
    shell.finish()
    before = len(quick_sandbox.batches())
    again = shell.start()
    assert again.json["status"] == "completed"
    assert len(quick_sandbox.batches()) == before


def test_a_started_run_has_a_generated_id_and_can_be_listed_by_label(shell: Shell) -> None:
    rows = ("--input", "rows.csv", "--id-field", "slug", "--prompt-field", "body", "--model", "gpt-5-mini")
    named = shell("start", *rows, "--db-path", "runs.sqlite3", "--label", "team=kitchen").json["run_id"]
    shell.start(run_id="other")
    assert named.startswith("batchor_")
    found = shell("list", "--db-path", "runs.sqlite3", "--label", "team=kitchen").lines
    assert [(run["run_id"], run["labels"]) for run in found] == [(named, {"team": "kitchen"})]
    assert len(shell("list", "--db-path", "runs.sqlite3", "--limit", 1).lines) == 1


def test_a_dash_for_the_results_is_standard_output(shell: Shell) -> None:
    shell.finish()
    assert shell.on("results", "r", "--output", "-").lines == shell.on("results", "r").lines
    assert not (shell.folder / "-").exists()


def test_a_list_of_a_store_that_is_not_there_says_so_and_makes_none(shell: Shell) -> None:
    said = shell("list", "--db-path", "typo.sqlite3")
    assert (said.code, said.out) == (0, b"")
    assert f"There is no store {shell.folder / 'typo.sqlite3'}: check --db-path" in said.err
    assert not (shell.folder / "typo.sqlite3").exists()
    shell.start()
    assert shell("list", "--db-path", "runs.sqlite3").err == ""


def test_limits_and_retries_of_the_options_are_in_force(shell: Shell) -> None:
    shell.start("--max-requests", 2, "--max-attempts", 1, "--batch-metadata", "owner=kitchen")
    assert shell.on("status", "r").json["active_batches"] == 2


def test_the_key_comes_from_a_dotenv_file_and_the_environment_wins(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "")
    monkeypatch.delenv("OPENAI_API_KEY")
    shell.write(".env", "OPENAI_API_KEY=from-file\nOPENAI_BASE_URL=http://127.0.0.1:9/v1\n")
    assert shell.finish().json["completed_items"] == 3
    stored = b"".join(path.read_bytes() for path in shell.folder.glob("runs*/**/*") if path.is_file())
    assert b"from-file" not in stored


def test_a_store_url_and_an_artifacts_url_say_where_things_lie(shell: Shell) -> None:
    rows = ("--input", "rows.csv", "--id-field", "slug", "--prompt-field", "body", "--model", "gpt-5-mini")
    place = ("--store-url", "sqlite:///by-url.sqlite3", "--artifacts-url", "files")
    assert shell("start", "--run-id", "r", *rows, *place).code == 0
    assert (shell.folder / "by-url.sqlite3").exists()
    assert list((shell.folder / "files" / "r" / "requests").glob("*.jsonl"))


def test_a_run_on_postgresql_is_shown_without_its_password(shell: Shell) -> None:
    url = new_url("postgres", shell.folder, own_server=True).replace("//postgres@", "//postgres:hush@")
    rows = ("--input", "rows.csv", "--id-field", "slug", "--prompt-field", "body", "--model", "gpt-5-mini")
    place = ("--store-url", url, "--artifacts-url", "files")
    said = [shell("start", "--run-id", "r", *rows, *place), shell("pause", "--run-id", "r", *place)]
    said += [shell("wait", "--run-id", "r", *place), shell("resume", "--run-id", "r", *place)]
    said.append(shell("wait", "--run-id", "r", "--poll-interval", 0.01, "--timeout", 60, *place))
    said.append(shell("results", "--run-id", "r", *place))
    assert [one.code for one in said if one is not said[2]] == [0] * 5, [one.err for one in said]
    assert len(said[-1].lines) == 3
    assert "postgresql://postgres@/postgres" in said[2].complaint
    assert not any("hush" in one.err or b"hush" in one.out for one in said)


def test_the_default_store_is_below_the_home_folder(shell: Shell) -> None:
    rows = ("--input", "rows.csv", "--id-field", "slug", "--prompt-field", "body", "--model", "gpt-5-mini")
    assert shell("start", *rows).code == 0
    assert (shell.folder / "home" / ".batchor" / "default.sqlite3").exists()


def test_half_a_surrogate_pair_is_printed_and_written_as_an_escape(shell: Shell) -> None:
    runner = BatchRunner(storage=SQLiteStorage(path=shell.folder / "runs.sqlite3"))
    items = [BatchItem("a", "Boil", {"half": "x\ud83d"}), BatchItem("b", "Bake", {"whole": "\U0001f35e"})]
    config = OpenAIProviderConfig(model="gpt-5-mini", poll_interval_sec=0.01)
    runner.run_and_wait(BatchJob(items, lambda item: item.payload, config), run_id="r")
    runner.close()
    printed = shell.on("results", "r")
    assert (printed.code, printed.err) == (0, "")
    assert [line["metadata"] for line in printed.lines] == [{"half": "x\ud83d"}, {"whole": "\U0001f35e"}]
    assert rb"x\ud83d" in printed.out
    assert shell.on("results", "r", "--output", "answers.jsonl").code == 0
    assert (shell.folder / "answers.jsonl").read_bytes() == printed.out
