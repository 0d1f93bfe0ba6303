"""What the README shows is what the code does, and no page of the documentation leads nowhere."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from batchor_engine.sandbox import Phases, SandboxServer
from batchor_engine.states import mermaid

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = {path: path.read_text("utf-8") for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]}
LINK = re.compile(r"\]\(([^)\s]+)\)")
# Extras for those who change this project, not for those who use it.
INSIDE = {"bench", "demo", "test"}


def python_block(mark: str) -> str:
    found = re.search(re.escape(f"<!-- test: {mark} -->") + r"\n```python\n(.*?)```", README, re.DOTALL)
    assert found, mark
    return found[1]


def shell_lines() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def commands() -> list[list[str]]:
    """The words after `batchor`, without what follows a #."""
    return [shlex.split(line, comments=True)[1:] for line in shell_lines() if line.startswith("batchor ")]


def make_the_tickets(folder: Path) -> None:
    (line,) = (line for line in shell_lines() if line.startswith("printf "))
    subprocess.run(["sh", "-c", line], cwd=folder, check=True)


def anchors(text: str) -> set[str]:
    """The names that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(page: Path, text: str) -> list[str]:
    """Relative links of a page to a file or a heading that is not there."""
    dead: list[str] = []
    for link in LINK.findall(text):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if "://" in link or (target.exists() and (not anchor or anchor in anchors(target.read_text("utf-8")))):
            continue
        dead.append(link)
    return dead


def test_no_link_between_the_pages_is_dead() -> None:
    assert {page.name: dead for page, text in PAGES.items() if (dead := dead_links(page, text))} == {}


def test_a_dead_link_is_seen(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# A `heading`, here\n```sh\n# no heading\n```\n")
    links = ["there.md", "there.md#a-heading-here", "there.md#no-heading", "gone.md", "#gone", "https://a.test/gone"]
    page = tmp_path / "page.md"
    page.write_text(" ".join(f"[x]({link})" for link in links))
    assert dead_links(page, page.read_text()) == ["there.md#no-heading", "gone.md", "#gone"]


def test_every_page_is_linked_from_the_readme() -> None:
    named = {link.partition("#")[0] for link in LINK.findall(README)}
    assert sorted({f"docs/{path.name}" for path in PAGES if path.parent.name == "docs"} - named) == []


def test_the_extras_of_the_readme_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    (table,) = re.findall(r"^\| extra \|.*?\n\n", README, re.DOTALL | re.MULTILINE)
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(project["optional-dependencies"]) - INSIDE


def test_every_make_target_that_a_page_names_is_there() -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = {name for text in PAGES.values() for name in re.findall(r"(?:`|^)make ([a-z][\w-]*)", text, re.MULTILINE)}
    assert "demo" in named
    assert sorted(named - targets) == []


def test_the_state_diagrams_are_the_ones_of_the_tables() -> None:
    text = PAGES[ROOT / "docs" / "architecture.md"]
    shown = re.search(r"<!-- states: begin -->\n(.*?)\n<!-- states: end -->", text, re.DOTALL)
    assert shown
    assert shown[1] == mermaid(), "paste what python -c 'from batchor_engine.states import *; print(mermaid())' prints"


def test_the_dagster_example_has_its_mark() -> None:
    # tests/on_dagster runs it.
    assert "build_batchor_definitions" in python_block("dagster-example")


@pytest.mark.slow
def test_the_python_example_runs_and_runs_again_without_paying(tmp_path: Path) -> None:
    (tmp_path / "triage.py").write_text(python_block("python-example"))
    make_the_tickets(tmp_path)
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
    make_the_tickets(tmp_path)
    sandbox, *others = commands()
    assert sandbox[:1] == ["sandbox"]
    with SandboxServer(clock="polls", polls=Phases(0, 0, 0, 0)) as server:
        for name, value in {"HOME": tmp_path, "OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": server.base_url}.items():
            monkeypatch.setenv(name, str(value))
        assert [run(words) for words in others] == [0] * len(others)
    assert (tmp_path / "w10.jsonl").read_text().count("\n") == 2
    capsysbinary.readouterr()
