"""A process that runs one job and, when told, kills itself at a crash point: `worker.py '{json options}'`."""

from __future__ import annotations

import json
import os
import signal
import sys

from batchor_engine import (
    BatchItem,
    BatchJob,
    BatchRunner,
    ChunkPolicy,
    OpenAIConnection,
    OpenAIProviderConfig,
    RetryPolicy,
)
from batchor_engine.runtime import hold
from batchor_engine.testing import CrashPoints

ROWS = 30


def job() -> BatchJob:  # type: ignore[type-arg]
    return BatchJob(
        items=[BatchItem(f"row-{n}", n, {"n": n}) for n in range(ROWS)],
        build_prompt=lambda item: f"Say {item.payload}",
        provider_config=OpenAIProviderConfig(model="gpt-5-mini", poll_interval_sec=0.02),
        chunk_policy=ChunkPolicy(max_requests=10),
        retry_policy=RetryPolicy(base_backoff_sec=0.01, max_backoff_sec=0.05),
    )


def kill(_where: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    options = json.loads(sys.argv[1])
    hold.LEASE_SEC = options.get("lease_sec", hold.LEASE_SEC)
    runner = BatchRunner(
        storage=options["store"],
        artifacts_url=options["artifacts"],
        connection=OpenAIConnection(api_key="sk-test", base_url=options["base_url"], request_timeout_sec=1),
    )
    runner.host.late_call_margin_sec = 0.5
    crash = CrashPoints(options.get("at"), die=kill).install(runner)
    run = runner.run_and_wait(job(), run_id="crashing")
    print(json.dumps({"completed": run.summary().completed_items, "seen": dict(crash.seen)}))


if __name__ == "__main__":
    main()
