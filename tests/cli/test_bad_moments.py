"""A run that meets trouble after it was begun: what is said, and that the same run goes on once the cause is gone.

Law: whatever happens in between, each row is answered once and paid once.
"""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from batchor_engine.sandbox import Fault, SandboxServer
from tests.cli.conftest import ROWS, Said, Shell

COMMAND = [sys.executable, "-m", "batchor_engine.cli"]
STORE = ("--run-id", "r", "--db-path", "runs.sqlite3")
MANY = "slug,body\n" + "".join(f"row {at},Say {at} {'x' * 200}\n" for at in range(2_000))
START = ("start", *STORE, "--input", "rows.csv", "--id-field", "slug", "--prompt-field", "body")
START = (*START, "--model", "gpt-5-mini", "--max-requests", "500")


@pytest.fixture(autouse=True)
def no_trouble_left(quick_sandbox: SandboxServer) -> Iterator[None]:
    yield
    quick_sandbox.faults.clear()


def ends_well(shell: Shell, paid: Callable[[], int], rows: int, *words: object) -> None:
    """The same start again and a wait: every row is answered, and none was paid twice."""
    ended = shell.finish(*words)
    assert ended.json["status_counts"] == {"completed": rows}, ended.out
    assert paid() == rows
    assert shell("doctor", "--deep", "--db-path", "runs.sqlite3").json["healthy"] is True


# --- the job is another one


def test_another_config_is_named_with_both_values(shell: Shell, paid: Callable[[], int]) -> None:
    shell.start()
    said = shell.start("--model", "gpt-5-nano", "--max-attempts", 9)
    assert said.code == 1
    assert "provider.model ('gpt-5-mini' stored, 'gpt-5-nano' given)" in said.complaint
    assert "retry_policy.max_attempts (3 stored, 9 given)" in said.complaint
    assert "start a new run_id" in said.complaint
    ends_well(shell, paid, 3)


def test_a_changed_source_is_named_while_rows_are_still_read(shell: Shell) -> None:
    shell.write("rows.jsonl", '{"slug": "a", "body": "x"}\n{"slug": "b"}\n')
    assert shell.start(rows="rows.jsonl").code == 1
    shell.write("rows.jsonl", '{"slug": "a", "body": "x"}\n{"slug": "b", "body": "y"}\n')
    said = shell.start(rows="rows.jsonl")
    assert said.code == 1
    assert f"the content of {shell.folder}/rows.jsonl has changed" in said.complaint


def test_a_source_that_was_read_to_its_end_is_not_looked_at_again_and_that_is_said(shell: Shell) -> None:
    shell.start()
    shell.write("rows.csv", ROWS + "d,Jam,Stir\n")
    again = shell.start()
    assert again.json["total_items"] == 3
    assert "r: its 3 stored rows go on; other rows or prompts need another --run-id." in again.err


def model_file(shell: Shell, fields: str) -> None:
    shell.write("dishes.py", f"from pydantic import BaseModel\n\n\nclass Dish(BaseModel):\n    {fields}\n")
    sys.modules.pop("dishes", None)
    importlib.invalidate_caches()


def test_a_model_whose_fields_changed_is_refused_at_start_and_before_paid_answers_are_read(
    shell: Shell, paid: Callable[[], int]
) -> None:
    answer = ("--structured-output-class", "dishes:Dish")
    model_file(shell, "name: str")
    shell.start(*answer)
    model_file(shell, "name: str\n    minutes: int")
    refused = shell.start(*answer)
    assert refused.code == 1
    assert "schema.fields of the model, by hash (" in refused.complaint
    waited = shell.on("wait", "r", "--poll-interval", 0.01, "--timeout", 60)
    assert waited.code == 1
    assert "asked for answers of dishes:Dish, whose fields have changed since" in waited.complaint
    assert shell.on("status", "r").json["status_counts"] == {"submitted": 3}
    model_file(shell, '"""Explained."""\n    name: str')
    assert shell.on("wait", "r", "--poll-interval", 0.01, "--timeout", 60).json["completed_items"] == 3
    assert paid() == 3
    sys.modules.pop("dishes", None)


