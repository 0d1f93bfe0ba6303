"""The contract's use cases as written, against the sandbox and against a server that others wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from batchor_engine.sandbox import Phases, SandboxServer
from tests import rings

from .aimock import RingCannotRunError, aimock

pytestmark = pytest.mark.slow
PROGRAM = Path(__file__).with_name("shapes.py")


def run(folder: Path, base_url: str) -> dict[str, Any]:
    """What the program prints, on a server that only the environment names."""
    known = {"HOME": str(folder), "OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": base_url}
    words = [sys.executable, "-W", "error", str(PROGRAM)]
    done = subprocess.run(words, cwd=folder, env={**os.environ, **known}, capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_the_five_shapes_run_as_written_and_run_again_without_paying(tmp_path: Path) -> None:
    with SandboxServer(clock="polls", polls=Phases(0, 0, 0, 0)) as server:
        first = run(tmp_path, server.base_url)
        paid = len(server.paid())
        again = run(tmp_path, server.base_url)
        # Only the shape that keeps nothing on disk asks again.
        assert len(server.paid()) - paid == 1
    assert first["one_item_nothing_on_disk"]
    assert [row[0] for row in first["one_file_durable"]] == ["soup", "bread"]
    assert [row[0] for row in first["several_files_one_run"]] == ["b1", "b2", "b1"]
    assert first["typed_output"] == {"type": "Sighting", "count": "int"}
    assert [row[:2] for row in first["step_of_a_pipeline"]] == [["1", "2031-02-03"], ["2", "2031-02-03"]]
    durable = set(first) - {"one_item_nothing_on_disk"}
    assert {name: again[name] for name in durable} == {name: first[name] for name in durable}
    assert paid == 9


def test_the_five_shapes_run_as_written_on_a_server_of_others(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    try:
        with aimock(tmp_path) as base_url:
            found = run(home, base_url)
            with urlopen(base_url.removesuffix("/v1") + "/__aimock/journal") as answer:
                calls = [(call["method"], call["path"].partition("?")[0]) for call in json.load(answer)]
    except RingCannotRunError as why:
        # Named at the end like other rings, but no error with --all-rings: npm's registry is not on this machine.
        rings.skip("aimock", str(why))
    canned = "Mock batch completion"
    assert found["one_item_nothing_on_disk"] == canned
    assert found["one_file_durable"] == [["soup", canned], ["bread", canned]]
    assert found["several_files_one_run"] == [["b1", canned], ["b2", canned], ["b1", canned]]
    assert found["step_of_a_pipeline"] == [["1", "2031-02-03", canned], ["2", "2031-02-03", canned]]
    # It answers no schema: the row fails after its three attempts, and keeps the text.
    assert found["typed_output"] == {"error": "invalid_json", "text": canned}
    assert calls.count(("POST", "/v1/batches")) == 4 + 3
