"""`python -m batchor_engine.sandbox`: a sandbox as a process of its own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .config import CLOCKS, Phases, SandboxConfig
from .errors import SandboxError
from .faults import Fault, load_faults
from .server import serve


def parser() -> argparse.ArgumentParser:
    """The options, with the config's defaults."""
    plain = SandboxConfig()
    made = argparse.ArgumentParser(prog="python -m batchor_engine.sandbox", description=__doc__)
    made.add_argument("--host", default=plain.host)
    made.add_argument("--port", type=int, default=plain.port, help="0 means a free one")
    made.add_argument("--port-file", help="write the chosen port to this file")
    made.add_argument("--state-dir", help="keep everything here; without it nothing outlives the process")
    made.add_argument("--responder", help="module:attribute of a callable that answers requests")
    made.add_argument("--clock", choices=CLOCKS, default=plain.clock)
    made.add_argument("--phases", type=phases, help="validating,in_progress,finalizing,cancelling in seconds or polls")
    made.add_argument("--faults", help="JSON file with an array of faults")
    made.add_argument("--seed", type=int, default=plain.seed)
    made.add_argument("--no-shuffle", action="store_true", help="keep the input's order in the output")
    made.add_argument("--azure", action="store_true", help="paths and habits of Azure OpenAI's v1 API")
    made.add_argument("--scoped", action="store_true", help="files and batches belong to key and project")
    made.add_argument("--answer-chars", type=int, default=plain.answer_chars, help="size of plain text answers")
    made.add_argument("--token-limit", type=token_limit, action="append", default=[], metavar="MODEL=N")
    return made


def phases(text: str) -> Phases:
    """Four numbers with commas between them."""
    return Phases(*[float(one) for one in text.split(",")])


def token_limit(text: str) -> tuple[str, int]:
    """MODEL=N; the model `*` stands for all."""
    model, _, number = text.rpartition("=")
    return model or "*", int(number)


def read_config(args: argparse.Namespace) -> SandboxConfig:
    """The config that the options describe."""
    plain = SandboxConfig()
    given = args.phases
    return SandboxConfig(
        host=args.host,
        port=args.port,
        port_file=args.port_file,
        state_dir=args.state_dir,
        responder=args.responder,
        clock=args.clock,
        phases=given if given is not None and args.clock == "real" else plain.phases,
        polls=given if given is not None and args.clock == "polls" else plain.polls,
        seed=args.seed,
        shuffle=not args.no_shuffle,
        azure=args.azure,
        scoped=args.scoped,
        answer_chars=args.answer_chars,
        enqueued_token_limits=dict(args.token_limit),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until stopped; 1 when the sandbox cannot start."""
    args = parser().parse_args(argv)
    try:
        faults: list[Fault] = load_faults(args.faults) if args.faults else []
        serve(read_config(args), faults)
    except SandboxError as error:
        sys.stderr.write(f"batchor sandbox: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
