"""`python -m benchmarks.soak [RUNS]`: very many small runs in one process; latency, memory and files must stay flat.

One line for each tenth of the runs as it ends, and all of them in test-artifacts/soak.json with a picture beside it.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from batchor_engine import BatchItem, BatchJob, BatchRunner, OpenAIConnection, OpenAIProviderConfig, RetryPolicy
from benchmarks import report
from benchmarks.harness import server
from benchmarks.work import MODEL

ROWS = 20
WINDOWS = 10


def soak(runs: int, folder: Path) -> Iterator[dict[str, float]]:
    """A line for each tenth: what a run took, and what the process holds when nothing is under way."""
    a_window = runs // WINDOWS
    with server(folder) as serving:
        serving.open()
        runner = BatchRunner(
            storage=f"sqlite:///{folder}/runs.sqlite3",
            artifacts_url=folder / "artifacts",
            connection=OpenAIConnection(api_key="sk-bench", base_url=serving.base_url),
        )
        for window in range(WINDOWS):
            cpu = time.process_time()
            spans = [_one(runner, f"run-{window}-{at}") for at in range(a_window)]
            told = {"runs": (window + 1) * a_window, **_spans(spans), "cpu_ms_a_run": _ms(cpu, a_window)}
            yield {**told, **_held(runner, folder, (window + 1) * a_window)}
        runner.close()


def _spans(spans: list[float]) -> dict[str, float]:
    ordered = sorted(spans)
    return {"ms_a_run": statistics.median(spans) * 1000, "ms_p95": ordered[int(len(ordered) * 0.95)] * 1000}


def _ms(cpu_began: float, runs: int) -> float:
    return (time.process_time() - cpu_began) / runs * 1000


def _held(runner: BatchRunner, folder: Path, runs: int) -> dict[str, float]:
    """What must not grow: memory, files, connections, threads, reserved tokens, leases; and the database by the run."""
    gc.collect()
    this = psutil.Process()
    store = runner.storage
    return {
        "rss_mib": this.memory_info().rss / 2**20,
        "open_files": this.num_fds(),
        "connections": len(this.net_connections()),
        "threads": threading.active_count(),
        "reserved_tokens": sum(scope.reserved for scope in store.scopes()),
        "leases": len(store.held_leases()),
        "database_bytes_a_run": sum(os.path.getsize(one) for one in folder.glob("runs.sqlite3*")) / runs,
    }


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
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("runs", type=int, nargs="?", default=1_000)
    parser.add_argument("--out", type=Path, default=Path("test-artifacts"), help="folder of the JSON and the picture")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    lines: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="batchor-soak-") as folder:
        for line in soak(asked.runs, Path(folder)):
            lines.append({name: round(value, 1) for name, value in line.items()})
            print(json.dumps(lines[-1]), flush=True)
            # Written each time: an hour is long, and what was measured should not depend on its end.
            (asked.out / "soak.json").write_text(json.dumps(lines, indent=1))
    report.soak_picture(lines, asked.out / "soak.svg")


if __name__ == "__main__":
    main()
