"""Where words go: JSON lines to stdout for programs, sentences to stderr for people.

Law: a line on stdout is one JSON value in UTF-8, whatever the terminal's encoding is.
"""

from __future__ import annotations

import sys

from batchor_engine.core.summary import summary_payload
from batchor_engine.models import JSONValue, RunSummary
from batchor_engine.runtime.export import encoded


class StdoutClosedError(Exception):
    """Nobody reads our output any more."""


class InterruptedRun(Exception):  # noqa: N818 - no error: somebody pressed Ctrl-C
    """A command was interrupted; the text says what is kept."""


def emit(value: JSONValue) -> None:
    """Write one JSON line to stdout."""
    try:
        sys.stdout.buffer.write(encoded(value))
    except BrokenPipeError:
        # typer would take it for a failure; who runs `batchor results | head` has what they wanted.
        raise StdoutClosedError from None


def emit_summary(summary: RunSummary) -> None:
    emit(summary_payload(summary))


def note(text: str) -> None:
    """Tell people something that no program needs."""
    sys.stderr.write(f"{one_line(text)}\n")
    sys.stderr.flush()


def complain(text: str) -> None:
    """Say in one line what went wrong."""
    note(f"batchor: {text}")


def one_line(text: str) -> str:
    """Without what moves a terminal's cursor or begins a line: some words are a provider's."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())
