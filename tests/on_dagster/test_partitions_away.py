"""Partitions that Dagster does not have for a while: what was paid for them is delivered once they are back."""

from __future__ import annotations

import json

import dagster as dg
import pytest

from tests.on_dagster.shop import FOUR_ROWS, Shop, serve, tickets_asset, triage_assets

TRIAGE = dg.AssetKey("triage")


@pytest.fixture(autouse=True)
def clocks_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """No two partitions were submitted within what clocks may differ."""
    monkeypatch.setattr("batchor_dagster.tick.CLOCK_MARGIN_SEC", 0.0)


def place(shop: Shop, partitions: dg.PartitionsDefinition) -> dg.Definitions:
    return shop.definitions([tickets_asset(FOUR_ROWS, partitions), triage_assets(partitions_def=partitions)])


def submitted(shop: Shop, defs: dg.Definitions, *keys: str) -> None:
    """Runs of these partitions that have ended and that Dagster does not show yet."""
    for key in keys:
        assert shop.materialize(defs, "tickets", "triage_batch", partition_key=key).success
    shop.sandbox.finish()
    with shop.runner() as runner:
        for info in runner.find_runs(unfinished=True):
            runner.get_run(info.run_id).wait(timeout=60)


def delivered_by(shop: Shop, defs: dg.Definitions, cursor: str | None) -> str | None:
    """The cursor after a tick, what it asked for, and two more that ask for nothing."""
    result = shop.tick(defs, cursor)
    for request in result.run_requests or []:
        assert shop.obey(defs, request).success
    for _ in range(2):
        result = shop.tick(defs, result.cursor)
        assert not result.run_requests
    return result.cursor


def test_a_deleted_partition_that_is_added_again_is_delivered(shop: Shop) -> None:
    some = dg.DynamicPartitionsDefinition(name="some")
    shop.instance.add_dynamic_partitions("some", ["x", "y"])
    defs = place(shop, some)
    submitted(shop, defs, "y", "x")
    shop.instance.delete_dynamic_partition("some", "y")
    cursor = delivered_by(shop, defs, None)
    assert shop.instance.get_materialized_partitions(TRIAGE) == {"x"}
    # What is away holds nothing back that ended later.
    assert json.loads(cursor or "")["settled_until"] == max(info.created_at for info in shop.infos()).timestamp()
    shop.instance.add_dynamic_partitions("some", ["y"])
    cursor = delivered_by(shop, defs, cursor)
    assert shop.instance.get_materialized_partitions(TRIAGE) == {"x", "y"}
    assert json.loads(cursor or "")["away"] == {}
    assert shop.paid_lines() == 8


def test_a_deploy_without_a_partition_is_rolled_back_and_the_partition_is_delivered(shop: Shop) -> None:
    good = place(shop, dg.StaticPartitionsDefinition(["x", "y"]))
    bad = place(shop, dg.StaticPartitionsDefinition(["x"]))
    submitted(shop, good, "y", "x")
    cursor = delivered_by(shop, bad, None)
    assert shop.instance.get_materialized_partitions(TRIAGE) == {"x"}
    delivered_by(shop, good, cursor)
    assert shop.instance.get_materialized_partitions(TRIAGE) == {"x", "y"}
    assert not serve(shop, good)


def test_a_cursor_of_the_version_before_is_read(shop: Shop) -> None:
    defs = place(shop, dg.StaticPartitionsDefinition(["x"]))
    submitted(shop, defs, "x")
    now = json.loads(delivered_by(shop, defs, None) or "")
    before = {name: value for name, value in now.items() if name != "away"}
    assert json.loads(shop.tick(defs, json.dumps(before)).cursor or "") == now
