"""A check's execution history: one line for each delivery, none for a round that delivers nothing."""

from __future__ import annotations

from dataclasses import replace

import dagster as dg

from batchor_dagster import BatchorChecks, batchor_assets
from batchor_engine import BatchJob, ChunkPolicy
from example_project.models import TicketTriage
from tests.on_dagster.shop import (
    FOUR_ROWS,
    Rows,
    Shop,
    control,
    failure_of,
    job_for,
    materialized,
    serve,
    tickets_asset,
)

CHECK = dg.AssetCheckKey(dg.AssetKey("triage"), "failure_rate")


def by_twos(shop: Shop, rows: Rows = FOUR_ROWS, *, allowed: float = 0.3, blocking: bool = False) -> dg.Definitions:
    """Assets whose rows are with the provider, two in each batch."""

    @batchor_assets(
        name="triage",
        structured_output=TicketTriage,
        checks=BatchorChecks(max_failure_rate=allowed, blocking=blocking),
    )
    def triage(tickets: list) -> BatchJob:
        return replace(job_for(tickets), chunk_policy=ChunkPolicy(max_requests=2))

    defs = shop.definitions([tickets_asset(rows), triage])
    assert shop.materialize(defs, "tickets", "triage_batch").success
    return defs


def history(shop: Shop) -> list[str]:
    """What Dagster's page of the check shows: the state of each execution, the oldest first."""
    found = shop.instance.event_log_storage.get_asset_check_execution_history(CHECK, limit=20)
    return [record.status.value for record in reversed(found)]


def test_a_round_that_delivers_nothing_leaves_no_line_and_the_delivery_leaves_one(shop: Shop) -> None:
    defs = by_twos(shop)
    shop.sandbox.finish(str(shop.sandbox.batches()[0]["id"]))
    (round_,) = serve(shop, defs)
    assert round_.success
    assert (materialized(round_, "triage"), history(shop)) == ([], [])
    shop.sandbox.finish()
    (delivery,) = serve(shop, defs)
    assert (len(materialized(delivery, "triage")), history(shop)) == (1, ["SUCCEEDED"])


def test_a_check_that_no_run_planned_counts_for_the_materialization_it_came_with(shop: Shop) -> None:
    defs = by_twos(shop, allowed=0.2)
    shop.sandbox.finish()
    (delivery,) = serve(shop, defs)
    (found,) = delivery.get_asset_check_evaluations()
    assert (found.passed, found.blocking, found.metadata["failure_rate"].value) == (False, False, 0.25)
    (record,) = shop.instance.event_log_storage.get_asset_check_execution_history(CHECK, limit=2)
    assert (record.status.value, record.run_id) == ("FAILED", delivery.run_id)
    assert delivery.success


def test_a_blocking_check_is_obeyed_though_no_run_planned_it(shop: Shop) -> None:
    defs = by_twos(shop, allowed=0.0, blocking=True)
    shop.sandbox.finish()
    (delivery,) = serve(shop, defs)
    assert "1 blocking asset check failed with ERROR severity" in failure_of(delivery)
    assert (len(materialized(delivery, "triage")), history(shop)) == (1, ["FAILED"])


def test_rows_that_a_person_takes_without_checks_are_checked_all_the_same(shop: Shop) -> None:
    defs = by_twos(shop, allowed=0.0, blocking=True)
    shop.sandbox.finish()
    unchecked = dg.RunRequest(asset_selection=[CHECK.asset_key], asset_check_keys=[])
    with shop.runner() as runner:
        runner.get_run(shop.infos()[0].run_id).wait(timeout=60)
    assert "1 blocking asset check failed" in failure_of(shop.obey(defs, unchecked))
    assert history(shop) == ["FAILED"]


def test_a_run_without_one_answer_fails_the_check_and_a_cancelled_one_leaves_it_alone(shop: Shop) -> None:
    defs = by_twos(shop, [{"id": name, "body": ""} for name in "ab"], blocking=True)
    shop.sandbox.finish()
    (red,) = serve(shop, defs)
    assert "All 2 rows" in failure_of(red)
    assert history(shop) == ["FAILED"]
    assert shop.materialize(defs, "triage_batch").success
    assert control(shop, defs, "cancel", asset="triage").success
    shop.sandbox.finish()
    assert ["was cancelled" in failure_of(one) for one in serve(shop, defs)] == [True]
    assert history(shop) == ["FAILED"]
