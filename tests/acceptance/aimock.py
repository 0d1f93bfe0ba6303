"""Another implementation of the Batch API: @copilotkit/aimock from the npm registry, on a free port of this machine."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGE = "@copilotkit/aimock@1.43.0"
FIXTURE = {"fixtures": [{"match": {"userMessage": "hello"}, "response": {"content": "unused by batches"}}]}


class RingCannotRunError(Exception):
    """A ring of tests needs something that this machine does not have."""


@contextmanager
def aimock(folder: Path) -> Iterator[str]:
    """Install and serve it below `folder`; the base URL. RingCannotRunError where npm or its registry is not there."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise RingCannotRunError("npm and node are not installed")
    words = [npm, "install", "--no-audit", "--no-fund", "--prefer-offline", "--prefix", str(folder), PACKAGE]
    installed = subprocess.run(words, capture_output=True, text=True, timeout=120)
    if installed.returncode:
        raise RingCannotRunError(f"npm cannot install {PACKAGE}: {installed.stderr.strip()[-300:]}")
    (folder / "fixtures").mkdir()
    (folder / "fixtures" / "one.json").write_text(json.dumps(FIXTURE))
    (folder / "config.json").write_text(json.dumps({"llm": {"fixtures": "./fixtures"}}))
    server = subprocess.Popen(
        [folder / "node_modules" / ".bin" / "aimock", "-c", "config.json", "-p", "0"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with server:
        try:
            assert server.stdout is not None
            said = server.stdout.readline()
            assert "listening on http://127.0.0.1:" in said, said
            yield said.split()[-1] + "/v1"
        finally:
            server.terminate()
