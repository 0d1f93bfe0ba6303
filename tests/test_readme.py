"""What the README shows is what the code does."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from batchor_engine.sandbox import Phases, SandboxServer
from batchor_engine.states import mermaid

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
TICKETS = 'ticket_id,body\nt-1,"The lamp, it stays dark."\nt-2,Where is my invoice?\n'


def python_block(mark: str) -> str:
    found = re.search(re.escape(f"<!-- test: {mark} -->") + r"\n```python\n(.*?)```", README, re.DOTALL)
    assert found, mark
    return found[1]


def shell_lines() -> list[list[str]]:
    """The commands of the README that begin with `batchor`, without what follows a #."""
    lines = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("batchor ")]


def test_the_state_diagrams_are_the_ones_of_the_tables() -> None:
    shown = re.search(r"<!-- states: begin -->\n(.*?)\n<!-- states: end -->", README, re.DOTALL)
    assert shown
    assert shown[1] == mermaid(), "paste what python -c 'from batchor_engine.states import *; print(mermaid())' prints"


def test_the_dagster_example_has_its_mark() -> None:
    # tests/on_dagster runs it.
    assert "build_batchor_definitions" in python_block("dagster-example")


def test_every_file_that_is_linked_is_there() -> None:
    for text in (README, (ROOT / "CONTRIBUTING.md").read_text(), (ROOT / "docs/architecture.md").read_text()):
        links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
        assert [link for link in links if not ((ROOT / link).exists() or (ROOT / "docs" / link).exists())] == []


@pytest.mark.slow
def test_the_python_example_runs_and_runs_again_without_paying(tmp_path: Path) -> None:
    (tmp_path / "triage.py").write_text(python_block("python-example"))
    (tmp_path / "tickets.csv").write_text(TICKETS)
    with SandboxServer(clock="polls", polls=Phases(0, 0, 0, 0)) as server:
        known = {"HOME": str(tmp_path), "OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": server.base_url}
        runs = [
            subprocess.run(
                [sys.executable, "triage.py"], cwd=tmp_path, env={**os.environ, **known}, capture_output=True, text=True
            )
            for _ in range(2)
        ]
        assert len(server.paid()) == 2
    assert [run.stderr for run in runs] == ["", ""]
    assert runs[0].stdout == runs[1].stdout
    assert re.fullmatch(r"t-1 product=.* urgency=.*\nt-2 product=.* urgency=.*\n", runs[0].stdout)


def test_the_commands_of_the_readme_do_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    from batchor_engine.cli.app import run

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "tickets.csv").write_text(TICKETS)
    sandbox, *others = shell_lines()
    assert sandbox[:1] == ["sandbox"]
    with SandboxServer(clock="polls", polls=Phases(0, 0, 0, 0)) as server:
        for name, value in {"HOME": tmp_path, "OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": server.base_url}.items():
            monkeypatch.setenv(name, str(value))
        assert [run(words) for words in others] == [0] * len(others)
    assert (tmp_path / "w10.jsonl").read_text().count("\n") == 2
    capsysbinary.readouterr()
