"""`python -m benchmarks.phase WAY PHASE FOLDER BASE_URL`: one phase, in a process that does nothing else."""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path

from benchmarks.work import peak_mib


def main(way: str, phase: str, folder: Path, base_url: str) -> None:
    made = getattr(importlib.import_module(f"benchmarks.ways.{way}"), phase)(folder, base_url)
    print(json.dumps({"cpu_sec": time.process_time(), "peak_mib": peak_mib(), "made": made}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4])
