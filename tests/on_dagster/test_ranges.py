"""Several partitions in one Dagster run: one durable run of the engine, few batches, results by partition."""

from typing import Any

import dagster as dg
import pandas as pd
import pytest

from batchor_dagster import BatchorMetadataSet, batchor_assets
from batchor_engine import BatchJob, OpenAIProviderConfig
from example_project.models import TicketTriage
from tests.on_dagster.shop import DAY, FOUR_ROWS, NEXT_DAY, Rows, Shop, days, failure_of, job_for, materialized

# Dagster says so wherever the parameter is given, also on its own assets.
pytestmark = pytest.mark.filterwarnings("ignore:Parameter `backfill_policy`")

SINGLE = dg.BackfillPolicy.single_run()
THIRD = "2026-03-04"
RANGE = {"dagster/asset_partition_range_start": DAY, "dagster/asset_partition_range_end": THIRD}
# Ids meet between days; the second day has one row that fails, the third has none at all.
ROWS: dict[str, Rows] = {DAY: FOUR_ROWS[:2], NEXT_DAY: [FOUR_ROWS[0], FOUR_ROWS[2]], THIRD: []}


def tickets_of(rows: dict[str, Rows]) -> dg.AssetsDefinition:
    @dg.asset(name="tickets", partitions_def=days)
    def tickets(context: dg.AssetExecutionContext) -> list:
        return rows[context.partition_key]

    return tickets


def assets(seen: list[Any] | None = None, rows: dict[str, Rows] | None = None, **options: Any) -> list[Any]:
    defaults: dict[str, Any] = {"partitions_def": days, "backfill_policy": SINGLE, "structured_output": TicketTriage}

    @batchor_assets(**{**defaults, **options})
    def triage(context: dg.AssetExecutionContext, tickets: list) -> BatchJob:
        if seen is not None:
            window = context.partition_time_window
            seen.append((context.partition_key, f"{window.start:%d}", [row["id"] for row in tickets]))
        return job_for(tickets)

    return [tickets_of(rows or ROWS), triage]


def submitted(shop: Shop, made: list[Any]) -> dg.Definitions:
    defs = shop.definitions(made)
    for day in ROWS:
        shop.materialize(defs, "tickets", partition_key=day)
    assert shop.materialize(defs, "triage_batch", tags=RANGE).success
    return defs


def delivered(shop: Shop, made: list[Any]) -> tuple[dg.Definitions, dg.ExecuteInProcessResult]:
    defs = submitted(shop, made)
    shop.sandbox.finish()
    (request,) = shop.tick(defs).run_requests or []
    return defs, shop.obey(defs, request)


def said(result: dg.ExecuteInProcessResult, name: str = "triage") -> dict[str, BatchorMetadataSet]:
    return {str(event.partition): BatchorMetadataSet.extract(event.metadata) for event in materialized(result, name)}


def test_a_range_is_one_run_and_one_batch(shop: Shop) -> None:
    seen: list[Any] = []
    submitted(shop, assets(seen))
    assert len(shop.infos()) == len(shop.sandbox.batches()) == 1
    assert shop.infos()[0].summary.total_items == 4
    assert seen == [(DAY, "02", ["a", "b"]), (NEXT_DAY, "03", ["a", "c"]), (THIRD, "04", [])]


def test_the_sensor_asks_for_the_whole_range_and_results_land_by_partition(shop: Shop) -> None:
    defs, result = delivered(shop, assets())
    told = said(result)
    assert {day: (one.rows, one.completed, one.failed) for day, one in told.items()} == {
        DAY: (2, 2, 0),
        NEXT_DAY: (2, 1, 1),
        THIRD: (0, 0, 0),
    }
    assert told[NEXT_DAY].preview
    assert [record.data["item_id"] for record in told[NEXT_DAY].preview.records] == ["a", "c"]
    assert sum(one.input_tokens or 0 for one in told.values()) > 0
    assert told[THIRD].input_tokens == 0
    after = shop.tick(defs)
    assert not after.run_requests
    assert not shop.tick(defs, after.cursor).run_requests


