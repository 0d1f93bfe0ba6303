"""Small dg projects in a folder, as `create-dagster project` lays them out, for tests of the Component."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

COMPONENT = "batchor_dagster.BatchorComponent"
ROWS = "id,text\n1,The lamp stays dark.\n2,Thank you!\n3,Where is my invoice?\n"
DEFINITIONS = """\
from pathlib import Path

import dagster as dg


@dg.definitions
def defs():
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
"""
_numbers = itertools.count()


def attributes(name: str = "triage", **changed: Any) -> dict[str, Any]:
    """A component that loads; a value of None leaves the attribute out."""
    base = {
        "name": name,
        "input": {"files": ["rows.csv"], "id_column": "id"},
        "prompt": "Sort this.\n\n{text}",
        "llm_model": "gpt-5-mini",
        "output_fields": {"topic": {"type": "enum", "values": ["praise", "problem"]}, "urgency": "int"},
        "connection": {
            "store_url": "sqlite:///.batchor/runs.sqlite3",
            "artifacts_url": ".batchor/artifacts",
            "base_url": os.environ.get("TEST_BASE_URL"),
            "api_key_env_var": "OPENAI_API_KEY",
        },
    }
    return {key: value for key, value in {**base, **changed}.items() if value is not None}


@dataclass(frozen=True)
class Project:
    """A project whose modules nobody else in this process has."""

    root: Path
    module: str

    @classmethod
    def create(cls, folder: Path) -> Project:
        project = cls(folder / "project", f"project_{next(_numbers)}")
        project.defs.mkdir(parents=True)
        (project.package / "__init__.py").touch()
        (project.defs / "__init__.py").touch()
        (project.package / "definitions.py").write_text(DEFINITIONS)
        (project.root / "pyproject.toml").write_text(
            f'[project]\nname = "{project.module}"\nversion = "0"\n'
            f'[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "{project.module}"\n'
        )
        return project

    @property
    def package(self) -> Path:
        return self.root / "src" / self.module

    @property
    def defs(self) -> Path:
        return self.package / "defs"

    def add(self, folder: str, *documents: dict[str, Any], kind: str = COMPONENT, rows: str = ROWS) -> Path:
        """A folder with a `defs.yaml` of these attributes, and rows beside it."""
        place = self.defs / folder
        place.mkdir(exist_ok=True)
        (place / "rows.csv").write_text(rows)
        texts = [yaml.safe_dump({"type": kind, "attributes": one}, sort_keys=False) for one in documents]
        (place / "defs.yaml").write_text("---\n".join(texts))
        return place

    def load(self) -> dg.Definitions:
        """The definitions, as a code server loads them; the project is on sys.path."""
        if str(self.root / "src") not in sys.path:
            sys.path.insert(0, str(self.root / "src"))
        return dg.load_from_defs_folder(path_within_project=self.package)

    def dg(self, *words: str) -> subprocess.CompletedProcess[str]:
        """What the `dg` command says, without reporting to anybody."""
        home = self.root / ".home"
        home.mkdir(exist_ok=True)
        (home / "dg.toml").write_text("[cli.telemetry]\nenabled = false\n")
        (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
        bin_folder = Path(sys.executable).parent
        return subprocess.run(
            [str(bin_folder / "dg"), *words],
            cwd=self.root,
            env={
                **os.environ,
                "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
                "PYTHONPATH": str(self.root / "src"),
                "VIRTUAL_ENV": str(bin_folder.parent),
                "DAGSTER_HOME": str(home),
                "DG_CLI_CONFIG": str(home / "dg.toml"),
                "COLUMNS": "300",
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
