"""Running one phase of one way in a fresh process, before a fresh server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
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
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **(env or {})})
    return Measured(wall_sec=time.perf_counter() - began, **json.loads(done.stdout))