def test_a_model_that_cannot_be_imported_any_more_leaves_paid_answers_where_they_are(shell: Shell) -> None:
    model_file(shell, "name: str")
    shell.start("--structured-output-class", "dishes:Dish")
    shell.write("dishes.py", "1 / 0")
    sys.modules.pop("dishes", None)
    for spoil in (lambda: None, (shell.folder / "dishes.py").unlink):
        spoil()
        waited = shell.on("wait", "r", "--poll-interval", 0.01, "--timeout", 60)
        assert waited.code == 1
        assert "Cannot import the model dishes.Dish" in waited.complaint, waited.err
    assert shell.on("status", "r").json["status_counts"] == {"submitted": 3}
    model_file(shell, "name: str")
    assert shell.on("wait", "r", "--poll-interval", 0.01, "--timeout", 60).json["completed_items"] == 3
    sys.modules.pop("dishes", None)


def test_a_model_that_a_script_defined_is_found_by_running_the_script_again(shell: Shell) -> None:
    """The README's first example: another process can look after its run, but not build its answers."""
    shell.write(
        "job.py",
        """
import sys
from pydantic import BaseModel
from batchor_engine import BatchItem, BatchJob, BatchRunner, OpenAIProviderConfig

class Dish(BaseModel):
    name: str

config = OpenAIProviderConfig(model="gpt-5-mini", poll_interval_sec=0.01)
job = BatchJob([BatchItem("a", 1)], build_prompt=str, structured_output=Dish, provider_config=config)
run = BatchRunner(storage=sys.argv[1]).start(job, run_id="r")
if sys.argv[2:]:
    print(len(run.wait().results()))
""",
    )
    script = [sys.executable, str(shell.folder / "job.py"), "sqlite:///runs.sqlite3"]
    subprocess.run(script, check=True, timeout=60)
    waited = shell.on("wait", "r", "--poll-interval", 0.01, "--timeout", 60)
    assert waited.code == 1
    assert "defined in the script that started the run. Run that script again" in waited.complaint
    assert subprocess.run([*script, "--wait"], check=True, timeout=60, stdout=subprocess.PIPE).stdout == b"1\n"


# --- the server says no


