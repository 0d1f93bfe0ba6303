"""The `batchor` command.

Law: JSON goes to stdout and everything else to stderr; an error is one line, and a traceback only with --debug.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line of this process and exit with its code."""
    try:
        # typer and rich cost more than the whole engine, so importing this package must not load them.
        from batchor_engine.cli.app import run

        sys.exit(run(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
