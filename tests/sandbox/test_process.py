from __future__ import annotations

import ast
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from openai import OpenAI

from batchor_engine import sandbox
from batchor_engine.sandbox import Fault, SandboxError, SandboxServer

ROOT = Path(sandbox.__file__).parents[2]
pytestmark = pytest.mark.slow
Start = Callable[..., tuple[subprocess.Popen[str], str]]


@pytest.fixture
def start() -> Iterator[Start]:
    begun: list[subprocess.Popen[str]] = []

    def go(*options: str, cwd: Path = ROOT) -> tuple[subprocess.Popen[str], str]:
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "batchor_engine.sandbox", *options]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd, env=env)
        begun.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline()

    yield go
    for process in begun:
        process.terminate()
        try:
            process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def client_of(line: str) -> OpenAI:
    return OpenAI(api_key="k", base_url=line.rsplit(maxsplit=1)[-1], max_retries=0, timeout=60)


def lines(count: int) -> bytes:
    made = bytearray()
    for at in range(count):
        body = {"model": "m", "input": f"row {at}"}
        made += json.dumps({"custom_id": f"r{at}", "method": "POST", "url": "/v1/responses", "body": body}).encode()
        made += b"\n"
    return bytes(made)


def create(client: OpenAI, data: bytes, **more: Any) -> Any:
    file_id = client.files.create(file=("in.jsonl", data), purpose="batch").id
    return client.batches.create(input_file_id=file_id, endpoint="/v1/responses", completion_window="24h", **more)


def advance(client: OpenAI, **body: Any) -> None:
    httpx2.post(
        f"{str(client.base_url).removesuffix('/v1/')}/sandbox/advance", json=body, timeout=120
    ).raise_for_status()


def test_20000_answers_of_4_kb_stay_under_150_mb(start: Start, tmp_path: Path) -> None:
    process, line = start("--clock", "manual", "--answer-chars", "4096", "--state-dir", str(tmp_path))
    peak = psutil.Process(process.pid)
    with client_of(line) as client:
        batch = create(client, lines(20_000))
        advance(client, to="end")
        batch = client.batches.retrieve(batch.id)
        assert batch.request_counts is not None
        assert batch.request_counts.completed == 20_000
        size = 0
        with client.files.with_streaming_response.content(str(batch.output_file_id)) as answer:
            for block in answer.iter_bytes(1 << 16):
                size += len(block)
    assert size > 20_000 * 4096
    status = Path(f"/proc/{process.pid}/status")
    if status.exists():
        high = next(one for one in status.read_text().splitlines() if one.startswith("VmHWM"))
        assert int(high.split()[1]) < 150_000
    assert peak.memory_info().rss < 150_000_000


def test_everything_survives_a_sigkill(start: Start, tmp_path: Path) -> None:
    options = ("--clock", "manual", "--state-dir", str(tmp_path / "state"), "--port-file", str(tmp_path / "port"))
    process, line = start(*options)
    with client_of(line) as client:
        done = create(client, lines(3), metadata={"run": "1"})
        advance(client, to="end")
        live = create(client, lines(5), metadata={"run": "2"})
        advance(client, batch_id=live.id)
        before = client.batches.retrieve(done.id)
        output = client.files.content(str(before.output_file_id)).content
        root = line.split()[-1].removesuffix("/v1")
        httpx2.post(f"{root}/sandbox/faults", json={"kind": "http_error", "on": "files.list", "nth": 2})
        client.files.list()
        stats = httpx2.get(f"{root}/sandbox/stats").json()
    process.send_signal(signal.SIGKILL)
    process.wait()
    port = (tmp_path / "port").read_text().strip()
    process, line = start(*options, "--port", port)
    assert line.strip().endswith(f":{port}/v1")
    with client_of(line) as client:
        assert httpx2.get(f"{root}/sandbox/stats").json() == stats
        assert client.batches.retrieve(done.id) == before
        assert client.files.content(str(before.output_file_id)).content == output
        assert client.batches.retrieve(live.id).status == "in_progress"
        advance(client, to="end")
        ended = client.batches.retrieve(live.id)
        assert ended.status == "completed"
        assert client.files.content(str(ended.output_file_id)).content.count(b"\n") == 5
        assert client.batches.with_raw_response.list().status_code == 200
        assert httpx2.get(f"{root}/v1/files", headers={"Authorization": "Bearer k"}).status_code == 500


