"""What a user installs: the wheel, without an orchestrator, and a clone's workspace in Dagster."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "batchor_engine", "batchor_dagster")
# Python reads this file at every start: nothing in that environment can import an orchestrator.
NO_DAGSTER = """
import importlib.abc
import sys


class NoDagster(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0].startswith("dagster"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


sys.meta_path.insert(0, NoDagster())
"""
ENGINE_CODE = """
import sys

import batchor_engine
from batchor_engine import BatchItem, BatchJob, BatchRunner, OpenAIConnection, OpenAIProviderConfig
from batchor_engine.sandbox import Phases, SandboxServer

try:
    import dagster
except ModuleNotFoundError:
    pass
else:
    sys.exit("dagster is here")

job = BatchJob([BatchItem("a", "Say a")], lambda item: item.payload, OpenAIProviderConfig(model="gpt-5-mini"))
with SandboxServer(clock="polls", polls=Phases(0, 0, 0, 0)) as server:
    runner = BatchRunner(storage="memory", connection=OpenAIConnection(api_key="sk-test", base_url=server.base_url))
    result = runner.run_and_wait(job).results()[0]
    runner.close()
print(batchor_engine.__file__, result.item_id, result.status.value, bool(result.output_text))
"""

pytestmark = pytest.mark.slow


def checked(*command: str | Path, **options: Any) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that the tree stays clean, with the tools that are here, so that no network is needed."""
    folder = tmp_path_factory.mktemp("tree")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, folder / name)
    checked(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder / "dist", cwd=folder)
    (built,) = (folder / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def bare_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel in it; other libraries are borrowed from here, but for Dagster."""
    home = tmp_path_factory.mktemp("bare") / "venv"
    checked(sys.executable, "-m", "venv", "--without-pip", home)
    python = home / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    checked(*pip, "install", "--quiet", "--no-index", "--no-deps", wheel)
    site = Path(checked(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (site / "sitecustomize.py").write_text(NO_DAGSTER)
    # A path that a .pth file adds comes last, and the .pth files in it (our editable install) are not read.
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def test_the_wheel_holds_both_packages_typed_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        told = Parser().parsestr(archive.read(metadata).decode())
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"batchor_engine", "batchor_dagster"}
    assert {"batchor_engine/py.typed", "batchor_dagster/py.typed"} <= set(names)
    sources = {str(path.relative_to(ROOT)) for top in tops for path in (ROOT / top).rglob("*.py")}
    assert sources - set(names) == set()
    asked = told.get_all("Requires-Dist") or []
    assert [one for one in asked if one.startswith("dagster") and "extra ==" not in one] == []
    assert told["License-Expression"] == "Apache-2.0"


def test_engine_code_runs_from_the_wheel_without_dagster(bare_python: Path, tmp_path: Path) -> None:
    told = checked(bare_python, "-c", ENGINE_CODE, cwd=tmp_path)
    home, *rest = told.split()
    assert home.startswith(str(bare_python.parents[1]))
    assert rest == ["a", "completed", "True"]


def test_the_command_is_installed_and_helps_itself(bare_python: Path, tmp_path: Path) -> None:
    told = checked(bare_python.with_name("batchor"), "--help", cwd=tmp_path)
    for command in ("start", "wait", "results", "sandbox"):
        assert f"  {command} " in told


def test_every_pin_is_plain() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert [pin for pin in pins if pin.count("==") != 1 or set(" @+/\\[") & set(pin)] == []
    names = [pin.split("==")[0].lower().replace("_", "-") for pin in pins]
    assert len(names) == len(set(names))
    assert "batchor-dagster" not in names


@pytest.fixture
def dagster_dev(tmp_path: Path) -> Iterator[int]:
    """`dagster dev -w workspace.yaml` from the clone's root, as somebody types it, on a free port."""
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\nnux: {enabled: false}\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # The example keeps its runs in the clone; a test keeps them elsewhere.
    known = {**os.environ, "DAGSTER_HOME": str(tmp_path), "BATCHOR_EXAMPLE_HOME": str(tmp_path / "example")}
    known.pop("PYTHONPATH", None)
    script = Path(sys.executable).with_name("dagster")
    command = [str(script), "dev", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port)]
    with (tmp_path / "dev.log").open("wb") as log:
        dev = subprocess.Popen(command, cwd=ROOT, env=known, stdout=log, stderr=log, start_new_session=True)
    try:
        yield port
        assert dev.poll() is None, (tmp_path / "dev.log").read_text()
    finally:
        end(dev)


def end(dev: subprocess.Popen[bytes]) -> None:
    """Stop a process and all that it started, gently first."""
    family = psutil.Process(dev.pid).children(recursive=True)
    dev.send_signal(signal.SIGINT)
    _, alive = psutil.wait_procs(family, timeout=20)
    for one in alive:
        one.kill()
    dev.kill()
    dev.wait()


def locations(port: int, until: float) -> list[dict[str, Any]]:
    """The code locations as Dagster's GraphQL tells them, once none is loading any more."""
    entry = "name loadStatus locationOrLoadError { __typename ... on PythonError { message } }"
    query = "{ workspaceOrError { ... on Workspace { locationEntries { " + entry + " } } } }"
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql",
        json.dumps({"query": query}).encode(),
        headers={"Content-Type": "application/json"},
    )
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                entries = json.load(answer)["data"]["workspaceOrError"]["locationEntries"]
        except OSError:
            entries = []
        if entries and all(one["loadStatus"] == "LOADED" for one in entries):
            return entries
        time.sleep(0.2)  # a real server starts in its own time
    raise AssertionError("Dagster did not load its code locations in time")


def test_dagster_dev_on_the_workspace_of_a_clone_is_green(dagster_dev: int) -> None:
    entries = locations(dagster_dev, time.monotonic() + 120)
    assert {one["name"]: one["locationOrLoadError"]["__typename"] for one in entries} == {
        "example_project": "RepositoryLocation"
    }