def test_the_submission_tells_the_rows_of_each_partition(shop: Shop) -> None:
    defs = shop.definitions(assets())
    for day in ROWS:
        shop.materialize(defs, "tickets", partition_key=day)
    told = said(shop.materialize(defs, "triage_batch", tags=RANGE), "triage_batch")
    assert {day: one.rows for day, one in told.items()} == {DAY: 2, NEXT_DAY: 2, THIRD: 0}
    assert {one.partitions for one in told.values()} == {f"triage[{DAY}...{THIRD}]"}


def test_a_check_of_a_range_names_the_partitions_that_fail(shop: Shop) -> None:
    _, result = delivered(shop, assets())
    (check,) = result.get_asset_check_evaluations()
    assert not check.passed
    assert (check.description or "").startswith(f"{NEXT_DAY}: ")
    assert DAY not in (check.description or "")


def test_downstream_reads_each_partition_of_the_range(shop: Shop) -> None:
    seen: dict[str, Any] = {}

    @dg.asset(partitions_def=days)
    def one_day(context: dg.AssetExecutionContext, triage: pd.DataFrame) -> None:
        seen[context.partition_key] = list(triage["item_id"])

    @dg.asset(ins={"triage": dg.AssetIn(metadata={"allow_missing_partitions": True})})
    def all_days(triage: dict[str, list]) -> None:
        seen["all"] = {day: len(rows) for day, rows in triage.items()}

    defs, _ = delivered(shop, [*assets(), one_day, all_days])
    for day in ROWS:
        assert shop.materialize(defs, "one_day", partition_key=day).success
    assert shop.materialize(defs, "all_days").success
    assert seen == {DAY: ["a", "b"], NEXT_DAY: ["a", "c"], THIRD: [], "all": {DAY: 2, NEXT_DAY: 1, THIRD: 0}}


def test_progress_of_a_range_is_observed_once_and_says_what_it_is_of(shop: Shop) -> None:
    defs = submitted(shop, assets())
    first = shop.tick(defs)
    (event,) = first.asset_events
    told = BatchorMetadataSet.extract(event.metadata)
    assert (event.partition, told.rows, told.partitions) == (DAY, 4, f"triage[{DAY}...{THIRD}]")
    assert not shop.tick(defs, first.cursor).asset_events
    assert not shop.tick(defs).asset_events


def test_the_same_range_again_in_one_generation_pays_nothing(shop: Shop) -> None:
    defs = submitted(shop, assets())
    tags = {**RANGE, "dagster/backfill": "first"}
    shop.materialize(defs, "triage_batch", tags=tags)
    shop.materialize(defs, "triage_batch", tags={**tags, "dagster/root_backfill_id": "first"})
    assert len(shop.infos()) == 2
    assert len(shop.sandbox.batches()) == 2


def test_a_partition_without_answers_is_red_and_the_others_are_there(shop: Shop) -> None:
    rows = {**ROWS, NEXT_DAY: [FOUR_ROWS[2]]}
    defs, result = delivered(shop, assets(rows=rows))
    assert not result.success
    assert "refusal" in failure_of(result)
    assert set(said(result)) == {DAY, THIRD}
    after = shop.tick(defs)
    assert not after.run_requests
    assert not shop.tick(defs, after.cursor).run_requests


def test_a_partition_that_was_submitted_again_alone_wins_over_the_range(shop: Shop) -> None:
    defs = submitted(shop, assets())
    shop.materialize(defs, "triage_batch", partition_key=DAY)
    shop.sandbox.finish()
    results = [shop.obey(defs, request) for request in shop.tick(defs).run_requests or []]
    assert all(result.success for result in results)
    by_day = {day: one.run_id for result in results for day, one in said(result).items()}
    single = next(info.run_id for info in shop.infos() if "partitions" not in info.labels)
    shared = next(info.run_id for info in shop.infos() if "partitions" in info.labels)
    assert by_day == {DAY: single, NEXT_DAY: shared, THIRD: shared}
    assert sum(len(said(result)) for result in results) == 3
    assert not shop.tick(defs).run_requests


def test_one_partition_of_a_range_can_be_read_again_alone(shop: Shop) -> None:
    defs, _ = delivered(shop, assets())
    again = said(shop.materialize(defs, "triage", partition_key=NEXT_DAY))
    assert {day: one.rows for day, one in again.items()} == {NEXT_DAY: 2}
    assert len(shop.infos()) == 1


