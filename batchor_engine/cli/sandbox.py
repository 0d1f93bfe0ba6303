"""The command that serves a sandbox.

Law: it listens on this machine only, and its options mean what they mean in `python -m batchor_engine.sandbox`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from batchor_engine.cli.options import pairs
from batchor_engine.cli.place import CommandError
from batchor_engine.sandbox import Phases, SandboxConfig, SandboxError, load_faults, serve

_HELP_PHASES = "Length of validating,in_progress,finalizing,cancelling, in seconds or in polls."


def sandbox(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one.")] = 0,
    port_file: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the port's number there.")] = None,
    state_dir: Annotated[Path | None, typer.Option(metavar="DIR", help="Keep everything there over restarts.")] = None,
    responder: Annotated[str | None, typer.Option(metavar="MODULE:NAME", help="A callable that answers.")] = None,
    clock: Annotated[str, typer.Option(metavar="real|polls|manual", help="What moves a batch on.")] = "real",
    phases: Annotated[str | None, typer.Option(metavar="N,N,N,N", help=_HELP_PHASES)] = None,
    faults: Annotated[Path | None, typer.Option(metavar="FILE", help="JSON array of faults to play.")] = None,
    seed: Annotated[int, typer.Option(help="Another seed, other answers.")] = 0,
    no_shuffle: Annotated[bool, typer.Option("--no-shuffle", help="Answer in the order of the input.")] = False,
    scoped: Annotated[bool, typer.Option("--scoped", help="Files and batches belong to key and project.")] = False,
    azure: Annotated[bool, typer.Option("--azure", help="Paths and habits of Azure OpenAI's v1 API.")] = False,
    answer_chars: Annotated[int, typer.Option(min=0, help="Length of plain answers; 0 is short.")] = 0,
    token_limit: Annotated[
        list[str] | None, typer.Option(metavar="MODEL=N", help="Enqueued-token limit; * is any model; repeatable.")
    ] = None,
) -> None:
    """Serve a sandbox of the Batch API on 127.0.0.1.

    Any key will do, and nothing is billed. Ends with Ctrl-C.
    """
    try:
        given, plain = _phases(phases), SandboxConfig()
        config = SandboxConfig(
            port=port,
            port_file=port_file,
            state_dir=state_dir,
            responder=responder,
            clock=clock,
            seed=seed,
            shuffle=not no_shuffle,
            scoped=scoped,
            azure=azure,
            answer_chars=answer_chars,
            enqueued_token_limits=_limits(token_limit or []),
            phases=given if given and clock == "real" else plain.phases,
            polls=given if given and clock == "polls" else plain.polls,
        )
    except SandboxError as error:
        raise typer.BadParameter(str(error)) from error
    try:
        serve(config, load_faults(faults) if faults is not None else ())
    except SandboxError as error:
        raise CommandError(str(error)) from error
    except ModuleNotFoundError as error:
        raise CommandError(
            f"The sandbox needs {error.name}: install it with pip install 'batchor-dagster[sandbox]'."
        ) from error


def _phases(text: str | None) -> Phases | None:
    if text is None:
        return None
    try:
        validating, in_progress, finalizing, cancelling = (float(one) for one in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not four numbers", param_hint="'--phases'") from None
    return Phases(validating, in_progress, finalizing, cancelling)


def _limits(given: list[str]) -> dict[str, int]:
    try:
        return {model: int(number) for model, number in pairs(given, "--token-limit").items()}
    except ValueError:
        raise typer.BadParameter("N is a number of tokens", param_hint="'--token-limit'") from None
