"""Terminate during a submission: the process gets SIGTERM between any two steps, and nothing is left in doubt."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import create_engine, text

from batchor_dagster import BatchorResource, build_batchor_definitions
from batchor_engine import BatchRunner
from batchor_engine.testing import CrashPoints, check_invariants
from tests.on_dagster.shop import FOUR_ROWS, Shop, failure_of, materialized, serve, tickets_asset, triage_assets

GENERATION = {"dagster/backfill": "b1"}
POINTS = ("ingest.part_stored", "submit.intended", "submit.uploaded", "submit.created", "submit.create_noted")


class Terminated(BatchorResource):
    """The resource, in whose submission the process is asked to end at a crash point."""

    at: str

    def runner(self) -> BatchRunner:
        runner = super().runner()
        CrashPoints({self.at: 1}, die=lambda _: os.kill(os.getpid(), signal.SIGTERM)).install(runner)
        return runner


@pytest.fixture(autouse=True)
def _survivor() -> Iterator[None]:
    """Should Dagster not catch the signal, a test fails and the suite lives."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGTERM, before)


def terminated(shop: Shop, at: str, **options: Any) -> dg.Definitions:
    """A shop whose submission was terminated there; the definitions that come back are whole again."""
    assets = [tickets_asset(FOUR_ROWS), triage_assets(**options)]
    whole = shop.definitions(assets)
    assert shop.materialize(whole, "tickets").success
    cut = build_batchor_definitions(
        assets=assets, resources={"batchor": Terminated(**dict(shop.batchor), at=at)}, minimum_interval_seconds=1
    )
    result = shop.materialize(cut, "triage_batch", tags=GENERATION)
    assert not result.success
    assert "DagsterExecutionInterruptedError" in failure_of(result)
    assert len(shop.infos()) == 1
    return whole


def wait_an_hour(shop: Shop) -> None:
    """A call that was begun may reach the provider late, so its intent is waited for; here its note becomes old."""
    engine = create_engine(shop.batchor.store_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE batches SET create_at = create_at - 3600"))
    engine.dispose()


def assert_sent_and_answered_once(shop: Shop, results: list[dg.ExecuteInProcessResult]) -> None:
    assert sum(len(materialized(result, "triage")) for result in results) == 1
    assert (len(shop.infos()), len(shop.sandbox.batches()), shop.paid_lines()) == (1, 1, 4)
    with shop.runner() as runner:
        assert check_invariants(runner) == []


@pytest.mark.parametrize("at", POINTS)
def test_the_sensor_goes_on_with_a_terminated_submission(shop: Shop, at: str) -> None:
    defs = terminated(shop, at)
    wait_an_hour(shop)
    before = serve(shop, defs)
    shop.sandbox.finish()
    assert_sent_and_answered_once(shop, [*before, *serve(shop, defs)])


def test_a_reexecution_goes_on_with_a_terminated_submission_at_once(shop: Shop) -> None:
    defs = terminated(shop, "submit.created")
    assert shop.materialize(defs, "triage_batch", tags=GENERATION).success
    shop.sandbox.finish()
    assert_sent_and_answered_once(shop, serve(shop, defs))


@pytest.mark.parametrize("at", ["ingest.part_stored", "submit.created", "submit.create_noted"])
def test_a_submission_that_is_cancelled_on_termination_leaves_no_batch_alive(shop: Shop, at: str) -> None:
    defs = terminated(shop, at, cancel_on_termination=True)
    wait_an_hour(shop)
    done = serve(shop, defs)
    shop.sandbox.finish()
    done += serve(shop, defs)
    assert "cancelled" in failure_of(done[-1])
    assert {batch["status"] for batch in shop.sandbox.batches()} <= {"cancelled"}
    assert shop.infos()[0].is_finished
    again = shop.materialize(defs, "triage_batch", tags=GENERATION)
    assert "was cancelled, so nothing goes out any more" in failure_of(again)
