"""The command line of this process, in a folder of its own, before a sandbox on a real socket."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from batchor_engine.cli.app import run
from batchor_engine.sandbox import Phases, SandboxServer

ROWS = 'slug,title,body\na,Soup,"Boil, then stir"\nb,Bread,Bake it\nc,Tea,"wait\na while"\n'
MODELS = """
from pydantic import BaseModel


class Dish(BaseModel):
    name: str
    minutes: int | None


class Loose(BaseModel):
    anything: dict[str, int]
"""


@dataclass(frozen=True)
class Said:
    """What a command left behind."""

    code: int
    out: bytes
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.split(b"\n") if line]

    @property
    def json(self) -> dict[str, Any]:
        assert len(self.lines) == 1, self.out
        return self.lines[0]

    @property
    def complaint(self) -> str:
        """The one line that says what went wrong; progress is not a complaint."""
        lines = [line for line in self.err.splitlines() if line.startswith("batchor: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0].removeprefix("batchor: ")


class Shell:
    """A working folder and the command in it."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[bytes]) -> None:
        self.folder, self._capture = folder, capture

    def __call__(self, *words: object) -> Said:
        self._capture.readouterr()
        code = run([str(word) for word in words])
        sys.stdout.flush()
        out, err = self._capture.readouterr()
        return Said(code, out, err.decode())

    def on(self, command: str, run_id: str, *words: object) -> Said:
        """A command for one run of this folder's store."""
        return self(command, "--run-id", run_id, "--db-path", "runs.sqlite3", *words)

    def start(self, *words: object, rows: str = "rows.csv", run_id: str = "r", prompt: str = "body") -> Said:
        given = ("--input", rows, "--id-field", "slug", "--prompt-field", prompt, "--model", "gpt-5-mini")
        return self.on("start", run_id, *given, *words)

    def finish(self, *words: object, **options: str) -> Said:
        """Start a run and wait for its end."""
        started = self.start(*words, **options)
        assert started.code == 0, started.err
        return self.on("wait", started.json["run_id"], "--poll-interval", 0.01, "--timeout", 120)

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def stored(self) -> list[dict[str, Any]]:
        return self("list", "--db-path", "runs.sqlite3").lines


@pytest.fixture(scope="session")
def quick_sandbox() -> Iterator[SandboxServer]:
    """Every batch ends with the first look at it."""
    with SandboxServer(clock="polls", polls=Phases(0, 0, 0, 0)) as server:
        yield server


@pytest.fixture
def paid(quick_sandbox: SandboxServer) -> Callable[[], int]:
    """How many lines the batches of this test cost; those of earlier tests may still be at work on the same server."""
    before = {batch["id"] for batch in quick_sandbox.batches()}
    return lambda: sum(line["batch_id"] not in before for line in quick_sandbox.paid())


@pytest.fixture
def slow_sandbox(monkeypatch: pytest.MonkeyPatch, shell: Shell) -> Iterator[SandboxServer]:
    """No batch moves until the test says so."""
    with SandboxServer(clock="manual") as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        yield server


@pytest.fixture
def shell(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
    quick_sandbox: SandboxServer,
) -> Shell:
    monkeypatch.chdir(tmp_path)
    # Commands make the working folder importable; the next test has another one.
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("OPENAI_BASE_URL", quick_sandbox.base_url)
    shell = Shell(tmp_path, capsysbinary)
    shell.write("rows.csv", ROWS)
    return shell


@pytest.fixture
def models(shell: Shell) -> Iterator[str]:
    """A module in the working folder that holds models; gone again afterwards."""
    shell.write("dish_models.py", MODELS)
    yield "dish_models"
    sys.modules.pop("dish_models", None)
