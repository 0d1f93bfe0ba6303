"""Runs for several partitions that no longer belong together: overlapping ranges, deleted and reordered partitions."""

from typing import Any

import dagster as dg
import pytest

from batchor_dagster import batchor_assets
from batchor_dagster.partitions import is_within, pieces
from batchor_engine import BatchJob
from example_project.models import TicketTriage
from tests.on_dagster.shop import FOUR_ROWS, Rows, Shop, days, failure_of, job_for, materialized, serve

pytestmark = pytest.mark.filterwarnings("ignore:Parameter `backfill_policy`")

DAYS = ["2026-03-02", "2026-03-03", "2026-03-04", "2026-03-05"]
GOOD, FAILING = FOUR_ROWS[:2], FOUR_ROWS[2:3]
batches = dg.DynamicPartitionsDefinition(name="batches")
grid = dg.MultiPartitionsDefinition({"day": days, "region": dg.StaticPartitionsDefinition(["eu", "us"])})


def tags(*ends: str, backfill: str = "") -> dict[str, str]:
    told = {"dagster/asset_partition_range_start": ends[0], "dagster/asset_partition_range_end": ends[-1]}
    return {**told, **({"dagster/backfill": backfill} if backfill else {})}


def triage(
    shop: Shop, partitions: dg.PartitionsDefinition[Any] = days, rows: dict[str, Rows] | None = None
) -> dg.Definitions:
    @batchor_assets(partitions_def=partitions, backfill_policy=dg.BackfillPolicy.single_run())
    def triage(context: dg.AssetExecutionContext) -> BatchJob:
        return job_for((rows or {}).get(context.partition_key, GOOD))

    return shop.definitions([triage])


def submit(shop: Shop, defs: dg.Definitions, *ends: str) -> str:
    """Submit a range; the id of the engine's run."""
    before = {info.run_id for info in shop.infos()}
    assert shop.materialize(defs, "triage_batch", tags=tags(*ends)).success
    (new,) = {info.run_id for info in shop.infos()} - before
    return new


def colours(shop: Shop, keys: list[str], partitions: dg.PartitionsDefinition[Any] = days) -> list[str]:
    """What Dagster's page shows of each partition."""
    found = shop.instance.get_status_by_partition(dg.AssetKey("triage"), keys, partitions) or {}
    return ["green" if str(found[key]).endswith("MATERIALIZED") else "red" if found[key] else "grey" for key in keys]


def shown(results: list[dg.ExecuteInProcessResult]) -> dict[str, str]:
    """By partition the engine run whose rows were materialized; each one exactly once."""
    events = [event for result in results for event in materialized(result, "triage")]
    found = {str(event.partition): str(event.metadata["batchor/run_id"].value) for event in events}
    assert len(found) == len(events)
    return found


def test_overlapping_ranges_each_cost_once_and_the_later_one_has_the_word(shop: Shop) -> None:
    defs = triage(shop)
    first, second = submit(shop, defs, *DAYS[:3]), submit(shop, defs, *DAYS[1:])
    shop.sandbox.finish()
    assert shown(serve(shop, defs)) == {DAYS[0]: first, **dict.fromkeys(DAYS[1:], second)}
    assert colours(shop, DAYS) == ["green"] * 4
    assert (len(shop.sandbox.batches()), shop.paid_lines()) == (2, 12)


def test_a_range_that_turns_red_leaves_the_partitions_of_a_later_run_green(shop: Shop) -> None:
    defs = triage(shop, rows={DAYS[0]: FAILING})
    older, later = submit(shop, defs, *DAYS[:3]), submit(shop, defs, *DAYS[1:])
    by_run = {info.run_id: info.batches[0].provider_batch_id for info in shop.infos()}
    shop.sandbox.finish(by_run[later])
    assert shown(serve(shop, defs)) == dict.fromkeys(DAYS[1:], later)
    shop.sandbox.finish(by_run[older])
    (red,) = serve(shop, defs)
    assert "failed: " in failure_of(red)
    assert colours(shop, DAYS) == ["red", "green", "green", "green"]


def test_a_range_with_a_hole_is_delivered_on_both_sides_of_it(shop: Shop) -> None:
    rows = {DAYS[0]: FAILING, DAYS[3]: FAILING}
    defs = triage(shop, rows=rows)
    shared = submit(shop, defs, DAYS[0], DAYS[3])
    assert shop.materialize(defs, "triage_batch", partition_key=DAYS[1]).success
    shop.sandbox.finish()
    with shop.runner() as runner:
        for info in shop.infos():
            runner.get_run(info.run_id).refresh()
    requests = shop.tick(defs).run_requests or []
    assert len({request.run_key for request in requests}) == len(requests) == 3
    results = [shop.obey(defs, request) for request in requests]
    assert [result.success for result in results].count(False) == 2
    found = shown(results)
    assert (set(found), found[DAYS[2]]) == ({DAYS[1], DAYS[2]}, shared)
    assert colours(shop, DAYS) == ["red", "green", "green", "red"]
    assert not shop.tick(defs).run_requests


