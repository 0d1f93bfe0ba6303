"""`python -m benchmarks`: the engine beside a plain script, before a sandbox in a process of its own."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.work import write_rows

# A batch ends with the second look, so that both ways wait for the sandbox's work and not for a clock.
SANDBOX = ("-m", "batchor_engine.sandbox", "--clock", "polls", "--phases", "0,1,0,0")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000, help="how many (default 20000)")
    count = parser.parse_args().rows
    with tempfile.TemporaryDirectory(prefix="batchor-bench-") as place:
        measured = {way: measure(way, Path(place) / way, count) for way in ("naive", "durable")}
    for way, one in measured.items():
        show(way, one)
    ratio = total(measured["durable"]) / total(measured["naive"])
    print(f"durable / naive: {ratio:.2f} (goal 1.0, at first 1.5)")


def measure(way: str, folder: Path, count: int) -> dict[str, Any]:
    """Run one way in a process of its own, before a fresh sandbox."""
    folder.mkdir()
    write_rows(folder / "rows.csv", count)
    with sandbox() as base_url:
        command = [sys.executable, "-m", f"benchmarks.{way}", str(folder), base_url]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    told = json.loads(done.stdout)
    if told["rows"] != count:
        sys.exit(f"{way}: {told['rows']} of {count} rows came back")
    return told


@contextmanager
def sandbox() -> Iterator[str]:
    with subprocess.Popen([sys.executable, *SANDBOX], stdout=subprocess.PIPE, text=True) as serving:
        try:
            assert serving.stdout is not None
            yield serving.stdout.readline().split()[-1]
        finally:
            serving.terminate()


def total(told: dict[str, Any]) -> float:
    return sum(told["seconds"].values())


def show(way: str, told: dict[str, Any]) -> None:
    phases = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in told["seconds"].items())
    print(f"{way}: {told['rows']} rows in {total(told):.2f} s ({phases}); peak {told['peak_mib']:.0f} MiB")
    if "summary_ms" in told:
        print(f"  database {told['database_bytes_per_row']:.0f} bytes a row, summary {told['summary_ms']:.2f} ms")


if __name__ == "__main__":
    main()