def test_a_server_that_is_not_there_is_named_and_the_run_waits_for_it(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, quick_sandbox: SandboxServer, paid: Callable[[], int]
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    started = shell.start()
    assert started.json["status_counts"] == {"pending": 3}
    assert "Connection error to 127.0.0.1:9 ([Errno 111] Connection refused)" in started.err
    waited = shell.on("wait", "r", "--timeout", 0.05)
    assert waited.complaint.startswith("timeout: ")
    monkeypatch.setenv("OPENAI_BASE_URL", quick_sandbox.base_url)
    ends_well(shell, paid, 3)


def test_a_wrong_key_is_named_and_the_right_one_goes_on(
    shell: Shell, quick_sandbox: SandboxServer, paid: Callable[[], int]
) -> None:
    trouble = {"kind": "http_error", "on": "files.create", "status": 401, "message": "Incorrect API key provided"}
    quick_sandbox.faults.add(trouble)
    said = shell.start()
    assert said.code == 1
    assert "HTTP 401" in said.complaint
    assert "Incorrect API key provided" in said.complaint
    assert "OPENAI_API_KEY" in said.complaint
    assert "3 rows are stored in run 'r': `batchor start" in said.complaint
    assert "sk-test" not in said.err
    ends_well(shell, paid, 3)


def test_a_key_that_was_revoked_while_waiting_is_named(
    shell: Shell, quick_sandbox: SandboxServer, paid: Callable[[], int]
) -> None:
    shell.start()
    quick_sandbox.faults.add({"kind": "http_error", "on": "batches.list", "status": 401, "message": "Revoked"})
    waited = shell.on("wait", "r", "--poll-interval", 0.01, "--timeout", 60)
    assert waited.code == 1
    assert "Revoked" in waited.complaint
    assert "The run is kept and goes on with `batchor wait --run-id r --db-path runs.sqlite3`" in waited.complaint
    ends_well(shell, paid, 3)


def test_a_model_the_provider_does_not_have_fails_the_rows_with_its_words(
    shell: Shell, quick_sandbox: SandboxServer
) -> None:
    no_model = {"status": 400, "code": "model_not_found", "message": "The model 'gpt-0' does not exist"}
    quick_sandbox.faults.add({"kind": "http_error", "on": "batches.create", **no_model})
    started = shell.start("--model", "gpt-0")
    assert started.json["status"] == "completed_with_failures"
    assert "3 failed (3 batch_error)" in started.err
    reasons = {line["error"]["message"] for line in shell.on("results", "r").lines}
    assert len(reasons) == 1
    assert "The model 'gpt-0' does not exist" in reasons.pop()


def test_a_row_that_is_too_large_fails_alone_and_the_reason_is_shown(shell: Shell) -> None:
    shell.write("rows.csv", f"slug,body\na,{'x' * 5_000}\nb,y\n")
    waited = shell.finish("--max-file-bytes", 2_000)
    assert waited.json["status_counts"] == {"completed": 1, "failed_permanent": 1}
    assert "1 of 2 rows done, 1 failed (1 request_exceeds_file_limit)" in waited.err
    assert [line["status"] for line in shell.on("results", "r").lines] == ["failed_permanent", "completed"]


# --- places


def test_a_folder_in_the_place_of_the_results_is_named(shell: Shell) -> None:
    shell.finish()
    for words in (("results", "r"), ("export-results", "r")):
        said = shell.on(*words, "--output", ".")
        assert (said.code, said.out) == (1, b"")
        assert f"{shell.folder}: results go into a file, and this is a folder: name a file" in said.complaint
    assert shell.on("results", "r", "--output", "new/folder/x.jsonl").json["result_count"] == 3


def test_a_pipe_in_the_place_of_the_results_stays_and_the_way_out_is_named(shell: Shell) -> None:
    shell.finish()
    os.mkfifo(shell.folder / "pipe")
    for command in ("results", "export-results"):
        said = shell.on(command, "r", "--output", "pipe")
        assert (said.code, said.out) == (1, b"")
        assert f"{shell.folder / 'pipe'}: this is not a regular file but a named pipe" in said.complaint
        assert ("leave out --output for standard output" in said.complaint) == (command == "results")
    assert (shell.folder / "pipe").is_fifo()


def unprivileged() -> None:
    """Take away root's right to write where permissions say no; a child process calls it before it runs."""
    import ctypes

    if os.geteuid() == 0:
        drop, may_override, may_read = 24, 1, 2
        for right in (may_override, may_read):
            assert ctypes.CDLL(None).prctl(drop, right, 0, 0, 0) == 0


def outside(shell: Shell, *words: str, before: Callable[[], None] | None = None) -> Said:
    done = subprocess.run([*COMMAND, *words], cwd=shell.folder, capture_output=True, timeout=120, preexec_fn=before)
    return Said(done.returncode, done.stdout, done.stderr.decode())


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="takes a right away as Linux does")
def test_a_read_only_folder_is_named_reads_go_on_and_so_does_the_run(shell: Shell, paid: Callable[[], int]) -> None:
    shell.start()
    place = shell.folder
    locked = [place, place / "runs.sqlite3", *place.glob("runs_artifacts/**/"), *place.glob("runs_artifacts")]
    modes = [(path, path.stat().st_mode) for path in locked]
    for path, mode in modes:
        path.chmod(mode & ~0o222)
    try:
        refused = outside(shell, "wait", *STORE, "--poll-interval", "0.01", "--timeout", "60", before=unprivileged)
        read = outside(shell, "status", *STORE, before=unprivileged)
    finally:
        for path, mode in modes:
            path.chmod(mode)
    assert refused.code == 1
    assert f"{place}/runs.sqlite3" in refused.complaint
    assert "Permission denied" in refused.complaint
    assert read.json["status_counts"] == {"submitted": 3}
    ends_well(shell, paid, 3)


def names_a_full_place(said: Said, place: Path, words: str = "full|no room") -> bool:
    return said.code == 1 and str(place) in said.complaint and bool(re.search(words, said.complaint))


