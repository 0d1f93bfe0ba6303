"""`python -m benchmarks.phase WAY PHASE FOLDER BASE_URL`: one phase, measured in a process of its own."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from benchmarks.work import measured


def main(way: str, phase: str, folder: Path, base_url: str) -> None:
    act = getattr(importlib.import_module(f"benchmarks.ways.{way}"), phase)
    print(json.dumps(measured(lambda: act(folder, base_url)).told()))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4])
