"""What looking costs: calls of a poll, a sensor's tick over a thousand runs, the import."""

from __future__ import annotations

import statistics
import subprocess
import sys
import timeit
from pathlib import Path
from typing import Any

from benchmarks.harness import compiled, phase, server
from benchmarks.work import write_rows

_IMPORT = (
    "import time; began, cpu = time.perf_counter(), time.process_time(); import batchor_engine; "
    "print(time.perf_counter() - began, time.process_time() - cpu)"
)


def calls_of_a_poll(batches: int, folder: Path) -> dict[str, Any]:
    """Provider calls of one refresh of a run with so many active batches; the design allows ceil(batches / 100) + 1."""
    folder.mkdir(parents=True)
    write_rows(folder / "rows.csv", batches * 2)
    with server(folder) as serving:
        phase("durable", "submit", folder, serving.base_url, {"BATCHOR_BENCH_LINES": "2"})
        before = serving.calls()
        made = phase("durable", "refresh", folder, serving.base_url).made
        after = serving.calls()
    asked = {kind: count - before.get(kind, 0) for kind, count in after.items() if kind != "GET calls"}
    return {"batches": made["active_batches"], "calls": sum(asked.values()), "allowed": -(-batches // 100) + 1}


def import_seconds(times: int = 5) -> dict[str, float]:
    """Medians of `import batchor_engine` in fresh processes, on the clock and of the processor."""
    command = [sys.executable, "-c", _IMPORT]
    said = [
        subprocess.run(command, check=True, capture_output=True, text=True, env=compiled()).stdout.split()
        for _ in range(times)
    ]
    walls, cpus = zip(*((float(wall), float(cpu)) for wall, cpu in said), strict=True)
    return {"wall_sec": statistics.median(walls), "cpu_sec": statistics.median(cpus)}


def tick_seconds(runs: int, folder: Path) -> dict[str, float]:
    """The polling sensor's first tick over so many runs in flight, which reports them, and the median of five more."""
    # Dagster is imported here alone, so that it is not in the memory of anything else that is measured.
    from benchmarks.ticks import Ticks

    with Ticks(runs, folder) as ticks:
        return {
            "runs": runs,
            "first_sec": timeit.timeit(ticks.tick, number=1),
            "later_sec": statistics.median(timeit.repeat(ticks.tick, number=1, repeat=5)),
        }
