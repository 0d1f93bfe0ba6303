"""A ring of tests that cannot run is named at the end, and is an error where all must run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run_without_chromium(*options: str) -> subprocess.CompletedProcess[str]:
    return run_on_a_bare_machine(*options, "tests/browser", "-k", "progress")


def run_on_a_bare_machine(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options],
        cwd=ROOT,
        # No chromium and no npm is on an empty path.
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


def test_a_ring_that_needs_a_registry_is_named_and_no_error() -> None:
    said = run_on_a_bare_machine("--all-rings", "tests/acceptance", "-k", "server_of_others")
    assert said.returncode == 0, said.stdout + said.stderr
    assert "! aimock ring could not run: npm and node are not installed" in said.stdout
