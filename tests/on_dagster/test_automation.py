"""Automation conditions and freshness policies work on our assets: once for each new fact, and not for progress."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from batchor_dagster import BatchorChecks
from tests.on_dagster.actor import definitions
from tests.on_dagster.shop import FOUR_ROWS, Shop, materialized, serve, tickets_asset, triage_assets


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


def test_what_is_downstream_in_the_run_that_submits_is_skipped_and_the_run_is_green(shop: Shop) -> None:
    defs = shop.definitions([tickets_asset(FOUR_ROWS), triage_assets(), digest])
    every = shop.materialize(defs, "tickets", "triage_batch", "triage", "digest")
    assert every.success
    assert (len(materialized(every, "triage_batch")), materialized(every, "digest")) == (1, [])
    assert [event.step_key for event in every.all_events if event.is_step_skipped] == ["digest"]


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


def gated(shop: Shop, allowed: float) -> tuple[dg.Definitions, set[str]]:
    """What is asked for once the sensor's run has delivered, where a reader waits for blocking checks."""

    @dg.asset(
        deps=["triage"],
        automation_condition=dg.AutomationCondition.eager() & dg.AutomationCondition.all_deps_blocking_checks_passed(),
    )
    def digest() -> None: ...

    checks = BatchorChecks(max_failure_rate=allowed, blocking=True)
    defs = shop.definitions([tickets_asset(FOUR_ROWS), triage_assets(checks=checks), digest])
    _, cursor = requested(shop, defs)
    shop.materialize(defs, "tickets", "triage_batch")
    shop.sandbox.finish()
    (delivery,) = serve(shop, defs)
    assert len(materialized(delivery, "triage")) == 1
    return defs, requested(shop, defs, cursor)[0]


def test_what_waits_for_blocking_checks_fires_when_the_delivery_passes_them(shop: Shop) -> None:
    assert gated(shop, 0.3)[1] == {"digest"}


def test_what_waits_for_blocking_checks_stays_where_the_delivery_fails_them(shop: Shop) -> None:
    assert gated(shop, 0.2)[1] == set()


def test_a_run_without_one_answer_fires_nothing(shop: Shop) -> None:
    empty = [{"id": name, "body": ""} for name in "ab"]
    defs = shop.definitions([tickets_asset(empty), triage_assets(), digest])
    _, cursor = requested(shop, defs)
    shop.materialize(defs, "tickets", "triage_batch")
    shop.sandbox.finish()
    assert [one.success for one in serve(shop, defs)] == [False]
    assert requested(shop, defs, cursor)[0] == set()


def looked_at(shop: Shop, later: timedelta = timedelta()) -> str:
    """How fresh one round of Dagster's own daemon finds the result asset, by a clock that is ahead by so much."""
    from dagster._core.remote_origin import InProcessCodeLocationOrigin
    from dagster._core.test_utils import freeze_time
    from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
    from dagster._daemon.freshness import FreshnessDaemon

    project = shop.folder / "project.py"
    project.write_text(
        "from pathlib import Path\nfrom tests.on_dagster.actor import definitions\n"
        f"defs = definitions({shop.sandbox.base_url!r}, Path({str(shop.folder)!r}))\n"
    )
    origin = LoadableTargetOrigin(executable_path=sys.executable, python_file=str(project))
    target = InProcessWorkspaceLoadTarget(InProcessCodeLocationOrigin(origin))
    with WorkspaceProcessContext(shop.instance, target) as workspace, freeze_time(datetime.now(UTC) + later):
        list(FreshnessDaemon().run_iteration(workspace))
    key = dg.AssetKey("triage")
    return shop.instance.get_freshness_state_records([key])[key].freshness_state.value


def test_answers_grow_stale_by_the_policy_and_progress_does_not_refresh_them(shop: Shop) -> None:
    defs = definitions(shop.sandbox.base_url, shop.folder)
    shop.materialize(defs, "tickets", "triage_batch")
    states = [looked_at(shop)]
    shop.sandbox.finish()
    shop.materialize(defs, "triage")
    states += [looked_at(shop, timedelta(hours=hours)) for hours in (0, 25, 31)]
    shop.materialize(defs, "triage_batch")
    assert shop.tick(defs).asset_events
    states.append(looked_at(shop, timedelta(hours=31)))
    shop.sandbox.finish()
    shop.materialize(defs, "triage")
    states.append(looked_at(shop))
    assert states == ["UNKNOWN", "PASS", "WARN", "FAIL", "FAIL", "PASS"]


def test_a_freshness_policy_stands_on_the_results(shop: Shop) -> None:
    policy = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=30))
    defs = shop.definitions([tickets_asset(FOUR_ROWS), triage_assets(freshness_policy=policy)])
    specs = {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}
    assert specs["triage"].freshness_policy == policy
    assert specs["triage_batch"].freshness_policy is None
