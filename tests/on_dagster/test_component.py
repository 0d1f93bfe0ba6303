"""A batch job in YAML: what it makes, what it refuses, and that its answers outlive the YAML."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import dagster as dg
import jsonschema
import pytest
import yaml
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster._serdes import serialize_value

from batchor_dagster import BatchorAssetData, BatchorComponent, BatchorResource
from batchor_dagster.component.fields import Connection
from batchor_dagster.component.scaffolder import BatchorScaffolder, ScaffoldParams
from batchor_engine import BatchJob
from batchor_engine.sandbox import Phases, SandboxServer
from tests.on_dagster.projects import COMPONENT, Project, attributes
from tests.on_dagster.shop import failure_of

SECRET = "sk-nobody-may-see-this"
VALIDATOR = jsonschema.Draft202012Validator(BatchorComponent.get_model_cls().model_json_schema())


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer(clock="polls", polls=Phases(0, 0, 0, 0)) as server:
        yield server


@pytest.fixture
def project(tmp_path: Path, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("TEST_BASE_URL", sandbox.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    return Project.create(tmp_path)


def keys(defs: dg.Definitions) -> set[str]:
    return {key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()}


def sensors(defs: dg.Definitions) -> list[str]:
    return [sensor.name for sensor in defs.get_repository_def().sensor_defs]


def jobs(defs: dg.Definitions) -> set[str]:
    return {name for name in defs.get_repository_def().job_names if not name.startswith("__")}


def run(defs: dg.Definitions, *names: str, instance: dg.DagsterInstance, **options: Any) -> dg.ExecuteInProcessResult:
    job = defs.resolve_implicit_global_asset_job_def()
    selection = [dg.AssetKey.from_user_string(name) for name in names]
    return job.execute_in_process(
        asset_selection=selection, instance=instance, raise_on_error=False, resources=None, **options
    )


def engine_run(project: Project) -> str:
    resource = BatchorResource(store_url=f"sqlite:///{project.root / '.batchor/runs.sqlite3'}")
    with closing(resource.runner()) as runner:
        (info,) = runner.find_runs()
    return info.run_id


# --- what it makes


def test_rows_of_a_file_become_typed_answers(project: Project, instance: dg.DagsterInstance) -> None:
    project.add("triage", attributes())
    (project.defs / "reader.py").write_text(
        "import dagster as dg\nimport pandas as pd\n\n\n@dg.asset\ndef read(triage: pd.DataFrame) -> list:\n"
        "    return triage[['item_id', 'status', 'topic', 'urgency']].to_dict('records')\n"
    )
    defs = project.load()
    assert keys(defs) == {"triage_batch", "triage", "read"}
    assert sensors(defs) == ["batchor_polling_sensor"]
    assert run(defs, "triage_batch", instance=instance).success
    assert run(defs, "triage", instance=instance).success
    rows = run(defs, "read", instance=instance).output_for_node("read")
    assert [(row["item_id"], row["status"]) for row in rows] == [(key, "completed") for key in "123"]
    assert {row["topic"] for row in rows} <= {"praise", "problem"}
    assert all(isinstance(row["urgency"], int) for row in rows)


def test_an_upstream_asset_gives_the_rows_in_the_form_that_is_asked_for(
    project: Project, instance: dg.DagsterInstance
) -> None:
    rows = {"asset": "shop/messages", "id_column": "key", "load_as": "pandas"}
    project.add("triage", attributes(input=rows, key_prefix="shop"))
    (project.defs / "messages.py").write_text(
        "import dagster as dg\nimport pandas as pd\n\n\n@dg.asset(key_prefix='shop')\ndef messages() -> pd.DataFrame:\n"
        "    return pd.DataFrame({'key': [7, 8], 'text': ['a', None]})\n"
    )
    defs = project.load()
    done = run(defs, "shop/messages", "shop/triage_batch", instance=instance)
    assert done.success, failure_of(done)
    assert run(defs, "shop/triage", instance=instance).success
    graph = defs.resolve_asset_graph()
    assert graph.get(dg.AssetKey(["shop", "triage_batch"])).parent_keys == {dg.AssetKey(["shop", "messages"])}


def test_a_column_that_the_upstream_value_lacks_is_named(project: Project, instance: dg.DagsterInstance) -> None:
    project.add("triage", attributes(input={"asset": "messages", "id_column": "id"}))
    (project.defs / "messages.py").write_text(
        "import dagster as dg\n\n\n@dg.asset\ndef messages() -> list:\n    return [{'id': 'a', 'body': 'b'}]\n"
    )
    done = run(project.load(), "messages", "triage_batch", instance=instance)
    assert failure_of(done) == "messages has no column 'text': its columns are 'body', 'id'"


@pytest.mark.parametrize(
    ("partitions", "key", "kind"),
    [
        ({"type": "daily", "start_date": "2026-03-02"}, "2026-03-02", dg.DailyPartitionsDefinition),
        ({"type": "static", "partition_keys": ["north", "south"]}, "north", dg.StaticPartitionsDefinition),
        ({"type": "dynamic", "name": "shops"}, "shop-1", dg.DynamicPartitionsDefinition),
    ],
    ids=["daily", "static", "dynamic"],
)
def test_a_partition_reads_its_own_file(
    project: Project, instance: dg.DagsterInstance, partitions: dict[str, Any], key: str, kind: type
) -> None:
    rows = {"files": ["{partition}.csv"], "id_column": "id"}
    folder = project.add("triage", attributes(input=rows, partitions_def=partitions))
    (folder / f"{key}.csv").write_text("id,text\nx,only this\n")
    defs = project.load()
    instance.add_dynamic_partitions("shops", ["shop-1"])
    assert isinstance(defs.resolve_asset_graph().get(dg.AssetKey("triage")).partitions_def, kind)
    done = run(defs, "triage_batch", instance=instance, partition_key=key)
    assert done.success, failure_of(done)
    assert run(defs, "triage", instance=instance, partition_key=key).success
    (folder / f"{key}.csv").unlink()
    failed = run(defs, "triage_batch", instance=instance, partition_key=key)
    assert f"{key}.csv: No such file or directory" in failure_of(failed)


def test_components_of_one_store_share_resource_and_sensor(project: Project) -> None:
    quick = {"minimum_interval_seconds": 10, "running": False}
    project.add("first", attributes("first"), attributes("second", polling_sensor=quick))
    project.add("third", attributes("third", polling_sensor=False))
    defs = project.load()
    (sensor,) = defs.get_repository_def().sensor_defs
    assert sensor.minimum_interval_seconds == 10
    selected = sensor.asset_selection.resolve(defs.resolve_asset_graph())
    assert {key.to_user_string() for key in selected} == {"first", "second"}
    assert jobs(defs) >= {"batchor_pause", "batchor_cancel", "batchor_retry_failed"}


def test_sensor_and_control_jobs_can_be_left_out(project: Project) -> None:
    project.add("triage", attributes(polling_sensor=False, control_jobs=False))
    defs = project.load()
    assert (sensors(defs), jobs(defs)) == ([], set())


def test_the_submission_sensor_is_off_until_somebody_asks_for_it(project: Project) -> None:
    project.add("first", attributes("first"))
    project.add("second", attributes("second", submission_sensor={"max_runs_in_flight": 3}))
    (sensor,) = [one for one in project.load().get_repository_def().sensor_defs if "submission" in one.name]
    assert sensor.default_status is dg.DefaultSensorStatus.STOPPED
    assert sensor.name == "batchor_submission_sensor"


def test_a_range_of_partitions_is_one_run_whose_files_are_read_one_by_one(
    project: Project, instance: dg.DagsterInstance
) -> None:
    days = {"type": "static", "partition_keys": ["a", "b"]}
    rows = {"files": ["{partition}.csv"], "id_column": "id"}
    chosen = attributes(input=rows, partitions_def=days, backfill_policy={"type": "single_run"}, failures_asset=True)
    folder = project.add("triage", chosen)
    for name in ("a", "b"):
        (folder / f"{name}.csv").write_text(f"id,text\n{name}-1,only {name}\n")
    defs = project.load()
    assert keys(defs) == {"triage_batch", "triage", "triage_failures"}
    tags = {"dagster/asset_partition_range_start": "a", "dagster/asset_partition_range_end": "b"}
    done = run(defs, "triage_batch", instance=instance, tags=tags)
    assert done.success, failure_of(done)
    assert engine_run(project)
    delivered = run(defs, "triage", instance=instance, tags=tags).asset_materializations_for_node("triage")
    counts = {one.partition: one.metadata["dagster/partition_row_count"].value for one in delivered}
    assert counts == {"a": 1, "b": 1}


def test_another_store_goes_by_another_resource_key(project: Project) -> None:
    other = {"store_url": "sqlite:///other.sqlite3"}
    project.add("first", attributes("first"))
    project.add("second", attributes("second", connection=other, resource_key="archive"))
    defs = project.load()
    assert sorted(sensors(defs)) == ["archive_polling_sensor", "batchor_polling_sensor"]
    assert set(defs.resources or {}) >= {"batchor", "archive", "batchor_io_manager", "archive_io_manager"}


def test_without_a_connection_the_project_has_the_resource(project: Project) -> None:
    (project.defs / "resources.py").write_text(
        "import dagster as dg\nfrom batchor_dagster import BatchorResource\n\n\n@dg.definitions\ndef shared():\n"
        "    return dg.Definitions(resources={'batchor': BatchorResource(store_url='sqlite:///x.sqlite3')})\n"
    )
    folder = project.add("triage", attributes())
    text = (folder / "defs.yaml").read_text()
    (folder / "defs.yaml").write_text(text[: text.index("  connection:")])
    dg.Definitions.validate_loadable(project.load())


def test_the_fields_of_the_yaml_reach_the_assets(project: Project) -> None:
    project.add(
        "triage",
        attributes(
            description="Sorts messages.",
            owners=["team:support"],
            tags={"tier": "gold"},
            group_name="support",
            checks={"max_failure_rate": 0.2, "blocking": True},
            translation={
                "description": "{{ data.llm_model }}: {{ spec.key.path[-1] }}",
                "tags": {"role": "{{ data.role.value }}"},
            },
        ),
    )
    graph = project.load().resolve_asset_graph()
    batch, results = (graph.get(dg.AssetKey(name)) for name in ("triage_batch", "triage"))
    assert (batch.group_name, results.group_name) == ("support", "support")
    assert results.owners == ["team:support"]
    assert {"tier": "gold", "role": "results"}.items() <= results.tags.items()
    assert {"tier": "gold", "role": "batch"}.items() <= batch.tags.items()
    assert results.description == "gpt-5-mini: triage"
    check = graph.get_check_spec(dg.AssetCheckKey(dg.AssetKey("triage"), "failure_rate"))
    assert check.blocking
    assert "20.0%" in check.description


def test_post_processing_works_on_both_assets(project: Project) -> None:
    folder = project.add("triage", attributes())
    with (folder / "defs.yaml").open("a") as stream:
        stream.write("post_processing:\n  assets:\n    - attributes:\n        group_name: night\n")
    graph = project.load().resolve_asset_graph()
    assert {graph.get(dg.AssetKey(name)).group_name for name in ("triage_batch", "triage")} == {"night"}


class Shouting(BatchorComponent):
    """Changes what a subclass may change."""

    def execute(self, context: dg.AssetExecutionContext, items: Any) -> BatchJob[Any, Any]:
        context.log.info(f"asked by {context.run.run_id}")
        job = super().execute(context, items)
        return BatchJob(job.items, lambda item: item.payload["text"].upper(), job.provider_config)

    def get_asset_spec(self, data: BatchorAssetData) -> dg.AssetSpec:
        return super().get_asset_spec(data).replace_attributes(group_name="loud")


def test_a_subclass_changes_job_and_specs(
    project: Project, instance: dg.DagsterInstance, sandbox: SandboxServer
) -> None:
    project.add("triage", attributes(), kind=f"{__name__}.Shouting", rows="id,text\n1,very quiet\n")
    defs = project.load()
    assert {defs.resolve_asset_graph().get(dg.AssetKey(name)).group_name for name in keys(defs)} == {"loud"}
    done = run(defs, "triage_batch", instance=instance)
    assert done.success, failure_of(done)
    sent = b"".join(path.read_bytes() for path in (project.root / ".batchor/artifacts").rglob("*.jsonl"))
    assert b"VERY QUIET" in sent


# --- models whose fields stand in YAML

READ = """
import json, sys
from contextlib import closing
from batchor_engine import BatchRunner
with closing(BatchRunner(storage=sys.argv[1])) as runner:
    run = runner.get_run(sys.argv[2])
    run.wait(timeout=60)
    print(json.dumps([[type(one.output).__name__, one.output.model_dump()] for one in run.results()]))
