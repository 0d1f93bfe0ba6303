"""All commands in one place, and what becomes of what they raise.

Law: 0 means done, 1 failed, 2 wrongly called, 130 interrupted; whatever is raised ends as one line on stderr.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from batchor_engine.cli.control import cancel, collect, pause, resolve, resume, retry_failed
from batchor_engine.cli.keeping import delete, doctor, export_artifacts, export_results, prune_artifacts
from batchor_engine.cli.reading import list_runs, results, status
from batchor_engine.cli.sandbox import sandbox
from batchor_engine.cli.start import PLAN, start
from batchor_engine.cli.streams import InterruptedRun, StdoutClosedError, complain
from batchor_engine.cli.waiting import wait

DONE, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130
_DEBUG = "--debug"

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
for name, command in {
    "start": start,
    "wait": wait,
    "status": status,
    "list": list_runs,
    "results": results,
    "pause": pause,
    "resume": resume,
    "cancel": cancel,
    "collect": collect,
    "retry-failed": retry_failed,
    "resolve": resolve,
    "export-artifacts": export_artifacts,
    "prune-artifacts": prune_artifacts,
    "export-results": export_results,
    "delete": delete,
    "doctor": doctor,
    "sandbox": sandbox,
}.items():
    app.command(name)(command)
app.command(PLAN, help="Say what `start` with the same options would send and cost; sends and stores nothing.")(start)


@app.callback()
def batchor(
    debug: Annotated[bool, typer.Option(_DEBUG, help="Show the traceback of an error; may stand anywhere.")] = False,
) -> None:
    """Very many prompts through a provider's Batch API: no row lost, nothing paid twice.

    The key comes from OPENAI_API_KEY, or from a .env file in the working directory.
    """
    del debug  # taken out of the arguments by run(), since it also covers errors of parsing


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    debug = _DEBUG in arguments
    _replace_closed_streams()
    logging.basicConfig(format="batchor: %(message)s", level=logging.DEBUG if debug else logging.WARNING)
    try:
        return _call([one for one in arguments if one != _DEBUG])
    except (StdoutClosedError, BrokenPipeError):
        _leave_closed_pipe()
        return DONE
    except InterruptedRun as interruption:
        complain(f"interrupted; {interruption}")
        return INTERRUPTED
    except (KeyboardInterrupt, typer.Abort):
        complain("interrupted")
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last line of defence: people get a line, not a traceback
        if debug:
            traceback.print_exception(error)
        return _report(error)


def _call(arguments: list[str]) -> int:
    command: Any = typer.main.get_command(app)
    code: object = command.main(args=arguments, prog_name="batchor", standalone_mode=False, obj=arguments)
    # Only here does a pipe that nobody reads any more show itself.
    sys.stdout.flush()
    if code == INTERRUPTED:
        # What typer makes of a Ctrl-C in a command that has nothing of its own to say.
        raise KeyboardInterrupt
    return code if isinstance(code, int) else DONE


def _report(error: Exception) -> int:
    said = getattr(error, "format_message", None)
    if said is None:
        complain(_sentence(error))
        return FAILED
    path = getattr(getattr(error, "ctx", None), "command_path", None) or "batchor"
    complain(f"{said().rstrip('.')}. See `{path} --help`.")
    return MISUSED if getattr(error, "exit_code", FAILED) == MISUSED else FAILED


def _sentence(error: Exception) -> str:
    """An error of ours speaks for itself; one that only its author understands says what it is."""
    text = str(error).strip()
    if isinstance(error, ValueError | TypeError | RuntimeError | LookupError) and text and type(error) is not KeyError:
        return text
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return text if isinstance(error, OSError) and text else f"{type(error).__name__}: {text or 'no message'}"


def _replace_closed_streams() -> None:
    """Whoever closed our output wants none of it; Python has None in the place of such a stream."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            # Also takes the free number, which a file of the store would get otherwise.
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - as long as the process


def _leave_closed_pipe() -> None:
    """Whoever read our output has had enough; Python would still try to flush into it on the way out."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        return
