"""From a CSV file to typed rows: the engine beside two scripts that forget everything when they die."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import phase, server
from benchmarks.work import BESIDE, Measured, write_rows

# The phases that every way has, and whose times are compared.
COMPARED = ("submit", "collect", "read")
LIST_PHASE = "results_list"
OURS = ("parquet", "export", LIST_PHASE)
# results() is a list by contract: of a million answers of 2 KB it would be measured by its swapping.
LARGEST_LIST = 200_000


@dataclass(frozen=True)
class Walk:
    """What one way took for `rows` rows; `server_cpu_sec` is the server's own, and is in no phase's CPU.

    `in_turns` is how many times as long looks at it took as at a small run, in alternation; empty where not asked for.
    """

    way: str
    rows: int
    phases: dict[str, Measured]
    server_cpu_sec: float
    calls: dict[str, int]
    stored: dict[str, float]
    in_turns: dict[str, float]

    def total(self, what: str = "wall_sec") -> float:
        return sum(getattr(self.phases[name], what) for name in COMPARED)

    def told(self) -> dict[str, Any]:
        return asdict(self)


def walk(
    way: str,
    rows: int,
    folder: Path,
    *,
    label: str | None = None,
    env: Mapping[str, str] | None = None,
    beside: int | None = None,
) -> Walk:
    """All phases of one way; the rows that come back are counted. With `beside`, also compared with a run so small."""
    folder.mkdir(parents=True)
    write_rows(folder / "rows.csv", rows)
    phases: dict[str, Measured] = {}
    in_turns: dict[str, float] = {}
    with server(folder) as serving:
        for name in ("submit", "look", "collect", "read", *OURS) if way == "durable" else COMPARED:
            if name == LIST_PHASE and rows > LARGEST_LIST:
                continue
            if name == "collect":
                # What the server needs for its answers is nobody's waiting.
                serving.open()
                serving.idle()
            phases[name] = phase(way, name, folder, serving.base_url, env)
            if name == "look" and beside is not None:
                in_turns = _look_in_turns(folder, serving.base_url, beside)
        told = serving.idle()
    for name in ("collect", "read"):
        if phases[name].made["rows"] != rows:
            raise SystemExit(f"{way}: {phases[name].made['rows']} of {rows} rows came out of {name}")
    stored = _stored(folder, rows) if way == "durable" else {}
    shutil.rmtree(folder)
    return Walk(label or way, rows, phases, told["cpu_seconds"], told["calls"], stored, in_turns)


def _look_in_turns(folder: Path, base_url: str, rows: int) -> dict[str, float]:
    small = folder / BESIDE
    small.mkdir()
    write_rows(small / "rows.csv", rows)
    # Two servers, because each run is alone on its account.
    with server(small) as serving:
        phase("durable", "submit", small, serving.base_url)
        found = phase("durable", "look_in_turns", folder, base_url, {"BATCHOR_BENCH_BESIDE": serving.base_url})
    return found.made


def _stored(folder: Path, rows: int) -> dict[str, float]:
    places = {
        "database": folder.glob("runs.sqlite3*"),
        "requests": folder.glob("artifacts/**/requests/*"),
        "raw outputs": folder.glob("artifacts/**/outputs/*"),
        "results": folder.glob("artifacts/**/results/*"),
    }
    return {name: sum(os.path.getsize(one) for one in files) / rows for name, files in places.items()}
