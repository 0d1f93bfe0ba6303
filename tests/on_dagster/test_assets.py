"""The two assets of a batch job, run in this process against a sandbox over a socket."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest

from batchor_dagster import BatchorMetadataSet, batchor_assets
from batchor_engine import BatchJob
from batchor_engine.sandbox import SandboxServer
from example_project.models import Sentiment, TicketTriage
from tests.on_dagster.shop import (
    DAY,
    FOUR_ROWS,
    NEXT_DAY,
    Shop,
    days,
    failure_of,
    job_for,
    materialized,
    tickets_asset,
    triage_assets,
)


class Limits(dg.Config):
    first: int = 2


class Greeter(dg.ConfigurableResource):
    word: str


def test_submission_ends_without_waiting_for_answers(shop: Shop) -> None:
    result = shop.materialize(shop.definitions(), "tickets", "triage_batch")
    told = BatchorMetadataSet.extract(materialized(result, "triage_batch")[0].metadata)
    assert (told.rows, told.batches, told.request_files) == (4, 1, 1)
    assert told.estimated_input_tokens
    assert told.estimated_cost_usd
    assert told.results == dg.MetadataValue.asset(dg.AssetKey("triage"))
    assert [batch["status"] for batch in shop.sandbox.batches()] == ["validating"]


def test_result_asset_yields_nothing_while_the_provider_works(shop: Shop) -> None:
    result = shop.materialize(shop.definitions(), "tickets", "triage_batch", "triage")
    assert result.success
    assert materialized(result, "triage") == []
    assert not result.get_asset_check_evaluations()


def test_result_asset_says_which_sensor_will_materialize_it(shop: Shop, capfd: pytest.CaptureFixture[str]) -> None:
    shop.materialize(shop.definitions(), "tickets", "triage_batch", "triage")
    assert "Sensor 'batchor_polling_sensor' materializes triage" in capfd.readouterr().err


@pytest.mark.every_store
def test_result_asset_materializes_when_the_run_has_ended(shop: Shop) -> None:
    defs = shop.definitions()
    shop.materialize(defs, "tickets", "triage_batch")
    shop.sandbox.finish()
    result = shop.materialize(defs, "triage")
    told = BatchorMetadataSet.extract(materialized(result, "triage")[0].metadata)
    assert (told.rows, told.completed, told.failed, told.attempts) == (4, 3, 1, 4)
    assert told.input_tokens
    assert told.output_tokens
    assert told.failure_classes
    assert [(row.data["error_class"], row.data["rows"]) for row in told.failure_classes.records] == [("refusal", 1)]
    assert told.preview
    assert [record.data["item_id"] for record in told.preview.records] == ["a", "b", "c", "d"]


def test_materializing_results_again_pays_nothing(shop: Shop) -> None:
    defs = shop.definitions()
    shop.materialize(defs, "tickets", "triage_batch")
    shop.sandbox.finish()
    first = shop.materialize(defs, "triage")
    again = shop.materialize(defs, "triage")
    assert len(materialized(first, "triage")) == len(materialized(again, "triage")) == 1
    assert shop.paid_lines() == 4


def test_materializing_the_batch_again_is_a_new_generation(shop: Shop) -> None:
    defs = shop.definitions()
    shop.materialize(defs, "tickets", "triage_batch")
    shop.materialize(defs, "triage_batch")
    generations = {info.labels["generation"] for info in shop.infos()}
    assert len(generations) == len(shop.infos()) == 2


def test_a_later_generation_keeps_an_earlier_one_from_materializing(shop: Shop) -> None:
    defs = shop.definitions()
    shop.materialize(defs, "tickets", "triage_batch")
    earlier = shop.infos()[0].run_id
    shop.materialize(defs, "triage_batch")
    shop.sandbox.finish()
    result = shop.materialize(defs, "triage", tags={"batchor/run_id": earlier})
    assert result.success
    assert materialized(result, "triage") == []
    assert next(info for info in shop.infos() if info.run_id == earlier).is_finished


def test_the_same_backfill_never_makes_a_second_engine_run(shop: Shop) -> None:
    defs = shop.definitions()
    shop.materialize(defs, "tickets", "triage_batch", tags={"dagster/backfill": "first"})
    reexecuted = {"dagster/backfill": "second", "dagster/root_backfill_id": "first"}
    shop.materialize(defs, "triage_batch", tags=reexecuted)
    assert len(shop.infos()) == 1
    assert len(shop.sandbox.batches()) == 1


def test_partitions_have_runs_of_their_own(shop: Shop) -> None:
    defs = shop.definitions([tickets_asset(FOUR_ROWS, days), triage_assets(partitions_def=days)])
    for day in (DAY, NEXT_DAY):
        shop.materialize(defs, "tickets", "triage_batch", partition_key=day)
    shop.sandbox.finish()
    result = shop.materialize(defs, "triage", partition_key=DAY)
    assert materialized(result, "triage")[0].partition == DAY
    assert {info.labels["partition"] for info in shop.infos()} == {DAY, NEXT_DAY}
    assert {info.labels["partition"]: info.is_finished for info in shop.infos()}[NEXT_DAY] is False


def test_a_pending_run_turns_red_when_asked_to(shop: Shop) -> None:
    defs = shop.definitions([tickets_asset(FOUR_ROWS), triage_assets(on_pending="fail")])
    result = shop.materialize(defs, "tickets", "triage_batch", "triage")
    assert not result.success
    assert "is not finished: 0 of 4 rows answered" in failure_of(result)


def test_a_run_that_the_sensor_asked_for_is_not_red_while_batches_are_missing(shop: Shop) -> None:
    defs = shop.definitions([tickets_asset(FOUR_ROWS), triage_assets(on_pending="fail")])
    shop.materialize(defs, "tickets", "triage_batch")
    assert shop.materialize(defs, "triage", tags={"batchor/sensor": "batchor_polling_sensor"}).success


def test_reading_the_same_outcome_again_keeps_the_data_version(shop: Shop) -> None:
    defs = shop.definitions()
    shop.materialize(defs, "tickets", "triage_batch")
    shop.sandbox.finish()
    events = [materialized(shop.materialize(defs, "triage"), "triage")[0] for _ in range(2)]
    versions = {event.tags["dagster/data_version"] for event in events if event.tags}
    assert len(versions) == 1


def test_a_run_id_of_another_asset_is_refused(shop: Shop) -> None:
    defs = shop.definitions([tickets_asset(FOUR_ROWS), triage_assets(), triage_assets(name="other")])
    shop.materialize(defs, "tickets", "triage_batch", "other_batch")
    stray = next(info.run_id for info in shop.infos() if info.labels["asset"] == "other")
    result = shop.materialize(defs, "triage", tags={"batchor/run_id": stray})
    assert failure_of(result) == f"Run {stray} does not belong to triage."


def test_waiting_holds_the_worker_until_the_run_has_ended(shop: Shop) -> None:
    with SandboxServer(clock="polls", responder="example_project.responder:respond") as quick:
        busy = Shop(quick, shop.instance, shop.folder)
        defs = busy.definitions([tickets_asset(FOUR_ROWS), triage_assets(on_pending="wait")])
        result = busy.materialize(defs, "tickets", "triage_batch", "triage")
        assert len(materialized(result, "triage")) == 1


def test_a_run_without_one_answer_is_a_failure(shop: Shop) -> None:
    empty = [{"id": name, "body": ""} for name in "ab"]
    defs = shop.definitions([tickets_asset(empty), triage_assets()])
    shop.materialize(defs, "tickets", "triage_batch")
    shop.sandbox.finish()
    result = shop.materialize(defs, "triage")
    assert "All 2 rows of triage-" in failure_of(result)
    assert "refusal × 2" in failure_of(result)
    assert materialized(result, "triage") == []


def test_results_before_any_submission_name_the_remedy(shop: Shop) -> None:
    result = shop.materialize(shop.definitions(), "triage")
    assert failure_of(result) == "Nothing was submitted for triage: materialize triage_batch first."


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([{"id": "a", "body": "x"}, {"id": "a", "body": "y"}], "would hold item id 'a' twice"),
        ([{"key": "a", "body": "x"}], "item_id names column"),
    ],
)
def test_bad_rows_fail_the_submission_in_one_sentence(shop: Shop, rows: Any, sentence: str) -> None:
    defs = shop.definitions([tickets_asset(rows), triage_assets()])
    result = shop.materialize(defs, "tickets", "triage_batch")
    assert sentence in failure_of(result)
    assert "\n" not in failure_of(result)
    assert shop.sandbox.batches() == []


def test_a_function_that_returns_no_job_is_told_so(shop: Shop) -> None:
    @batchor_assets(name="odd")
    def odd():
        return "no job"

    assert "must return a BatchJob, not str: end it with return BatchJob(…)" in failure_of(
        shop.materialize(shop.definitions([odd]), "odd_batch")
    )


def test_the_model_is_named_on_the_decorator_alone(shop: Shop) -> None:
    @batchor_assets(name="odd")
    def odd() -> BatchJob:
        job = job_for(FOUR_ROWS)
        return BatchJob(job.items, job.build_prompt, job.provider_config, structured_output=Sentiment)

    result = shop.materialize(shop.definitions([odd]), "odd_batch")
    assert "returns a job for Sentiment: name the model on @batchor_assets" in failure_of(result)


def test_the_function_gets_context_config_inputs_and_resources(shop: Shop) -> None:
    seen: dict[str, Any] = {}

    @batchor_assets(name="some", structured_output=TicketTriage)
    def some(context: dg.AssetExecutionContext, tickets: list, config: Limits, greeter: Greeter) -> BatchJob:
        seen.update(partition=context.has_partition_key, word=greeter.word)
        return job_for(tickets[: config.first])

    defs = dg.Definitions.merge(
        shop.definitions([tickets_asset(FOUR_ROWS), some]), dg.Definitions(resources={"greeter": Greeter(word="hi")})
    )
    shop.materialize(defs, "tickets", "some_batch", run_config={"ops": {"some_batch": {"config": {"first": 3}}}})
    assert seen == {"partition": False, "word": "hi"}
    assert shop.infos()[0].summary.total_items == 3


def test_key_prefix_group_and_owners_reach_both_assets() -> None:
    made = triage_assets(key_prefix=["cx", "eu"], group_name="support", owners=["team:cx"], tags={"tier": "1"})
    specs = {spec.key.to_user_string(): spec for asset in made for spec in asset.specs}
    assert set(specs) == {"cx/eu/triage_batch", "cx/eu/triage"}
    assert {spec.group_name for spec in specs.values()} == {"support"}
    assert all(spec.owners == ["team:cx"] and spec.tags["tier"] == "1" for spec in specs.values())


def test_a_list_of_assets_in_a_module_is_found_by_dagster() -> None:
    import types

    module = types.ModuleType("shop_window")
    module.triage = triage_assets()  # type: ignore[attr-defined]
    found = dg.load_assets_from_modules([module])
    assert {
        key.to_user_string() for asset in found if isinstance(asset, dg.AssetsDefinition) for key in asset.keys
    } == {
        "triage_batch",
        "triage",
    }