def test_a_deleted_partition_stops_neither_its_range_nor_the_sensor(shop: Shop) -> None:
    keys = ["one", "two", "three", "four"]
    shop.instance.add_dynamic_partitions("batches", keys)
    defs = triage(shop, batches)
    shared = submit(shop, defs, "one", "three")
    assert shop.materialize(defs, "triage_batch", partition_key="four").success
    for gone in ("three", "four"):
        shop.instance.delete_dynamic_partition("batches", gone)
    shop.sandbox.finish()
    assert shown(serve(shop, defs)) == {"one": shared, "two": shared}
    assert not shop.tick(defs).run_requests


def test_a_range_whose_partitions_changed_places_is_delivered_one_by_one(shop: Shop) -> None:
    shop.instance.add_dynamic_partitions("batches", ["one", "two", "three"])
    defs = triage(shop, batches)
    shared = submit(shop, defs, "one", "three")
    for moved in ("two", "one"):
        shop.instance.delete_dynamic_partition("batches", moved)
        shop.instance.add_dynamic_partitions("batches", ["other", moved])
    shop.sandbox.finish()
    assert shown(serve(shop, defs)) == dict.fromkeys(["one", "two", "three"], shared)
    assert shop.paid_lines() == 6


def test_a_range_of_two_dimensions_is_one_run_that_knows_both(shop: Shop) -> None:
    seen: list[tuple[str, str, str]] = []

    @dg.asset(name="tickets", partitions_def=grid)
    def tickets(context: dg.AssetExecutionContext) -> list:
        return [{"id": context.partition_key, "body": "Thank you!"}]

    @batchor_assets(partitions_def=grid, backfill_policy=dg.BackfillPolicy.single_run(), structured_output=TicketTriage)
    def triage(context: dg.AssetExecutionContext, tickets: list) -> BatchJob:
        place: Any = context.partition_key
        window = context.partition_time_window
        seen.append((place.keys_by_dimension["region"], f"{window.start:%Y-%m-%d}", tickets[0]["id"]))
        return job_for(tickets)

    defs = shop.definitions([tickets, triage])
    keys = [f"{day}|{region}" for day in DAYS[:2] for region in ("eu", "us")]
    for key in keys:
        assert shop.materialize(defs, "tickets", partition_key=key).success
    shared = submit(shop, defs, keys[0], keys[-1])
    assert sorted(seen) == sorted((key[-2:], key[:10], key) for key in keys)
    alone = submit(shop, defs, keys[1])
    shop.sandbox.finish()
    assert shown(serve(shop, defs)) == {**dict.fromkeys(keys, shared), keys[1]: alone}
    assert colours(shop, keys, grid) == ["green"] * 4


def test_a_range_that_ends_before_it_begins_sends_nothing(shop: Shop) -> None:
    shop.instance.add_dynamic_partitions("batches", ["one", "two"])
    result = shop.materialize(triage(shop, batches), "triage_batch", tags=tags("two", "one"))
    assert failure_of(result) == "There is no partition from two to one"
    assert shop.sandbox.batches() == []


def test_a_backfill_that_is_run_again_in_other_ranges_pays_no_row_twice(shop: Shop) -> None:
    defs = triage(shop)
    once = {"dagster/backfill": "b1"}
    assert shop.materialize(defs, "triage_batch", tags=tags(*DAYS[:2], backfill="b1")).success
    assert shop.materialize(defs, "triage_batch", tags=tags(DAYS[3], backfill="b1")).success
    for wider in (tags(*DAYS[:3], backfill="b1"), {**once, **tags(DAYS[1])}, tags(*DAYS[2:], backfill="b1")):
        assert "would pay for some rows again" in failure_of(shop.materialize(defs, "triage_batch", tags=wider))
    assert shop.materialize(defs, "triage_batch", tags=tags(DAYS[2], backfill="b1")).success
    assert shop.materialize(defs, "triage_batch", tags=tags(*DAYS[:2], backfill="b1")).success
    assert sorted(len(info.labels.get("partitions", "")) > 0 for info in shop.infos()) == [False, False, True]
    assert shop.paid_lines() == 0
    shop.sandbox.finish()
    serve(shop, defs)
    assert shop.paid_lines() == 8


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["a", "b", "c", "d"], [["a", "b", "c", "d"]]),
        (["a", "b", "d"], [["a", "b"], ["d"]]),
        (["d"], [["d"]]),
        (["a", "c"], [["a"], ["c"]]),
    ],
)
def test_partitions_are_asked_for_in_as_few_ranges_as_hold_nothing_else(
    keys: list[str], expected: list[list[str]], instance: dg.DagsterInstance
) -> None:
    stored = ["a", "b", "c", "d"]
    assert pieces(dg.StaticPartitionsDefinition(stored), keys, stored, instance) == expected


def test_a_run_is_for_what_lies_between_its_ends() -> None:
    stored = ["a", "b", "c", "d"]
    inside = [key for key in stored if is_within(tags("b", "c"), key, stored)]
    assert inside == ["b", "c"]
    assert [key for key in stored if is_within({"dagster/partition": "b"}, key, stored)] == ["b"]
    assert [key for key in stored if is_within(tags("x", "c"), key, stored)] == ["c"]
    assert is_within({}, "", [""])
