"""docs/component.md: its examples load, and the first one runs as it stands there."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from batchor_engine.sandbox import Phases, SandboxServer
from example_project import settings
from tests.on_dagster.projects import Project
from tests.on_dagster.shop import failure_of

PAGE = (settings.ROOT / "docs" / "component.md").read_text("utf-8")
DAY = "2026-03-02"
TICKETS = """\
import dagster as dg
import pandas as pd

from batchor_dagster import BatchorResource


@dg.asset(key_prefix="shop")
def tickets() -> pd.DataFrame:
    return pd.DataFrame({"ticket_id": ["a"], "body": ["b"]})


@dg.definitions
def shared():
    return dg.Definitions(assets=[tickets], resources={"batchor": BatchorResource(store_url="sqlite:///x.sqlite3")})
"""


def yaml_block(mark: str) -> str:
    found = re.search(re.escape(f"<!-- test: {mark} -->") + r"\n```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert found, mark
    return found[1]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    with SandboxServer(clock="polls", polls=Phases(0, 0, 0, 0)) as server:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        yield Project.create(tmp_path)


def test_the_example_with_files_runs(project: Project, instance: dg.DagsterInstance) -> None:
    folder = project.defs / "triage"
    folder.mkdir()
    (folder / "defs.yaml").write_text(yaml_block("files"))
    (folder / f"{DAY}.csv").write_text('ticket_id,body\nt-1,"The lamp, it stays dark."\nt-2,Where is my invoice?\n')
    defs = project.load()
    spec = defs.resolve_asset_graph().get(dg.AssetKey("triage"))
    assert (spec.group_name, spec.tags["tier"], spec.owners) == ("support", "gold", ["team:support"])
    job = defs.resolve_implicit_global_asset_job_def()
    for name in ("triage_batch", "triage"):
        done = job.execute_in_process(
            asset_selection=[dg.AssetKey(name)], instance=instance, partition_key=DAY, raise_on_error=False
        )
        assert done.success, failure_of(done)
    (event,) = done.asset_materializations_for_node("triage")
    assert event.metadata["dagster/partition_row_count"].value == 2


def test_the_example_with_an_asset_loads(project: Project) -> None:
    (project.defs / "tickets.py").write_text(TICKETS)
    folder = project.defs / "triage"
    folder.mkdir()
    (folder / "defs.yaml").write_text(yaml_block("asset"))
    graph = project.load().resolve_asset_graph()
    assert graph.get(dg.AssetKey("triage_batch")).parent_keys == {dg.AssetKey(["shop", "tickets"])}
    assert graph.get(dg.AssetKey("triage")).group_name == "results"
