"""Where a component's rows go besides its store: another server, another account, another IO manager."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
import pytest
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster._serdes import serialize_value

from batchor_dagster.component.fields import Connection, Server, SubmissionSensor
from batchor_dagster.component.store import most_careful
from batchor_engine.sandbox import Phases, SandboxServer
from tests.on_dagster.projects import Project, attributes
from tests.on_dagster.shop import failure_of

SECRET = "sk-nobody-may-see-this"
AT_ONCE = Phases(0, 0, 0, 0)


@pytest.fixture
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer(clock="polls", polls=AT_ONCE) as server:
        yield server


@pytest.fixture
def project(tmp_path: Path, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("TEST_BASE_URL", sandbox.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    return Project.create(tmp_path)


def run(defs: dg.Definitions, name: str, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    job = defs.resolve_implicit_global_asset_job_def()
    return job.execute_in_process(
        asset_selection=[dg.AssetKey(name)], instance=instance, raise_on_error=False, resources=None
    )


def test_a_component_may_have_a_server_and_a_key_of_its_own(
    project: Project, instance: dg.DagsterInstance, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SandboxServer(clock="polls", polls=AT_ONCE) as other:
        own = {"base_url": other.base_url, "api_key_env_var": "OTHER_KEY", "header_env_vars": {"x-team": "TEAM"}}
        project.add("triage", attributes(server=own))
        defs = project.load()
        monkeypatch.setenv("TEAM", "support")
        # The connection's key never takes the place of the one that is named.
        refused = run(defs, "triage_batch", instance)
        assert "OTHER_KEY is not set" in failure_of(refused)
        assert (len(other.batches()), len(sandbox.batches())) == (0, 0)
        monkeypatch.setenv("OTHER_KEY", f"{SECRET}-either")
        done = run(defs, "triage_batch", instance)
        assert done.success, failure_of(done)
        assert (len(other.batches()), len(sandbox.batches())) == (1, 0)
    text = serialize_value(RepositorySnap.from_def(defs.get_repository_def()))
    assert SECRET not in text


def test_headers_of_the_connection_are_read_from_their_variables(
    project: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = attributes()
    project.add("triage", attributes(connection={**base["connection"], "header_env_vars": {"x-team": "TEAM"}}))
    defs = project.load()
    assert "TEAM is not set" in failure_of(run(defs, "triage_batch", instance))
    monkeypatch.setenv("TEAM", "support")
    assert run(defs, "triage_batch", instance).success


@pytest.mark.parametrize("made", [Server, Connection])
@pytest.mark.parametrize("pasted", [{"api_key_env_var": SECRET}, {"header_env_vars": {"api-key": SECRET}}])
def test_a_secret_in_the_place_of_its_variable_is_refused_and_not_repeated(made: type, pasted: dict[str, Any]) -> None:
    rest = {"store_url": "sqlite:///x"} if made is Connection else {}
    with pytest.raises(ValueError, match="environment variable") as caught:
        made(**rest, **pasted)
    assert SECRET not in str(caught.value)


def test_an_io_manager_of_the_project_stores_the_rows_once_more(project: Project, instance: dg.DagsterInstance) -> None:
    project.add("triage", attributes(io_manager_key="frames", io_manager_value="arrow"))
    file = project.root / "stored.parquet"
    (project.defs / "frames.py").write_text(
        "import dagster as dg\nimport pyarrow.parquet as pq\n\n\n"
        "class Frames(dg.IOManager):\n"
        "    def handle_output(self, context, obj):\n"
        f"        pq.write_table(obj.select(['item_id', 'status']), {str(file)!r})\n\n"
        "    def load_input(self, context):\n        raise NotImplementedError\n\n\n"
        "@dg.definitions\ndef frames():\n    return dg.Definitions(resources={'frames': Frames()})\n"
    )
    defs = project.load()
    assert run(defs, "triage_batch", instance).success
    done = run(defs, "triage", instance)
    assert done.success, failure_of(done)
    assert pq.read_table(file).to_pylist() == [{"item_id": key, "status": "completed"} for key in "123"]


def test_the_most_careful_component_of_a_store_rules_what_is_submitted() -> None:
    bold = SubmissionSensor(max_runs_in_flight=9, running=True, on_upstream_update="resubmit")
    careful = SubmissionSensor(max_runs_in_flight=2)
    assert most_careful([bold]) == bold
    assert most_careful([bold, careful]) == most_careful([careful, bold]) == careful
