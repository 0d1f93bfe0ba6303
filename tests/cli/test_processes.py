"""The command as a process: signals, pipes, terminals."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from batchor_engine.sandbox import SandboxServer
from tests.cli.conftest import Shell

pytestmark = pytest.mark.slow
COMMAND = [sys.executable, "-m", "batchor_engine.cli"]
STORE = ("--run-id", "r", "--db-path", "runs.sqlite3")
START = ("start", *STORE, "--id-field", "slug", "--prompt-field", "body", "--model", "gpt-5-mini")


def spawn(folder: Path, *words: str, stderr: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*COMMAND, *words], cwd=folder, stdout=subprocess.PIPE, stderr=stderr)


def test_ctrl_c_while_waiting_keeps_the_run_and_names_the_command(shell: Shell, slow_sandbox: SandboxServer) -> None:
    shell.start()
    with spawn(shell.folder, "wait", *STORE) as waiting:
        assert waiting.stderr is not None
        # The first line is written right before the first look at the provider.
        assert b"1 batch at the provider" in waiting.stderr.readline()
        waiting.send_signal(signal.SIGINT)
        _, err = waiting.communicate(timeout=60)
    assert waiting.returncode == 130
    assert b"`batchor wait --run-id r --db-path runs.sqlite3`" in err
    assert b"Traceback" not in err
    slow_sandbox.finish()
    assert shell.on("wait", "r", "--timeout", 20).json["completed_items"] == 3


def test_ctrl_c_before_a_row_is_read_is_quiet_about_it(shell: Shell) -> None:
    # A named pipe as input: the command waits for a header that does not come.
    os.mkfifo(shell.folder / "slow.csv")
    with spawn(shell.folder, *START, "--input", "slow.csv") as starting, (shell.folder / "slow.csv").open("wb"):
        starting.send_signal(signal.SIGINT)
        _, err = starting.communicate(timeout=60)
    assert (starting.returncode, err) == (130, b"batchor: interrupted\n")


def test_ctrl_c_while_reading_rows_names_the_start_that_goes_on(shell: Shell, quick_sandbox: SandboxServer) -> None:
    shell.write("many.csv", "slug,body\n" + "".join(f"row {at},Say {at}\n" for at in range(2_000)))
    words = (*START, "--input", "many.csv", "--max-requests", "100")
    before = len(quick_sandbox.paid())
    # The third of twenty uploads does not end, so that the signal comes while there is much to do.
    quick_sandbox.faults.add({"kind": "delay", "on": "files.create", "nth": 3, "seconds": 3600})
    with spawn(shell.folder, *words) as starting:
        assert starting.stderr is not None
        # The first line comes with the first request file, not with the end or ten seconds later.
        assert starting.stderr.readline().startswith(b"r: 0 of ")
        starting.send_signal(signal.SIGINT)
        _, err = starting.communicate(timeout=60)
    quick_sandbox.faults.clear()
    told = err.decode()
    assert starting.returncode == 130, told
    assert "rows are stored in run 'r'" in told.splitlines()[-1]
    assert f"`batchor {' '.join(words)}` goes on." in told
    assert shell.finish("--max-requests", "100", rows="many.csv").json["completed_items"] == 2_000
    assert len(quick_sandbox.paid()) - before == 2_000


def test_a_killed_start_goes_on_with_the_same_command(shell: Shell, quick_sandbox: SandboxServer) -> None:
    shell.write("many.csv", "slug,body\n" + "".join(f"row {at},Say {at}\n" for at in range(4000)))
    before = len(quick_sandbox.paid())
    with spawn(shell.folder, *START, "--input", "many.csv", "--max-requests", "500") as starting:
        assert starting.stderr is not None
        starting.stderr.readline()
        starting.kill()
        starting.communicate(timeout=60)
    shell.finish("--max-requests", "500", rows="many.csv")
    assert shell.on("status", "r").json["completed_items"] == 4000
    assert len(quick_sandbox.paid()) - before == 4000


def test_a_closed_pipe_is_no_failure(shell: Shell) -> None:
    shell.write("many.csv", "slug,body\n" + "".join(f"row {at},Say {at}\n" for at in range(2000)))
    shell.finish(rows="many.csv")
    with spawn(shell.folder, "results", *STORE) as reading:
        assert reading.stdout is not None
        assert reading.stderr is not None
        assert json.loads(reading.stdout.readline())["item_id"] == "row 0"
        reading.stdout.close()
        assert reading.stderr.read() == b""
        assert reading.wait(timeout=60) == 0


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_an_output_that_was_closed_before_gets_nothing(shell: Shell, closed: str) -> None:
    shell.finish()
    for words, code in (("status", *STORE), 0), (("status", *STORE[:1], "nobody", *STORE[2:]), 1):
        line = ["sh", "-c", f'exec "$@" {closed}', "sh", *COMMAND, *words]
        done = subprocess.run(line, cwd=shell.folder, capture_output=True, timeout=60)
        assert done.returncode == code
        assert b"Error" not in done.stderr
        assert bool(done.stdout) == (closed == "2>&-" and code == 0)
    assert shell("doctor", "--offline", "--db-path", "runs.sqlite3").json["healthy"] is True


def test_a_full_disk_behind_stdout_is_one_line(shell: Shell) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    shell.finish()
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, "status", *STORE], cwd=shell.folder, stdout=full, stderr=subprocess.PIPE, timeout=60
        )
    assert done.returncode == 1
    assert b"No space left on device" in done.stderr
    assert b"Traceback" not in done.stderr


def test_answers_are_utf_8_whatever_the_terminal_is(shell: Shell) -> None:
    shell.write("rows.csv", "slug,body\nnæme,Say\n")
    shell.finish()
    plain = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    done = subprocess.run([*COMMAND, "results", *STORE], cwd=shell.folder, env=plain, capture_output=True, timeout=60)
    assert json.loads(done.stdout)["item_id"] == "næme"


def test_on_a_terminal_progress_moves_and_stdout_stays_json(shell: Shell) -> None:
    shell.start()
    ours, theirs = pty.openpty()
    with spawn(shell.folder, "wait", *STORE, "--poll-interval", "0.01", stderr=theirs) as waiting:
        os.close(theirs)
        shown = read_to_the_end(ours)
        out, _ = waiting.communicate(timeout=60)
    assert json.loads(out or shown)["status"] == "completed"
    assert b"\x1b[" in shown
    assert b"3 of 3 rows done" in shown


def read_to_the_end(terminal: int) -> bytes:
    """Everything that was shown; a terminal that nobody writes to any more raises."""
    shown = b""
    with contextlib.suppress(OSError):
        while block := os.read(terminal, 4096):
            shown += block
    os.close(terminal)
    return shown


def test_the_sandbox_command_serves_until_it_is_told_to_stop(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.write("answers.py", "def answer(request):\n    return 'soup of the day'\n")
    words = ("sandbox", "--responder", "answers:answer", "--clock", "polls", "--phases", "0,0,0,0")
    with spawn(shell.folder, *words, "--state-dir", "sandbox", "--port-file", "port") as serving:
        assert serving.stdout is not None
        monkeypatch.setenv("OPENAI_BASE_URL", serving.stdout.readline().split()[-1].decode())
        shell.finish()
        serving.send_signal(signal.SIGINT)
        _, err = serving.communicate(timeout=60)
    assert (serving.returncode, err) == (0, b"")
    assert {line["output_text"] for line in shell.on("results", "r").lines} == {"soup of the day"}
    assert (shell.folder / "port").read_text().strip().isdigit()
