"""A ring of tests that cannot run is named at the end, and is an error where all must run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run_without_chromium(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, "tests/browser", "-k", "progress"],
        cwd=ROOT,
        # No chromium is on an empty path.
        env={"PATH": "", "HOME": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_make_test_names_the_ring_that_could_not_run() -> None:
    said = run_without_chromium()
    assert said.returncode == 0, said.stdout + said.stderr
    assert "! browser ring could not run: there is no chromium" in said.stdout


def test_where_all_rings_must_run_it_is_an_error() -> None:
    said = run_without_chromium("--all-rings")
    assert said.returncode == 1
    assert "browser ring could not run: there is no chromium" in said.stdout