"""


def test_a_fresh_process_collects_and_reads_without_definitions_after_the_yaml_has_changed(
    project: Project, instance: dg.DagsterInstance, sandbox: SandboxServer
) -> None:
    project.add("triage", attributes())
    assert run(project.load(), "triage_batch", instance=instance).success
    # Paid and not yet collected: whoever collects it needs the model of that day.
    project.add("triage", attributes(output_fields={"other": "str"}))
    url = f"sqlite:///{project.root / '.batchor/runs.sqlite3'}"
    said = subprocess.run(
        [sys.executable, "-c", READ, url, engine_run(project)],
        env={**os.environ, "OPENAI_BASE_URL": sandbox.base_url},
        cwd=project.root,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert said.returncode == 0, said.stderr
    rows = json.loads(said.stdout)
    assert [name for name, _ in rows] == ["Triage"] * 3
    assert {tuple(sorted(output)) for _, output in rows} == {("topic", "urgency")}


# --- what it refuses

BAD: dict[str, tuple[dict[str, Any], str, bool]] = {
    "a mistyped key": ({"lllm_model": "x"}, "attributes.lllm_model at", True),
    "a mistyped key below": ({"input": {"files": ["rows.csv"], "id_colum": "id"}}, "id_colum at", True),
    "a wrong type": ({"max_attempts": [3]}, "attributes.max_attempts", True),
    "a word for a number": ({"max_attempts": "many"}, "max_attempts", False),
    "a number out of range": ({"max_attempts": 0}, "max_attempts must be greater than 0", False),
    "an unknown threshold": ({"checks": {"max_failure_rat": 0.1}}, "max_failure_rat at", True),
    "an unknown sensor option": ({"polling_sensor": {"interval": 3}}, "attributes.polling_sensor", True),
    "an interval of nothing": ({"polling_sensor": {"minimum_interval_seconds": 0}}, "must be above 0", False),
    "an unknown translation": ({"translation": {"group": "x"}}, "AssetTranslationModel.group at", True),
    "an unknown kind of field": ({"output_fields": {"a": {"type": "enumm"}}}, ".a.type at", True),
    "an enum without values": ({"output_fields": {"a": {"type": "enum"}}}, "type enum needs values", False),
    "values without an enum": (
        {"output_fields": {"a": {"type": "str", "values": ["x"]}}},
        "belongs to type enum",
        False,
    ),
    "an impossible field name": ({"output_fields": {"model_dump": "str"}}, "'model_dump' cannot be the name", False),
    "no field at all": ({"output_fields": {}}, "at least one field", False),
    "unknown partitions": ({"partitions_def": {"type": "dayly"}}, "attributes.partitions_def", True),
    "an unknown endpoint": ({"endpoint": "/v1/images"}, "endpoint", False),
    "an unknown on_pending": ({"on_pending": "sleep"}, "on_pending", False),
    "an open brace": ({"prompt": "Sort {text"}, "the '{' at character 6 has no partner", False),
    "a prompt without column": ({"prompt": "Sort"}, "names no {column}", False),
    "a column the file lacks": ({"prompt": "Sort {body}"}, "rows.csv has no column 'body'", False),
    "a missing file": ({"input": {"files": ["no.csv"], "id_column": "id"}}, "no.csv: No such file", False),
    "another kind of file": ({"input": {"files": ["rows.txt"], "id_column": "id"}}, "rows.txt is none of .csv", False),
    "no input": ({"input": {"id_column": "id"}}, "one of files and asset", False),
    "two inputs": (
        {"input": {"files": ["rows.csv"], "asset": "a", "id_column": "id"}},
        "one of files and asset",
        False,
    ),
    "an unknown placeholder": ({"input": {"files": ["{day}.csv"], "id_column": "id"}}, "{day}.csv holds {day}", False),
    "a placeholder without partitions": (
        {"input": {"files": ["{partition}.csv"], "id_column": "id"}},
        "there is no partitions_def",
        False,
    ),
    "partitions of the same rows": (
        {"partitions_def": {"type": "static", "partition_keys": ["a"]}},
        "every partition would read the same rows",
        False,
    ),
    "a module that is not there": ({"output_model": "nowhere:Triage"}, "cannot import 'nowhere'", False),
    "a class that is not there": ({"output_model": "json:Triage"}, "json has no Pydantic model 'Triage'", False),
    "a class without module": ({"output_model": "Triage"}, "'Triage' is not module:Class", False),
    "two models": ({"output_model": "example_project.models:Entity"}, "one of output_model and output_fields", False),
    "no store": (
        {"connection": {"base_url": "http://127.0.0.1:1/v1"}},
        "one of store_url and store_url_env_var",
        False,
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_mistake_is_found_when_definitions_load_and_says_where(project: Project, name: str) -> None:
    change, complaint, by_schema = BAD[name]
    wrong = attributes(**change)
    folder = project.add("triage", wrong)
    with pytest.raises(Exception, match="Error while") as caught:
        project.load().get_repository_def()
    causes = [str(error) for error in chain(caught.value)]
    assert any(complaint in text for text in causes), causes
    assert any(str(folder / "defs.yaml") in text or "triage" in text for text in causes)
    # What a schema can say, `dg check yaml` says too.
    assert bool(list(VALIDATOR.iter_errors(wrong))) == by_schema


def chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


@pytest.mark.parametrize(
    "connection",
    [
        {"store_url": "sqlite:///x", "api_key_env_var": SECRET},
        {"store_url": f"postgresql+psycopg://me:{SECRET}@localhost/db"},
    ],
    ids=["key", "password"],
)
def test_a_secret_in_the_place_of_its_variable_is_refused_and_not_repeated(connection: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="environment variable") as caught:
        Connection(**connection)
    assert SECRET not in str(caught.value)


def test_secrets_are_not_in_the_snapshot(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE_WITH_PASSWORD", f"postgresql+psycopg://me:{SECRET}@localhost/db")
    project.add("triage", attributes())
    project.add(
        "archive",
        attributes("archive", resource_key="archive", connection={"store_url_env_var": "STORE_WITH_PASSWORD"}),
    )
    text = serialize_value(RepositorySnap.from_def(project.load().get_repository_def()))
    assert "OPENAI_API_KEY" in text
    assert "STORE_WITH_PASSWORD" in text
    assert SECRET not in text


# --- the dg command


@pytest.mark.slow
def test_a_scaffolded_component_passes_every_check_at_once(project: Project) -> None:
    listed = project.dg("list", "components", "--json")
    assert "batchor_dagster.BatchorComponent" in listed.stdout, listed.stderr
    made = project.dg("scaffold", "defs", "batchor_dagster.BatchorComponent", "messages", "--llm-model", "gpt-5")
    assert made.returncode == 0, made.stderr
    checked = project.dg("check", "defs")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "All component YAML validated successfully" in checked.stdout
    assert "All definitions loaded successfully" in checked.stdout
    shown = project.dg("list", "defs", "--json")
    assert '"messages_batch"' in shown.stdout
    assert SECRET not in shown.stdout


@pytest.mark.slow
def test_dg_is_red_where_it_should_be(project: Project) -> None:
    folder = project.add("triage", attributes(lllm_model="x"))
    told = project.dg("check", "yaml")
    assert told.returncode == 1
    assert f"{folder / 'defs.yaml'}" in told.stdout + told.stderr
    assert "'lllm_model' was unexpected" in told.stdout + told.stderr
    project.add("triage", attributes(input={"files": ["gone.csv"], "id_column": "id"}))
    told = project.dg("check", "defs")
    assert told.returncode == 1
    assert "gone.csv: No such file or directory" in told.stdout + told.stderr


def test_scaffolding_takes_an_input_of_its_own(project: Project) -> None:
    folder = project.defs / "sorted messages"
    folder.mkdir()
    params = ScaffoldParams(input_asset="shop/messages", id_column="key", prompt="Sort {body}")
    request = dg.ScaffoldRequest(COMPONENT, folder, "yaml", project.root, params)
    BatchorScaffolder().scaffold(request)
    written = yaml.safe_load((folder / "defs.yaml").read_text())["attributes"]
    assert written["name"] == "sorted_messages"
    assert written["input"] == {"asset": "shop/messages", "id_column": "key"}
    assert not (folder / "rows.csv").exists()
    assert list(VALIDATOR.iter_errors(written)) == []


def test_scaffolding_needs_the_prompt_that_fits_the_rows() -> None:
    with pytest.raises(ValueError, match="give --prompt with the columns"):
        ScaffoldParams(input_file="tickets.csv")
    with pytest.raises(ValueError, match="one of --input-file and --input-asset"):
        ScaffoldParams(input_file="a.csv", input_asset="a", prompt="{a}")
