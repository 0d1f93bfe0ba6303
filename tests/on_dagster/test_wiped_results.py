"""Materializations that somebody wiped from Dagster's page: the rows are there, and are delivered again."""

from __future__ import annotations

import time

import dagster as dg
import pytest

from tests.on_dagster.shop import DAY, FOUR_ROWS, NEXT_DAY, Shop, days, serve, tickets_asset, triage_assets

TRIAGE = dg.AssetKey("triage")


@pytest.fixture(autouse=True)
def clocks_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """No two partitions were submitted within what clocks may differ."""
    monkeypatch.setattr("batchor_dagster.tick.CLOCK_MARGIN_SEC", 0.0)


def delivered(shop: Shop) -> tuple[dg.Definitions, str | None]:
    """Two partitions, submitted one after the other and delivered, and the cursor of a sensor that knows it."""
    defs = shop.definitions([tickets_asset(FOUR_ROWS, days), triage_assets(partitions_def=days)])
    for day in (DAY, NEXT_DAY):
        assert shop.materialize(defs, "tickets", "triage_batch", partition_key=day).success
    shop.sandbox.finish()
    assert len(serve(shop, defs)) == 2
    return defs, settled(shop, defs, None)


def settled(shop: Shop, defs: dg.Definitions, cursor: str | None) -> str | None:
    """The cursor once a tick leaves it as it was."""
    result = shop.tick(defs, cursor)
    assert not result.run_requests
    return cursor if result.cursor == cursor else settled(shop, defs, result.cursor)


def test_a_wiped_asset_is_delivered_again_with_all_its_partitions_and_pays_nothing(shop: Shop) -> None:
    defs, cursor = delivered(shop)
    shop.instance.wipe_assets([TRIAGE])
    result = shop.tick(defs, cursor)
    asked = result.run_requests or []
    assert {request.partition_key for request in asked} == {DAY, NEXT_DAY}
    for request in asked:
        assert shop.obey(defs, request).success
    assert shop.instance.get_materialized_partitions(TRIAGE) == {DAY, NEXT_DAY}
    settled(shop, defs, result.cursor)
    assert shop.paid_lines() == 8


def test_failed_rows_wiped_alone_come_back_when_they_are_materialized_and_pay_nothing(shop: Shop) -> None:
    failures = dg.AssetKey("triage_failures")
    defs = shop.definitions([tickets_asset(FOUR_ROWS), triage_assets(failures_asset=True)])
    assert shop.materialize(defs, "tickets", "triage_batch").success
    shop.sandbox.finish()
    assert len(serve(shop, defs)) == 1
    shop.instance.wipe_assets([failures])
    assert not shop.tick(defs).run_requests
    (event,) = shop.materialize(defs, "triage_failures").get_asset_materialization_events()
    assert event.asset_key == failures
    assert shop.paid_lines() == 4


def test_an_asset_that_is_wiped_again_is_delivered_again(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    defs, cursor = delivered(shop)
    real = time.time
    for hours in (0.0, 1.0):
        # The same revision is asked for again only after a pause.
        monkeypatch.setattr("batchor_dagster.tick.time.time", lambda passed=hours: real() + passed * 3600.0)
        shop.instance.wipe_assets([TRIAGE])
        result = shop.tick(defs, cursor)
        assert [shop.obey(defs, request).success for request in result.run_requests or []] == [True, True]
        cursor = settled(shop, defs, result.cursor)
    assert shop.paid_lines() == 8


def test_a_wiped_partition_whose_run_was_deleted_from_the_store_stays_away(shop: Shop) -> None:
    defs, cursor = delivered(shop)
    (newer,) = (info.run_id for info in shop.infos() if info.labels["partition"] == NEXT_DAY)
    with shop.runner() as runner:
        runner.delete_run(newer)
    shop.instance.wipe_assets([TRIAGE])
    assert [request.partition_key for request in shop.tick(defs, cursor).run_requests or []] == [DAY]
