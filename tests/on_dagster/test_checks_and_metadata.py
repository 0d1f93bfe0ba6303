"""What one sees of a run: the check, the columns, the keys; and what one must never see: the secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster._serdes import serialize_value

from batchor_dagster import (
    BatchorChecks,
    BatchorJobParts,
    BatchorMetadataSet,
    BatchorResource,
    build_batchor_assets,
    build_batchor_definitions,
)
from batchor_dagster.columns import column_schema
from batchor_engine import OpenAIEndpoint, OpenAIProviderConfig
from example_project.models import TicketTriage
from tests.on_dagster.shop import FOUR_ROWS, Shop, materialized, tickets_asset, triage_assets


def finished(shop: Shop, **options: object) -> dg.Definitions:
    defs = shop.definitions([tickets_asset(FOUR_ROWS), triage_assets(**options)])
    shop.materialize(defs, "tickets", "triage_batch")
    shop.sandbox.finish()
    return defs


@pytest.mark.parametrize(("allowed", "passed"), [(0.25, True), (0.2, False), (0.0, False), (1.0, True)])
def test_the_check_fails_above_its_share_of_failed_rows(shop: Shop, allowed: float, passed: bool) -> None:
    (check,) = shop.materialize(
        finished(shop, checks=BatchorChecks(max_failure_rate=allowed)), "triage"
    ).get_asset_check_evaluations()
    assert check.passed is passed
    assert check.description == f"1 of 4 rows failed for good (25.0%); at most {allowed:.1%} allowed"


def test_a_blocking_check_stops_what_is_downstream(shop: Shop) -> None:
    @dg.asset
    def reader(triage: list) -> None: ...

    defs = shop.definitions(
        [tickets_asset(FOUR_ROWS), triage_assets(checks=BatchorChecks(max_failure_rate=0.0, blocking=True)), reader]
    )
    shop.materialize(defs, "tickets", "triage_batch")
    shop.sandbox.finish()
    result = shop.materialize(defs, "triage", "reader")
    assert materialized(result, "triage")
    assert not materialized(result, "reader")


def test_the_check_runs_alone(shop: Shop) -> None:
    defs = finished(shop)
    job = dg.define_asset_job("only_check", selection=dg.AssetSelection.checks_for_assets("triage"))
    job_def = dg.Definitions.merge(defs, dg.Definitions(jobs=[job])).resolve_job_def("only_check")
    result = job_def.execute_in_process(instance=shop.instance)
    assert [check.check_name for check in result.get_asset_check_evaluations()] == ["failure_rate"]
    assert materialized(result, "triage") == []


def test_the_column_schema_comes_from_the_model() -> None:
    columns = {column.name: column for column in column_schema(TicketTriage).columns}
    assert list(columns)[:5] == ["item_id", "status", "attempt_count", "error_class", "error_message"]
    assert columns["refund_eur"].constraints.nullable
    assert columns["summary"].description == "One sentence of at most 120 characters (null only in failed rows)"
    assert "null only" not in (columns["refund_eur"].description or "")
    assert "output_text" in {column.name for column in column_schema(None).columns}


def test_the_column_schema_of_vectors_comes_from_the_endpoint() -> None:
    config = OpenAIProviderConfig(model="text-embedding-3-small", endpoint=OpenAIEndpoint.EMBEDDINGS)
    parts = BatchorJobParts(items=[], build_prompt=lambda row: row.payload, provider_config=config)
    _, results = build_batchor_assets(name="vectors", parts=parts)
    schema = results.metadata_by_key[results.key]["dagster/column_schema"]
    assert {column.name: column.type for column in schema.columns}["embedding"] == "list<float32>"


def test_the_uri_is_the_folder_of_the_run(shop: Shop) -> None:
    (event,) = materialized(shop.materialize(finished(shop), "triage"), "triage")
    place = Path(str(event.metadata["dagster/uri"].value))
    assert place.name == shop.infos()[0].run_id
    assert (place / "requests").is_dir()


def test_the_launchpad_says_in_one_sentence_what_the_resource_is() -> None:
    assert "\n" not in (BatchorResource.__doc__ or "\n")


def test_metadata_is_namespaced_and_reads_back() -> None:
    told = BatchorMetadataSet(run_id="r", rows=3, hours_at_provider=0.5)
    assert dict(told) == {"batchor/run_id": "r", "batchor/rows": 3, "batchor/hours_at_provider": 0.5}
    event = dg.AssetMaterialization("a", metadata={**told, "other": 1})
    assert BatchorMetadataSet.extract(event.metadata) == told


def test_the_key_is_neither_printed_nor_in_the_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_KEY", "sk-very-secret")
    batchor = BatchorResource(store_url="sqlite:///runs.sqlite3", api_key=dg.EnvVar("SHOP_KEY"))
    defs = build_batchor_definitions(assets=[tickets_asset(FOUR_ROWS), triage_assets()], resources={"batchor": batchor})
    job = defs.resolve_implicit_global_asset_job_def()
    assert "sk-very-secret" not in str(job.get_job_snapshot())
    assert "sk-very-secret" not in repr(batchor)
    literal = BatchorResource(store_url="sqlite:///runs.sqlite3", api_key="sk-very-secret")
    assert "sk-very-secret" not in repr(literal)
    assert "sk-very-secret" not in str(literal)


def test_named_variables_reach_the_connection_and_their_values_no_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_KEY", "sk-very-secret")
    monkeypatch.setenv("GATEWAY_TOKEN", "token-very-secret")
    batchor = BatchorResource(
        store_url="sqlite:///runs.sqlite3", api_key_env="SHOP_KEY", header_env={"x-gateway": "GATEWAY_TOKEN"}
    )
    defs = build_batchor_definitions(assets=[tickets_asset(FOUR_ROWS), triage_assets()], resources={"batchor": batchor})
    told = serialize_value(RepositorySnap.from_def(defs.get_repository_def()))
    assert {name: name in told for name in ("SHOP_KEY", "GATEWAY_TOKEN")} == {"SHOP_KEY": True, "GATEWAY_TOKEN": True}
    assert "very-secret" not in told + repr(batchor) + str(batchor)
    connection = batchor.runner().host.connection
    assert (connection.api_key_env, connection.header_env) == ("SHOP_KEY", {"x-gateway": "GATEWAY_TOKEN"})


@pytest.mark.parametrize("pasted", [{"api_key_env": "sk-very-secret"}, {"header_env": {"x-gateway": "sk-very-secret"}}])
def test_a_secret_pasted_for_a_variables_name_is_refused_and_not_repeated(pasted: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must name an environment variable") as caught:
        BatchorResource(store_url="sqlite:///runs.sqlite3", **pasted)
    assert "very-secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["memory", "sqlite://", "sqlite:///", "sqlite+pysqlite://"])
def test_a_store_that_would_forget_what_was_paid_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="store in memory, which would forget"):
        BatchorResource(store_url=url)
    monkeypatch.setenv("SHOP_STORE", url)
    deferred = {"batchor": BatchorResource(store_url=dg.EnvVar("SHOP_STORE"))}
    with pytest.raises(dg.DagsterError) as caught, dg.build_resources(deferred):
        pass
    assert "store in memory, which would forget" in str(caught.value.__cause__)


def test_definitions_need_the_resource() -> None:
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="under the key 'batchor'"):
        build_batchor_definitions(assets=[triage_assets()], resources={})


def test_definitions_can_be_loaded_and_checked() -> None:
    batchor = BatchorResource(store_url="sqlite:///runs.sqlite3")
    defs = build_batchor_definitions(assets=[tickets_asset(FOUR_ROWS), triage_assets()], resources={"batchor": batchor})
    dg.Definitions.validate_loadable(defs)
