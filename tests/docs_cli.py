"""docs/cli.md from the commands' own help; `python -m tests.docs_cli` writes it."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import typer

from batchor_engine.cli.app import app

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
HEAD = """# The `batchor` command

Written by `python -m tests.docs_cli` from the commands' own help; a test holds it to that.

JSON goes to stdout, everything else to stderr. Exit code 0 is done, 1 failed, 2 wrongly called, 130 interrupted. A run
that is interrupted or fails is kept, and the last line says how to go on. `batchor --install-completion` teaches your
shell the commands.
"""


def page() -> str:
    group: Any = typer.main.get_command(app)
    sections = [_section("batchor", group)]
    sections += [_section(f"batchor {name}", command) for name, command in group.commands.items()]
    return HEAD + "".join(sections)


def _section(name: str, command: Any) -> str:
    # A terminal's width and the words that completion adds differ from machine to machine.
    with command.make_context(name, [], resilient_parsing=True, max_content_width=100, terminal_width=100) as context:
        lines = inspect.cleandoc(command.get_help(context)).splitlines()
    return f"\n## {name}\n\n```text\n" + "\n".join(line.rstrip() for line in lines) + "\n```\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