@pytest.mark.slow
@pytest.mark.parametrize("limit", [50_000, 400_000])
def test_a_limit_on_file_size_is_named_and_the_run_goes_on_without_it(
    shell: Shell, limit: int, paid: Callable[[], int]
) -> None:
    """What a full disk does, for any user: no file may grow beyond the limit."""

    def small_files() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    shell.write("rows.csv", MANY)
    refused = outside(shell, *START, before=small_files)
    # SQLite does not know a limit from a broken disk.
    assert names_a_full_place(refused, shell.folder, "full|no room|disk I/O error"), refused.complaint
    waited = outside(shell, "wait", *STORE, "--poll-interval", "0.01", "--timeout", "60", before=small_files)
    assert waited.code == 1
    ends_well(shell, paid, 2_000, "--max-requests", 500)


@pytest.fixture
def small_disk(shell: Shell) -> Iterator[Callable[[str], None]]:
    """A disk of its own below the working folder, whose size the test may change."""
    place = shell.folder / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mount is not permitted here; test_a_limit_on_file_size_… asserts the same with RLIMIT_FSIZE")
    yield lambda size: subprocess.run(["mount", "-o", f"remount,size={size}", str(place)], check=True) and None
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("size", ["100k", "600k", "1m"])
def test_a_full_disk_is_named_and_the_run_goes_on_when_there_is_room(
    shell: Shell, small_disk: Callable[[str], None], size: str, paid: Callable[[], int]
) -> None:
    small_disk(size)
    shell.write("rows.csv", MANY)
    words = ("--max-requests", 500, "--db-path", "disk/runs.sqlite3")
    refused = shell.start(*words)
    assert names_a_full_place(refused, shell.folder / "disk"), refused.complaint
    waited = shell.on("wait", "r", "--db-path", "disk/runs.sqlite3", "--poll-interval", 0.01, "--timeout", 60)
    assert waited.code == 1
    small_disk("50m")
    assert shell.start(*words).code == 0
    waited = shell.on("wait", "r", "--db-path", "disk/runs.sqlite3", "--poll-interval", 0.01, "--timeout", 60)
    assert waited.json["status_counts"] == {"completed": 2_000}
    assert paid() == 2_000
    assert shell("doctor", "--deep", "--db-path", "disk/runs.sqlite3").json["healthy"] is True


# --- the provider says no


def test_what_the_provider_says_is_shown_once_for_each_kind_of_trouble(
    shell: Shell, quick_sandbox: SandboxServer, paid: Callable[[], int]
) -> None:
    quick_sandbox.faults.add(
        Fault("http_error", on="batches.create", status=429, message="Slow down.", times=3),
        Fault("batch_failed", code="server_error", message="The shop is shut."),
    )
    quickly = ("--base-backoff-sec", 0.01)
    started = shell.start(*quickly)
    waited = shell.on("wait", "r", "--poll-interval", 0.01, "--timeout", 120)
    for said in (started, waited):
        assert said.err.count("r: a submission failed: ") == 1, said.err
    assert waited.err.count("r: a batch failed: The shop is shut.") == 1, waited.err
    ends_well(shell, paid, 3, *quickly)


# --- company


@pytest.mark.slow
def test_two_commands_on_one_run_send_every_row_once(shell: Shell, paid: Callable[[], int]) -> None:
    shell.write("rows.csv", MANY)
    both = [
        subprocess.Popen([*COMMAND, *START], cwd=shell.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    said = [(*process.communicate(timeout=120), process.returncode) for process in both]
    assert sorted({code for _, _, code in said}) in ([0], [0, 1]), said
    assert not any(b"Traceback" in err for _, err, _ in said)
    waits = [
        subprocess.Popen(
            [*COMMAND, "wait", *STORE, "--poll-interval", "0.01"],
            cwd=shell.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    said = [(*process.communicate(timeout=120), process.returncode) for process in waits]
    assert [code for _, _, code in said] == [0, 0], said
    ends_well(shell, paid, 2_000, "--max-requests", 500)
