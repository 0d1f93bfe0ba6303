"""`python -m batchor_engine.cli` is the `batchor` command."""

from batchor_engine.cli import main

main()
