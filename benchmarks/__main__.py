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
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import report, steady
from benchmarks.budgets import NAIVE, POSTGRES, SQLITE, Round, budgets
from benchmarks.database import postgres, with_schema
from benchmarks.growth import growth
from benchmarks.walk import Walk, walk

SMALL = 1_000
# Below this a fit would measure how long a process takes to start.
SMALLEST_OF_A_FIT = 2_000


def main() -> None:
    asked, console = _arguments(), Console(stderr=True)
    rounds: list[Round] = []
    with (
        tempfile.TemporaryDirectory(prefix="batchor-bench-") as folder,
        postgres(asked.postgres, left_out=asked.no_postgres) as database,
    ):
        for number in range(1, asked.rounds + 1):
            rounds.append(_round(asked, database, Path(folder) / f"round-{number}", console))
            # After each round, so that what was measured does not depend on the rest.
            _write(asked, rounds)
            console.print(f"round {number} of {asked.rounds} is done")
    report.tables(rounds, budgets(rounds, asked.rows, SMALL), _fits(rounds), Console())
    print(f"Written: {asked.out / 'bench.json'} and {asked.out / 'bench.svg'}")


def _round(asked: argparse.Namespace, database: str | None, place: Path, console: Console) -> Round:
    """Everything once; the ways take turns, so that a noisy hour is everybody's."""
    walks: list[Walk] = []
    for rows in _sizes(asked.rows):
        for way, label, env in _ways(asked.rows, rows, database):
            with console.status(f"{label}: {rows:,} rows"):
                beside = SMALL if label == SQLITE and rows == asked.rows else None
                walks.append(walk(way, rows, place / "walk", label=label, env=env, beside=beside))
            console.print(f"{label}: {rows:,} rows in {walks[-1].total():.1f} s")
    with console.status("polls, ticks, imports"):
        looks: dict[str, Any] = {
            "poll": steady.calls_of_a_poll(asked.batches, place / "poll"),
            "tick": steady.tick_seconds(asked.runs, place / "tick"),
            "import": steady.import_seconds(),
        }
    return Round(walks, looks)


def _sizes(rows: int) -> list[int]:
    """The size that was asked for, the small one for what must not grow, and those between for the fit."""
    between = [size for size in (rows // 100, rows // 10) if size >= SMALLEST_OF_A_FIT]
    return sorted({SMALL, *between, rows})


def _ways(asked_rows: int, rows: int, database: str | None) -> Iterator[tuple[str, str, dict[str, str]]]:
    compared = rows == asked_rows
    if compared:
        yield "naive", NAIVE, {}
        yield "tuned", "tuned script", {}
    yield "durable", SQLITE, {}
    if database and (compared or rows == SMALL):
        yield "durable", POSTGRES, {"BATCHOR_BENCH_STORE": with_schema(database)}


def _fits(rounds: list[Round]) -> list[Any]:
    walks = [one for each in rounds for one in each.walks]
    return [fit for what in ("cpu_sec", "wall_sec") if (fit := growth(walks, SQLITE, what))]


def _write(asked: argparse.Namespace, rounds: list[Round]) -> None:
    machine = {"python": platform.python_version(), "system": platform.platform(), "cores": os.cpu_count()}
    load = dict(zip(("1 min", "5 min", "15 min"), os.getloadavg(), strict=True))
    fits, lines = _fits(rounds), budgets(rounds, asked.rows, SMALL)
    told: dict[str, Any] = {
        "machine": {**machine, "load": load},
        "rows": asked.rows,
        "budgets": [{**asdict(line), "kept": line.kept, "spread": line.spread} for line in lines],
        "growth": [asdict(fit) for fit in fits],
        "rounds": [{"walks": [one.told() for one in each.walks], "looks": each.looks} for each in rounds],
    }
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "bench.json").write_text(json.dumps(told, indent=1))
    report.picture([one for each in rounds for one in each.walks], fits, asked.out / "bench.svg")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000, help="how many (default 20000)")
    parser.add_argument("--rounds", type=int, default=1, help="how often everything is measured (default once)")
    parser.add_argument("--twice", dest="rounds", action="store_const", const=2, help="the same as --rounds 2")
    parser.add_argument("--postgres", help="measure on the PostgreSQL of this URL instead of starting one")
    parser.add_argument("--no-postgres", action="store_true", help="measure on SQLite alone")
    parser.add_argument("--batches", type=int, default=1_000, help="active batches of the poll that is counted")
    parser.add_argument("--runs", type=int, default=1_000, help="runs in flight of the sensor's tick")
    parser.add_argument("--out", type=Path, default=Path("test-artifacts"), help="folder of the JSON and the picture")
    asked = parser.parse_args()
    if asked.rows <= SMALL or asked.rounds < 1:
        sys.exit(f"--rows must be above {SMALL}, which is measured anyway, and --rounds at least 1")
    return asked


if __name__ == "__main__":
    main()
