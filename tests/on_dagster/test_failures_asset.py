"""The asset of failed rows, and IO managers that are not ours."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pytest

from batchor_dagster import BatchorMetadataSet, build_batchor_definitions
from tests.on_dagster.shop import DAY, FOUR_ROWS, NEXT_DAY, Shop, days, failure_of, tickets_asset, triage_assets

pytestmark = pytest.mark.filterwarnings("ignore:Parameter `backfill_policy`")

NOBODY_ANSWERS = [{"id": "a", "body": ""}, {"id": "b", "body": ""}]


def told(result: dg.ExecuteInProcessResult, name: str) -> list[dg.AssetMaterialization]:
    return [
        event.materialization
        for event in result.get_asset_materialization_events()
        if event.asset_key == dg.AssetKey(name)
    ]


def started(shop: Shop, reader: Any, rows: list[dict[str, str]] = FOUR_ROWS, **options: Any) -> dg.Definitions:
    defs = shop.definitions([tickets_asset(rows), triage_assets(failures_asset=True, **options), dg.asset(reader)])
    shop.materialize(defs, "tickets", "triage_batch")
    shop.sandbox.finish()
    return defs


@pytest.mark.parametrize("form", [pd.DataFrame, pa.Table, list])
def test_failed_rows_are_an_asset_that_others_read(shop: Shop, form: type) -> None:
    seen: list[Any] = []

    def reader(triage_failures) -> None:
        seen.append(triage_failures)

    reader.__annotations__ = {"triage_failures": form}
    result = shop.materialize(started(shop, reader), "triage", "triage_failures", "reader")
    assert result.success
    (event,) = told(result, "triage_failures")
    shown = BatchorMetadataSet.extract(event.metadata)
    assert (shown.rows, event.metadata["dagster/row_count"].value) == (1, 1)
    assert shown.failed_rows
    assert shown.failed_rows.records[0].data["item_id"] == "c"
    (rows,) = seen
    assert isinstance(rows, form)
    ids = [row.item_id for row in rows] if isinstance(rows, list) else list(pd.Series(rows["item_id"]))
    assert [str(one) for one in ids] == ["c"]


def test_the_sensor_asks_for_both_and_either_can_be_left_out(shop: Shop) -> None:
    @dg.asset
    def nothing() -> None: ...

    defs = shop.definitions([tickets_asset(FOUR_ROWS), triage_assets(failures_asset=True), nothing])
    shop.materialize(defs, "tickets", "triage_batch")
    shop.sandbox.finish()
    (request,) = shop.tick(defs).run_requests or []
    assert request.asset_selection == [dg.AssetKey("triage"), dg.AssetKey("triage_failures")]
    result = shop.materialize(defs, "triage")
    assert (len(told(result, "triage")), len(told(result, "triage_failures"))) == (1, 0)
    result = shop.materialize(defs, "triage_failures")
    assert (len(told(result, "triage")), len(told(result, "triage_failures"))) == (0, 1)


def test_failed_rows_are_there_when_nothing_else_is(shop: Shop) -> None:
    seen: list[int] = []

    def reader(triage_failures: pd.DataFrame) -> None:
        seen.append(len(triage_failures))

    defs = started(shop, reader, NOBODY_ANSWERS)
    result = shop.materialize(defs, "triage", "triage_failures")
    assert "All 2 rows" in failure_of(result)
    assert told(result, "triage") == []
    assert len(told(result, "triage_failures")) == 1
    assert shop.materialize(defs, "reader").success
    assert seen == [2]


class Shelf(dg.IOManager):
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], Any] = {}

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        self.kept[context.asset_key.to_user_string(), self._part(context)] = obj

    def load_input(self, context: dg.InputContext) -> Any:
        return self.kept[context.asset_key.to_user_string(), self._part(context)]

    def _part(self, context: dg.InputContext | dg.OutputContext) -> str:
        return context.asset_partition_key if context.has_asset_partitions else ""


def with_shelf(shop: Shop, shelf: Shelf, *assets: Any) -> dg.Definitions:
    return build_batchor_definitions(assets=list(assets), resources={"batchor": shop.batchor, "shelf": shelf})


@pytest.mark.parametrize(("value", "form"), [("pandas", pd.DataFrame), ("arrow", pa.Table), ("list", list)])
def test_another_io_manager_is_given_the_rows(shop: Shop, value: str, form: type) -> None:
    shelf, seen = Shelf(), list[Any]()

    @dg.asset
    def reader(triage: Any) -> None:
        seen.append(triage)

    triage = triage_assets(io_manager_key="shelf", io_manager_value=value, failures_asset=True)
    defs = with_shelf(shop, shelf, tickets_asset(FOUR_ROWS), triage, reader)
    shop.materialize(defs, "tickets", "triage_batch")
    assert shop.materialize(defs, "triage", "triage_failures").success
    assert shelf.kept == {}
    shop.sandbox.finish()
    assert shop.materialize(defs, "triage", "triage_failures", "reader").success
    assert isinstance(seen[0], form)
    assert {key[0]: len(kept) for key, kept in shelf.kept.items()} == {
        "triage": 3 if value == "list" else 4,
        "triage_failures": 1,
    }


def test_another_io_manager_stores_partition_by_partition(shop: Shop) -> None:
    shelf = Shelf()
    policy = dg.BackfillPolicy.single_run()
    triage = triage_assets(partitions_def=days, backfill_policy=policy, io_manager_key="shelf")
    defs = with_shelf(shop, shelf, tickets_asset(FOUR_ROWS, days), triage)
    tags = {"dagster/asset_partition_range_start": DAY, "dagster/asset_partition_range_end": NEXT_DAY}
    for day in (DAY, NEXT_DAY):
        shop.materialize(defs, "tickets", partition_key=day)
    shop.materialize(defs, "triage_batch", tags=tags)
    shop.sandbox.finish()
    result = shop.materialize(defs, "triage", tags=tags)
    assert "stores the rows of one partition at a time" in failure_of(result)
    assert shop.materialize(defs, "triage", partition_key=DAY).success
    assert list(shelf.kept) == [("triage", DAY)]


def test_failed_rows_of_a_range_land_by_partition(shop: Shop) -> None:
    policy = dg.BackfillPolicy.single_run()
    triage = triage_assets(partitions_def=days, backfill_policy=policy, failures_asset=True)
    seen: list[int] = []

    @dg.asset(partitions_def=days)
    def reader(triage_failures: pd.DataFrame) -> None:
        seen.append(len(triage_failures))

    defs = shop.definitions([tickets_asset(FOUR_ROWS, days), triage, reader])
    tags = {"dagster/asset_partition_range_start": DAY, "dagster/asset_partition_range_end": NEXT_DAY}
    for day in (DAY, NEXT_DAY):
        shop.materialize(defs, "tickets", partition_key=day)
    shop.materialize(defs, "triage_batch", tags=tags)
    shop.sandbox.finish()
    result = shop.materialize(defs, "triage", "triage_failures", tags=tags)
    assert {event.partition for event in told(result, "triage_failures")} == {DAY, NEXT_DAY}
    assert shop.materialize(defs, "reader", partition_key=NEXT_DAY).success
    assert seen == [1]
