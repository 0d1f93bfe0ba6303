"""`python -m benchmarks.soak [RUNS]`: very many small runs in one process; latency, memory and files must stay flat."""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from batchor_engine import BatchItem, BatchJob, BatchRunner, OpenAIConnection, OpenAIProviderConfig, RetryPolicy
from benchmarks.harness import server
from benchmarks.work import MODEL

ROWS = 20
WINDOWS = 10


def soak(runs: int, folder: Path) -> list[dict[str, float]]:
    """One line for each tenth of the runs: milliseconds a run, resident memory, open files, database bytes a run."""
    told: list[dict[str, float]] = []
    this = psutil.Process()
    with server(folder) as serving:
        serving.open()
        runner = BatchRunner(
            storage=f"sqlite:///{folder}/runs.sqlite3",
            artifacts_url=folder / "artifacts",
            connection=OpenAIConnection(api_key="sk-bench", base_url=serving.base_url),
        )
        for window in range(WINDOWS):
            spans = [_one(runner, f"run-{window}-{at}") for at in range(runs // WINDOWS)]
            size = sum(os.path.getsize(one) for one in folder.glob("runs.sqlite3*"))
            told.append(
                {
                    "runs": (window + 1) * (runs // WINDOWS),
                    "ms_a_run": statistics.median(spans) * 1000,
                    "rss_mib": this.memory_info().rss / 2**20,
                    "open_files": this.num_fds(),
                    "database_bytes_a_run": size / ((window + 1) * (runs // WINDOWS)),
                }
            )
        runner.close()
    return told


def _one(runner: BatchRunner, run_id: str) -> float:
    rows = [BatchItem(f"r{at}", f"row {at}") for at in range(ROWS)]
    job: BatchJob[Any, Any] = BatchJob(
        rows, lambda item: item.payload, OpenAIProviderConfig(model=MODEL), retry_policy=RetryPolicy(base_backoff_sec=0)
    )
    began = time.perf_counter()
    summary = runner.start(job, run_id=run_id).wait(poll_interval=0.001).summary()
    span = time.perf_counter() - began
    if summary.completed_items != ROWS:
        raise SystemExit(f"{run_id}: {summary}")
    return span


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    with tempfile.TemporaryDirectory(prefix="batchor-soak-") as folder:
        for line in soak(runs, Path(folder)):
            print(json.dumps({name: round(value, 1) for name, value in line.items()}), flush=True)


if __name__ == "__main__":
    main()
