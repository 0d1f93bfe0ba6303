"""The Dagster example of the README is run as it stands there."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import dagster as dg
import pytest

from batchor_engine.sandbox import SandboxServer
from example_project import settings

MARK = "<!-- test: dagster-example -->"
README = settings.ROOT / "README.md"


def marked_block(text: str, mark: str) -> str:
    """The Python code block that follows a mark."""
    found = re.search(re.escape(mark) + r"\s*```python\n(.*?)```", text, re.DOTALL)
    assert found, f"README.md has no Python block after {mark}"
    return found[1]


def load_as_module(code: str, folder: Path, name: str) -> ModuleType:
    """The code as a module of a file, as a user would have it, so that its models can be imported again."""
    file = folder / f"{name}.py"
    file.write_text(code)
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    return load_as_module(marked_block(README.read_text(), MARK), tmp_path, "readme_dagster_example")


def test_the_readme_example_runs_from_submission_to_downstream(
    example: ModuleType, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SandboxServer(clock="manual") as sandbox:
        monkeypatch.setenv("OPENAI_BASE_URL", sandbox.base_url)
        job = example.defs.resolve_implicit_global_asset_job_def()
        day = example.days.get_partition_keys()[0]

        def run(*names: str) -> dg.ExecuteInProcessResult:
            keys = [dg.AssetKey(name) for name in names]
            return job.execute_in_process(asset_selection=keys, partition_key=day, instance=instance)

        assert run("tickets", "triage_batch").success
        assert not run("triage").asset_materializations_for_node("triage")
        sandbox.finish()
        assert run("triage", "urgent").asset_materializations_for_node("urgent")
