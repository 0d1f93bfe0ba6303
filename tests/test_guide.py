"""docs/guide.md runs as a notebook would run it; docs/cli.md is what the commands say of themselves."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from batchor_engine import BatchItem, BatchJob, BatchRunner, OpenAIConnection, OpenAIProviderConfig
from batchor_engine.sandbox import Phases, SandboxServer
from tests.docs_cli import PAGE, page

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "guide.md").read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)

# Cells of a notebook: one after the other, in one namespace, while an event loop is running.
NOTEBOOK = """
import asyncio, json, sys

cells = json.loads(sys.stdin.read())

async def kernel():
    for cell in cells:
        exec(compile(cell, "<cell>", "exec"), globals())

asyncio.run(kernel())
"""
LAST = """
import json as _json
_shown = answers.iloc[0]
print("LAST " + _json.dumps({
    "types": {name: str(kind) for name, kind in answers.dtypes.items()},
    "day": type(_shown["day"]).__name__,
    "place": sorted(_shown["place"]),
    "tags": type(_shown["tags"]).__name__,
    "ids": list(answers["item_id"]),
    "status": list(answers["status"]),
    "arrow": {field.name: str(field.type) for field in run.to_arrow().schema},
    "repr": repr(run),
    "html": run._repr_html_(),
}))
"""


@pytest.mark.slow
def test_the_guide_runs_in_a_notebook_and_again_without_paying(tmp_path: Path) -> None:
    (tmp_path / "notebook.py").write_text(NOTEBOOK)
    with SandboxServer(clock="polls", polls=Phases(0, 0, 0, 0)) as server:
        known = {"HOME": str(tmp_path), "OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": server.base_url}
        first, again = (
            subprocess.run(
                [sys.executable, "-W", "error", "notebook.py"],
                input=json.dumps([*BLOCKS, LAST]),
                cwd=tmp_path,
                env={**os.environ, **known},
                capture_output=True,
                text=True,
                timeout=240,
            )
            for _ in range(2)
        )
        assert (first.returncode, first.stderr) == (0, "")
        assert (again.returncode, again.stderr) == (0, "")
        assert len(server.paid()) == 6
    told: dict[str, Any] = json.loads(first.stdout.partition("LAST ")[2])
    assert told["ids"] == ["11", "12", "13"]
    assert told["status"] == ["completed"] * 3
    assert (told["day"], told["place"], told["tags"]) == ("date", ["city", "floor"], "ndarray")
    assert told["arrow"]["day"] == "date32[day]"
    assert told["arrow"]["score"] == "double"
    assert told["arrow"]["tags"].startswith("list<")
    assert re.fullmatch(r"struct<city: string.*, floor: int64>", told["arrow"]["place"])
    assert told["types"]["attempt_count"] == "int64"
    assert told["repr"] == "<Run completed, visits-1: 3 of 3 rows done>"
    assert "<b>completed</b> visits-1: 3 of 3 rows done" in told["html"]
    assert (tmp_path / "visits.parquet").read_bytes()[:4] == b"PAR1"


def test_a_run_shown_in_a_notebook_is_escaped_and_holds_no_key() -> None:
    with SandboxServer(clock="manual") as server:
        runner = BatchRunner(storage="memory", connection=OpenAIConnection("sk-secret", server.base_url))
        job = BatchJob([BatchItem("a", 1)], lambda item: "x", OpenAIProviderConfig("m", api_key="sk-secret"))
        run = runner.start(job, run_id="<script>&")
        run.pause()
        shown = run._repr_html_()
        runner.close()
    assert "<script>" not in shown
    assert "&lt;script&gt;&amp;: 0 of 1 rows done, 1 batch at the provider, paused (manual)" in shown
    assert "secret" not in shown + repr(run)


def test_the_page_of_the_commands_is_their_own_help() -> None:
    pins = dict(re.findall(r"(?m)^(typer|click)==(\S+)", (ROOT / "constraints.txt").read_text()))
    if {name: version(name) for name in pins} == pins:
        assert PAGE.read_text("utf-8") == page(), "python -m tests.docs_cli writes it"
    # Another typer draws its help differently, and has the same commands and options to show.
    told = PAGE.read_text("utf-8")
    assert {word for word in re.findall(r"(?m)^  (--[a-z-]+|batchor [a-z-]+)", page()) if word not in told} == set()
    assert told.count("\n## batchor") == page().count("\n## batchor")
