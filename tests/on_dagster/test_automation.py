"""Automation conditions and freshness policies work on our assets: once for each new fact, and not for progress."""

from __future__ import annotations

from datetime import timedelta

import dagster as dg
import pytest

from tests.on_dagster.shop import FOUR_ROWS, Shop, tickets_asset, triage_assets


@dg.asset(automation_condition=dg.AutomationCondition.eager())
def digest(triage: list) -> None: ...


def requested(shop: Shop, defs: dg.Definitions, cursor: object = None) -> tuple[set[str], object]:
    """What one evaluation of every condition asks for, and the cursor to go on from."""
    result = dg.evaluate_automation_conditions(
        defs, shop.instance, asset_selection=dg.AssetSelection.all(), cursor=cursor
    )  # type: ignore[arg-type]
    names = ("tickets", "triage_batch", "triage", "digest")
    return {name for name in names if result.get_num_requested(dg.AssetKey(name))}, result.cursor


def test_what_is_downstream_fires_once_after_the_delivery(shop: Shop) -> None:
    defs = shop.definitions([tickets_asset(FOUR_ROWS), triage_assets(), digest])
    _, cursor = requested(shop, defs)
    shop.materialize(defs, "tickets", "triage_batch")
    shop.tick(defs)
    shop.materialize(defs, "triage")
    pending, cursor = requested(shop, defs, cursor)
    shop.sandbox.finish()
    shop.materialize(defs, "triage")
    delivered, cursor = requested(shop, defs, cursor)
    shop.materialize(defs, "digest")
    after, cursor = requested(shop, defs, cursor)
    assert (pending, delivered, after) == (set(), {"digest"}, set())


def test_reading_the_same_outcome_again_leaves_what_is_downstream_in_step(shop: Shop) -> None:
    defs = shop.definitions([tickets_asset(FOUR_ROWS), triage_assets(), digest])
    shop.materialize(defs, "tickets", "triage_batch")
    shop.sandbox.finish()
    shop.materialize(defs, "triage", "digest")
    versions = [
        event.tags["dagster/data_version"]
        for event in (
            shop.materialize(defs, "triage").asset_materializations_for_node("triage")[0],
            shop.materialize(defs, "triage").asset_materializations_for_node("triage")[0],
        )
        if event.tags
    ]
    assert len(versions) == 2
    assert len(set(versions)) == 1


@pytest.mark.parametrize("condition", [dg.AutomationCondition.eager(), dg.AutomationCondition.on_missing()])
def test_a_new_partition_is_submitted_once_and_not_again_for_its_progress(
    shop: Shop, condition: dg.AutomationCondition
) -> None:
    regions = dg.DynamicPartitionsDefinition(name="regions")
    batch = triage_assets(automation_condition=condition, partitions_def=regions)
    defs = shop.definitions([tickets_asset(FOUR_ROWS, regions), batch])
    _, cursor = requested(shop, defs)
    shop.instance.add_dynamic_partitions("regions", ["north"])
    asked: list[set[str]] = []
    for act in (
        lambda: shop.materialize(defs, "tickets", partition_key="north"),
        lambda: shop.materialize(defs, "triage_batch", partition_key="north"),
        lambda: shop.tick(defs),
        lambda: (shop.sandbox.finish(), shop.tick(defs)),
        lambda: shop.materialize(defs, "triage", partition_key="north"),
    ):
        act()
        keys, cursor = requested(shop, defs, cursor)
        asked.append(keys)
    assert asked == [{"triage_batch"}, set(), set(), set(), set()]


def test_a_freshness_policy_stands_on_the_results(shop: Shop) -> None:
    policy = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=30))
    defs = shop.definitions([tickets_asset(FOUR_ROWS), triage_assets(freshness_policy=policy)])
    specs = {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}
    assert specs["triage"].freshness_policy == policy
    assert specs["triage_batch"].freshness_policy is None
