"""`python -m benchmarks`: the engine beside two scripts without durability, and what looking at it costs.

Every phase runs in a process of its own, before a server of its own; ratios hold on one machine in one run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import report, steady
from benchmarks.walk import Walk, walk

SMALL = 1_000


def main() -> None:
    asked = _arguments()
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="batchor-bench-") as place:
        walks: list[Walk] = []
        for rows in sorted({SMALL, *asked.rows}):
            for way, label, env in _ways(asked, rows):
                with console.status(f"{label}: {rows:,} rows"):
                    walks.append(walk(way, rows, Path(place) / "walk", label=label, env=env))
                console.print(f"{label}: {rows:,} rows in {walks[-1].total():.1f} s")
        with console.status("polls, ticks, imports"):
            looks = {
                "poll": steady.calls_of_a_poll(asked.batches, Path(place) / "poll"),
                "tick": steady.tick_seconds(asked.runs, Path(place) / "tick"),
                "import_sec": steady.import_seconds(),
            }
    told: dict[str, Any] = {
        "machine": {"python": platform.python_version(), "system": platform.platform(), "cores": os.cpu_count()},
        "walks": [one.told() for one in walks],
        "looks": looks,
    }
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "bench.json").write_text(json.dumps(told, indent=1))
    report.picture(walks, asked.out / "bench.svg")
    report.tables(walks, looks, Console())
    print(f"Written: {asked.out / 'bench.json'} and {asked.out / 'bench.svg'}")


def _ways(asked: argparse.Namespace, rows: int) -> Iterator[tuple[str, str, dict[str, str]]]:
    if rows > SMALL:
        yield "naive", "naive script", {}
        yield "tuned", "tuned script", {}
    yield "durable", "batchor, SQLite", {}
    if asked.postgres:
        yield "durable", "batchor, PostgreSQL", {"BATCHOR_BENCH_STORE": asked.postgres}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000], help="how many (default 20000)")
    parser.add_argument("--postgres", help="also measure on the PostgreSQL of this URL, in schemas that it makes")
    parser.add_argument("--batches", type=int, default=1_000, help="active batches of the poll that is counted")
    parser.add_argument("--runs", type=int, default=1_000, help="runs in flight of the sensor's tick")
    parser.add_argument("--out", type=Path, default=Path("test-artifacts"), help="folder of the JSON and the picture")
    asked = parser.parse_args()
    if min(asked.rows) <= SMALL:
        sys.exit(f"--rows must be above {SMALL}, which is measured anyway")
    return asked


if __name__ == "__main__":
    main()