def test_a_kill_in_the_middle_of_answering_loses_and_doubles_no_line(start: Start, tmp_path: Path) -> None:
    (tmp_path / "slowly.py").write_text(
        "import time\n\ndef answer(request):\n    time.sleep(0.001)\n    return request.prompt\n"
    )
    options = ("--state-dir", str(tmp_path / "state"), "--responder", "slowly:answer", "--phases", "0,0,0,0")
    process, line = start(*options, cwd=tmp_path)
    with client_of(line) as client:
        batch = create(client, lines(3000))
        root = line.split()[-1].removesuffix("/v1")
        deadline = time.monotonic() + 60
        while httpx2.get(f"{root}/sandbox/stats").json()["paid_lines"] < 400 and time.monotonic() < deadline:
            time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, line = start(*options, cwd=tmp_path)
    with client_of(line) as client:
        deadline = time.monotonic() + 60
        while (found := client.batches.retrieve(batch.id)).status != "completed" and time.monotonic() < deadline:
            time.sleep(0.05)
        raw = client.files.content(str(found.output_file_id)).content
    assert sorted(json.loads(one)["custom_id"] for one in raw.splitlines()) == sorted(f"r{at}" for at in range(3000))


def test_a_signal_ends_the_process_cleanly(start: Start) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        process, line = start()
        assert line.startswith("batchor sandbox listening on http://127.0.0.1:")
        process.send_signal(number)
        assert process.wait(60) == 0
        assert process.communicate()[1] == ""


def test_a_taken_port_is_one_clear_line(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SandboxError, match=f"port {port} on 127.0.0.1 cannot be used .* choose another one or 0"):
            SandboxServer(port=port).start()
        process, line = start("--port", str(port))
        assert process.wait(60) == 1
        error = process.communicate()[1]
    assert (line, error.count("\n"), error.startswith(f"batchor sandbox: port {port}")) == ("", 1, True)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--host", "0.0.0.0"), "loopback only"),
        (("--responder", "no.such:thing"), "cannot be imported"),
        (("--responder", "json"), "module:attribute"),
        (("--responder", "json:__name__"), "not callable"),
        (("--faults", "/no/such/file"), "cannot be read"),
        (("--state-dir", "/proc/nope"), "cannot be used"),
    ],
)
def test_a_wrong_option_is_one_clear_line(start: Start, option: tuple[str, ...], words: str) -> None:
    process, _ = start(*option)
    assert process.wait(60) == 1
    error = process.communicate()[1]
    assert words in error
    assert error.count("\n") == 1


def test_a_fault_script_is_read_from_a_file(start: Start, tmp_path: Path) -> None:
    script = tmp_path / "faults.json"
    script.write_text(json.dumps([Fault("http_error", on="batches.list", status=429).to_json()]))
    _, line = start("--faults", str(script))
    with client_of(line) as client, pytest.raises(Exception, match="429"):
        client.batches.list()


def test_a_private_state_directory_is_removed_at_stop() -> None:
    server = SandboxServer().start()
    path = server.desk.state.path
    assert path.exists()
    server.stop()
    server.stop()
    assert not path.exists()
    with pytest.raises(SandboxError, match="not running"):
        server.stats()


def test_a_state_directory_serves_one_sandbox_at_a_time(tmp_path: Path) -> None:
    with (
        SandboxServer(state_dir=tmp_path),
        pytest.raises(SandboxError, match="in use by another sandbox"),
    ):
        SandboxServer(state_dir=tmp_path).start()
    with SandboxServer(state_dir=tmp_path) as server:
        assert server.batches() == []


def test_a_start_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="unknown fault kind"):
        SandboxServer(state_dir=tmp_path, faults=[{"kind": "nonsense"}]).start()
    with SandboxServer(state_dir=tmp_path) as server:
        assert server.port > 0


def test_a_failure_of_the_sandbox_itself_fails_the_batch_aloud(capfd: pytest.CaptureFixture[str]) -> None:
    with SandboxServer(clock="manual") as server, OpenAI(api_key="k", base_url=server.base_url) as client:
        batch = create(client, lines(2))
        server.desk.state.input_path(batch.id).unlink()
        server.finish(batch.id)
        found = client.batches.retrieve(batch.id)
    assert found.status == "failed"
    assert found.errors is not None
    assert found.errors.data is not None
    assert found.errors.data[0].code == "sandbox_error"
    assert "FileNotFoundError" in capfd.readouterr().err


def test_a_responder_is_found_by_name_in_the_current_directory(start: Start, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "class Box:\n    @staticmethod\n    def answer(request):\n        return 'mine'\n"
    )
    _, line = start("--responder", "mine:Box.answer", "--clock", "manual", cwd=tmp_path)
    with client_of(line) as client:
        batch = create(client, lines(1))
        advance(client, to="end")
        found = client.batches.retrieve(batch.id)
        assert '"text":"mine"' in client.files.content(str(found.output_file_id)).text


def test_the_sandbox_imports_nothing_else_of_the_engine() -> None:
    for path in Path(sandbox.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.level <= 1, path
                assert not (node.module or "").startswith("batchor_engine"), path
            elif isinstance(node, ast.Import):
                assert all(not one.name.startswith("batchor_engine") for one in node.names), path


def test_importing_the_sandbox_loads_no_server() -> None:
    code = (
        "import sys, batchor_engine.sandbox; print([m for m in ('starlette', 'uvicorn', 'openai') if m in sys.modules])"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert found.stdout.strip() == "[]"
