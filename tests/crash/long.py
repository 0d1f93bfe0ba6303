"""The long profile: `python -m tests.crash.long --seed N --kills 200`.

Fails where the books of both sides differ, or where a crash point was never hit.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from ..servers.s3 import s3_server
from ..stores import KINDS, begin_session, end_session
from .points import POINTS
from .torture import Torture, new_sandbox


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash.long", description=__doc__)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--kills", type=int, default=200, help="SIGKILLs in random moments, besides crash points")
    parser.add_argument(
        "--store", choices=KINDS, default=KINDS[0], help="the database of the runs; postgres: files in S3"
    )
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.randrange(2**32)
    began = time.monotonic()
    print(f"seed {seed}", flush=True)
    with ExitStack() as stack:
        begin_session()
        stack.callback(end_session)
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="batchor-torture-"))
        sandbox = stack.enter_context(new_sandbox())
        artifacts = ""
        if options.store == "postgres":
            s3 = stack.enter_context(s3_server())
            os.environ.update(s3.environment())
            artifacts = s3.url
        torture = Torture(sandbox, Path(folder), seed, kind=options.store, artifacts=artifacts)
        torture.go(options.kills, all_points=True)
        for name, value in torture.report().items():
            print(f"{name}: {value}")
        problems = torture.problems()
    problems += [f"the crash point {point} was never hit" for point in POINTS if not torture.kills[point]]
    print("\n".join(problems) or "the books agree", f"({time.monotonic() - began:.0f} s)")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
