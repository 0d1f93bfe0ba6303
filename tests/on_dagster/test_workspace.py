"""The workspace file at the root: Dagster's own commands load it, from a clone's root, green."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from example_project import settings
from example_project.demo.home import Home
from example_project.demo.processes import Processes
from example_project.demo.stage import Ports, open_stage


@pytest.mark.slow
def test_dagster_validates_the_workspace(tmp_path: Path) -> None:
    script = Path(sys.executable).parent / "dagster"
    said = subprocess.run(
        [sys.executable, str(script), "definitions", "validate", "-w", "workspace.yaml"],
        cwd=settings.ROOT,
        env={**os.environ, "DAGSTER_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert said.returncode == 0, said.stdout + said.stderr
    assert "Validation successful for code location example_project" in said.stdout + said.stderr


@pytest.mark.slow
def test_dagster_dev_loads_the_workspace(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "dev")
    processes = Processes(home)
    try:
        # Returns only once every code location is loaded without an error.
        api = open_stage(home, processes, Ports(), with_daemon=True)
        assert api.runs() == []
    finally:
        processes.stop()
        home.close()