def test_a_range_of_results_over_runs_of_single_partitions(shop: Shop) -> None:
    defs = shop.definitions(assets())
    for day in (DAY, THIRD):
        shop.materialize(defs, "tickets", "triage_batch", partition_key=day)
    shop.sandbox.finish()
    result = shop.materialize(defs, "triage", tags=RANGE)
    assert set(said(result)) == {DAY, THIRD}
    assert failure_of(result) == f"Nothing was submitted for triage[{NEXT_DAY}]: materialize triage_batch first."


def test_jobs_of_a_range_must_ask_the_same_model(shop: Shop) -> None:
    @batchor_assets(partitions_def=days, backfill_policy=SINGLE)
    def triage(context: dg.AssetExecutionContext) -> BatchJob:
        job = job_for(FOUR_ROWS)
        config = OpenAIProviderConfig(model=f"gpt-{context.partition_key}")
        return BatchJob(job.items, job.build_prompt, config)

    result = shop.materialize(shop.definitions([triage]), "triage_batch", tags=RANGE)
    assert "differ in provider_config: one run has one configuration" in failure_of(result)
    assert not shop.infos()


def test_inputs_that_cannot_be_told_apart_are_refused(shop: Shop) -> None:
    shifted = dg.AssetIn(partition_mapping=dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1))
    defs = shop.definitions(assets(ins={"tickets": shifted}))
    for day in ROWS:
        shop.materialize(defs, "tickets", partition_key=day)
    tags = {**RANGE, "dagster/asset_partition_range_start": NEXT_DAY}
    assert "run them one by one" in failure_of(shop.materialize(defs, "triage_batch", tags=tags))


def test_what_is_upstream_for_all_partitions_is_given_to_each(shop: Shop) -> None:
    @dg.asset
    def glossary() -> dict:
        return {"words": FOUR_ROWS}

    @batchor_assets(partitions_def=days, backfill_policy=SINGLE)
    def triage(glossary: dict) -> BatchJob:
        return job_for(glossary["words"])

    assert shop.materialize(shop.definitions([glossary, triage]), "glossary").success
    defs = shop.definitions([glossary, triage])
    assert shop.materialize(defs, "triage_batch", tags=RANGE).success
    assert shop.infos()[0].summary.total_items == 12


regions = dg.MultiPartitionsDefinition({"day": days, "region": dg.StaticPartitionsDefinition(["eu", "us"])})


@pytest.mark.parametrize(
    ("partitions", "keys"),
    [
        (dg.StaticPartitionsDefinition(["a", "b", "c/ü"]), ["a", "b", "c/ü"]),
        (dg.DynamicPartitionsDefinition(name="batches"), ["one", "two"]),
        (regions, [f"{DAY}|eu", f"{DAY}|us"]),
        (dg.DailyPartitionsDefinition(start_date=DAY, end_date="2026-03-06"), [DAY, NEXT_DAY]),
    ],
)
def test_ranges_and_single_partitions_of_every_kind(
    shop: Shop, partitions: dg.PartitionsDefinition[str], keys: list[str]
) -> None:
    shop.instance.add_dynamic_partitions("batches", ["one", "two"])

    @batchor_assets(partitions_def=partitions, backfill_policy=SINGLE, name="words")
    def words(context: dg.AssetExecutionContext) -> BatchJob:
        assert context.partition_key in keys
        return job_for(FOUR_ROWS[:2])

    defs = shop.definitions([words])
    tags = {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]}
    assert shop.materialize(defs, "words_batch", tags=tags).success
    assert shop.materialize(defs, "words_batch", partition_key=keys[0]).success
    shop.sandbox.finish()
    results = [shop.obey(defs, request) for request in shop.tick(defs).run_requests or []]
    assert sorted(day for result in results for day in said(result, "words")) == sorted(keys)
    assert not shop.tick(defs).run_requests


def test_a_range_of_one_batch_job_feeds_a_range_of_the_next(shop: Shop) -> None:
    @batchor_assets(partitions_def=days, backfill_policy=SINGLE)
    def retold(triage: list[TicketTriage]) -> BatchJob:
        return job_for([{"id": str(place), "body": one.summary} for place, one in enumerate(triage)])

    defs, _ = delivered(shop, [*assets(), retold])
    assert shop.materialize(defs, "retold_batch", tags=RANGE).success
    assert max(shop.infos(), key=lambda info: info.created_at).summary.total_items == 3
