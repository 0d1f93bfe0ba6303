"""A process that works on several runs until all are over: `load.py '{json options}'`. It may be killed at any moment.

Options: store (a URL), artifacts, base_url, runs, rows, and perhaps at ({crash point: how-manieth passing}), with (a
signal's number), lease_sec. It prints `ready` once it works and a JSON line when all is over.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from typing import Any

from batchor_engine import (
    BatchItem,
    BatchJob,
    BatchRunner,
    ChunkPolicy,
    OpenAIConnection,
    OpenAIProviderConfig,
    RetryPolicy,
    Run,
)
from batchor_engine.errors import RunBusyError
from batchor_engine.runtime import hold
from batchor_engine.testing import CrashPoints

BATCH_ROWS = 10
TIMEOUT_SEC, MARGIN_SEC = 1, 0.5


def job(rows: int) -> BatchJob[Any, Any]:
    return BatchJob(
        items=[BatchItem(f"row-{n}", n, {"n": n}) for n in range(rows)],
        build_prompt=lambda item: f"Say {item.payload}",
        provider_config=OpenAIProviderConfig(model="gpt-5-mini", poll_interval_sec=0.02),
        chunk_policy=ChunkPolicy(max_requests=BATCH_ROWS),
        # A quarter of all lines is lost on purpose, so a row that has lost five in a row is none that failed by itself.
        retry_policy=RetryPolicy(max_attempts=10, base_backoff_sec=0.01, max_backoff_sec=0.05),
    )


def runner_for(store: str, artifacts: str, base_url: str) -> BatchRunner:
    runner = BatchRunner(
        storage=store,
        artifacts_url=artifacts,
        connection=OpenAIConnection(api_key="sk-test", base_url=base_url, request_timeout_sec=TIMEOUT_SEC),
    )
    runner.host.late_call_margin_sec = MARGIN_SEC
    return runner


def start(runner: BatchRunner, rows: int, run_id: str) -> Run | None:
    try:
        return runner.start(job(rows), run_id=run_id)
    except RunBusyError as error:
        # Another worker is within its first moment with this run.
        if "just being created" in str(error):
            return None
        raise


def work(runner: BatchRunner, rows: int, runs: list[str]) -> None:
    """Turn by turn, so that two such processes are at one run and at different runs."""
    handles: dict[str, Run] = {}
    left = list(runs)
    while left:
        for run_id in list(left):
            stored = runner.storage.run(run_id)
            if stored is None or not stored.ingest.finished or run_id not in handles:
                run = start(runner, rows, run_id)
                if run is None:
                    continue
                handles[run_id] = run
            handles[run_id].refresh()
            if handles[run_id].is_finished:
                left.remove(run_id)
        time.sleep(0.01)


def main() -> None:
    options = json.loads(sys.argv[1])
    if "lease_sec" in options:
        hold.LEASE_SEC = options["lease_sec"]
        hold._HEARTBEAT_SEC = options["lease_sec"] / 4
    runner = runner_for(options["store"], options["artifacts"], options["base_url"])
    number = options.get("with", signal.SIGKILL)

    # A process that is stopped in the middle of a write keeps SQLite's lock, and nobody could take over: the heartbeat
    # of its lease, which a thread writes, is none of what is tested.
    writing = threading.Lock()
    renew = runner.storage.renew

    def renew_alone(*args: Any) -> Any:
        with writing:
            return renew(*args)

    runner.storage.renew = renew_alone

    def strike(where: str) -> None:
        print(json.dumps({"struck": where.partition(",")[0]}), flush=True)
        with writing:
            os.kill(os.getpid(), number)

    points = CrashPoints(options.get("at"), die=strike).install(runner)
    print("ready", flush=True)
    work(runner, options["rows"], options["runs"])
    print(json.dumps({"done": True, "seen": dict(points.seen)}), flush=True)
    runner.close()


if __name__ == "__main__":
    main()
