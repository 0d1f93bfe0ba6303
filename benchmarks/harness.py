"""Running one phase of one way in a fresh process, before a fresh server."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.work import Measured


@dataclass(frozen=True)
class Server:
    """A running benchmarks.server."""

    base_url: str

    def open(self) -> None:
        """Let it answer; until then every batch stays in progress."""
        self._get("open")

    def calls(self) -> dict[str, int]:
        """Calls by kind since it began."""
        return self._get("calls")

    def idle(self) -> dict[str, Any]:
        """Wait until every batch has ended; CPU seconds and calls by kind, both since it began."""
        return self._get("idle")

    def _get(self, what: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.base_url.removesuffix('/v1')}/{what}") as answer:
            return json.load(answer)


_COMPILED = tempfile.mkdtemp(prefix="batchor-bench-compiled-")
atexit.register(shutil.rmtree, _COMPILED, ignore_errors=True)


def compiled() -> dict[str, str]:
    """An environment in which Python keeps what it has compiled, as it does where a program is installed."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": _COMPILED}


@contextmanager
def server(folder: Path) -> Iterator[Server]:
    command = [sys.executable, "-m", "benchmarks.server", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as serving:
        try:
            assert serving.stdout is not None
            yield Server(serving.stdout.readline().split()[-1])
        finally:
            serving.terminate()


def phase(way: str, name: str, folder: Path, base_url: str, env: Mapping[str, str] | None = None) -> Measured:
    """One phase in a process of its own, from its start to its end."""
    command = [sys.executable, "-m", "benchmarks.phase", way, name, str(folder), base_url]
    began = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**compiled(), **(env or {})})
    return Measured(wall_sec=time.perf_counter() - began, **json.loads(done.stdout))
