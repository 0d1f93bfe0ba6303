"""`python -m example_project.demo` as a user meets it: a process, its words, its exit code, and what it leaves."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from batchor_engine import BatchRunner
from batchor_engine.testing import check_invariants
from example_project import settings
from example_project.demo.__main__ import main
from example_project.demo.home import Child, Home
from example_project.demo.processes import began_at, choose_port, end_group, is_ours
from tests.servers.s3 import S3Server
from tests.stores import STORES, new_url

COMMAND = [sys.executable, "-m", "example_project.demo"]


def start(home: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "--home", str(home), *options],
        cwd=settings.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def read_until(demo: subprocess.Popen[str], words: str) -> str:
    """The demo's output up to a line with these words; the end of the output otherwise."""
    assert demo.stdout
    said = ""
    for line in demo.stdout:
        said += line
        if words in line:
            break
    return said


def living(home: Path) -> list[str]:
    """Processes that were started for this home, found by their environment."""
    found: list[str] = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(settings.HOME_VARIABLE) == str(home) and process.status() != "zombie":
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "demo"
    if (tmp_path / "demo" / "demo.json").exists():
        left = Home.open(tmp_path / "demo")
        for child in left.note.children:
            if is_ours(child):
                end_group(child.pid)
        left.close()


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_a_killed_demo_goes_on_to_a_good_end_and_leaves_nothing_running(home: Path) -> None:
    first = start(home)
    read_until(first, "rows answered")
    first.kill()
    first.communicate()
    assert living(home)
    second = start(home, "--limit", "300")
    said, _ = second.communicate()
    assert second.returncode == 0, said
    assert "was interrupted after it had submitted: continuing it. Ended its processes" in said
    assert said.count("launched by the sensor") == 3
    assert said.count("check failure_rate: passed") == 3
    with closing(BatchRunner(storage=settings.store_url(home))) as runner:
        assert all(f"  cost: {runner.get_run(info.run_id).cost()}\n" in said for info in runner.find_runs())
    assert said.count("  cost: ") == 3
    assert not living(home)


@pytest.mark.slow
@pytest.mark.timeout(420)
@pytest.mark.skipif("postgres" not in STORES, reason="BATCHOR_TEST_STORES leaves PostgreSQL out")
def test_it_runs_unchanged_on_postgresql_and_a_bucket_with_a_process_for_each_step(
    home: Path, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, files = new_url("postgres", tmp_path), f"{s3.url}/demo"
    monkeypatch.setenv(settings.STORE_VARIABLE, store)
    monkeypatch.setenv(settings.ARTIFACTS_VARIABLE, files)
    monkeypatch.setenv(settings.EXECUTOR_VARIABLE, "multiprocess")
    demo = start(home, "--limit", "300")
    said, _ = demo.communicate()
    assert demo.returncode == 0, said
    assert said.count("launched by the sensor") == 3
    assert (home / "runs.sqlite3").exists() is (home / "artifacts").exists() is False
    runner = BatchRunner(storage=store)
    assert check_invariants(runner) == []
    assert {runner.get_run(info.run_id).artifact_root for info in runner.find_runs()} == {files}
    runner.close()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_ends_its_processes(home: Path, number: signal.Signals) -> None:
    demo = start(home)
    read_until(demo, "Dagster is at")
    demo.send_signal(number)
    said, _ = demo.communicate()
    assert demo.returncode == 130
    assert "Traceback" not in said
    assert not living(home)


@pytest.fixture
def run_main(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def complaint(capfd: pytest.CaptureFixture[str]) -> str:
    """The one line that went to the error output."""
    (line,) = capfd.readouterr().err.splitlines()
    return line


@pytest.mark.usefixtures("run_main")
def test_a_taken_port_is_one_line(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["--home", str(home), "--port", str(port)]) == 1
    assert complaint(capfd).startswith(f"demo: port {port} for dagster is taken")


@pytest.mark.usefixtures("run_main")
def test_an_unwritable_folder_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    assert main(["--home", str(tmp_path / "file" / "demo")]) == 1
    assert "cannot be written" in complaint(capfd)


@pytest.mark.usefixtures("run_main")
def test_a_folder_in_use_is_one_line(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first = Home.open(home)
    assert main(["--home", str(home)]) == 1
    assert "another demo is running" in complaint(capfd)
    first.close()


@pytest.mark.usefixtures("run_main")
@pytest.mark.parametrize("content", [None, "", "id,text\n1,x\n", "ticket_id,body\n", "ticket_id,body\nA,x\nA,y\n"])
def test_bad_tickets_are_one_line_and_start_nothing(
    home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    data = tmp_path / "data"
    shutil.copytree(settings.DEFAULT_DATA, data)
    bad = data / "2026-03-03.csv"
    bad.unlink()
    if content is not None:
        bad.write_text(content)
    monkeypatch.setenv(settings.DATA_VARIABLE, str(data))
    assert main(["--home", str(home)]) == 1
    assert complaint(capfd).startswith(f"demo: {bad} ")
    assert not (home / "dagster").exists()


def test_a_port_is_remembered(home: Path) -> None:
    first = Home.open(home)
    port = choose_port(first, "dagster", None)
    first.close()
    second = Home.open(home)
    assert choose_port(second, "dagster", None) == port
    second.close()


def test_a_process_that_took_an_old_pid_is_left_alone() -> None:
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    try:
        assert is_ours(Child("other", other.pid, began_at(other.pid)))
        assert not is_ours(Child("other", other.pid, "another time"))
    finally:
        other.kill()
        other.wait()


def test_a_group_ends_with_its_descendants() -> None:
    sleep = "import time; time.sleep(60)"
    script = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', '{sleep}']); {sleep}"
    child = subprocess.Popen([sys.executable, "-c", script], start_new_session=True)
    until = time.monotonic() + 10
    while len(psutil.Process(child.pid).children()) == 0 and time.monotonic() < until:
        time.sleep(0.05)
    grandchildren = psutil.Process(child.pid).children()
    end_group(child.pid, reap=child)
    assert child.returncode is not None
    assert not any(one.is_running() and one.status() != "zombie" for one in grandchildren)
