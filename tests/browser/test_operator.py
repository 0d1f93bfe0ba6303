"""An operator runs a day of tickets from the UI alone: each step is a click, each outcome is in the store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from batchor_engine import RunControlState
from tests.browser.desk import Desk

# One Dagster for all of them, also when pytest runs in several processes.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser"), pytest.mark.timeout(420)]

DONE, PAUSED, CANCELLED = DAYS = ("2026-03-02", "2026-03-03", "2026-03-04")


@pytest.fixture(autouse=True)
def last_sight(desk: Desk, request: pytest.FixtureRequest) -> Iterator[None]:
    """A failure leaves what was on the page."""
    yield
    desk.keep(f"last-{request.node.name}")


@pytest.fixture(scope="module")
def submitted(desk: Desk) -> Desk:
    """Three days, submitted by a backfill from the catalog."""
    desk.backfill(["tickets", "triage_batch"], DAYS)
    for day in DAYS:
        desk.partition("triage_batch", day)
        desk.seen("batchor/run_id")
    return desk


def test_a_backfill_of_the_batch_asset_submits_every_day(submitted: Desk) -> None:
    for day in DAYS:
        submitted.partition("triage_batch", day)
        info = submitted.run(day)
        submitted.seen(info.run_id)
        submitted.told("batchor/rows", info.summary.total_items)
        assert (info.summary.total_items > 50, len(info.batches), info.is_finished) == (True, 1, False)
    submitted.keep("submitted")


def test_progress_is_on_the_asset_page_while_the_provider_works(submitted: Desk) -> None:
    submitted.asset("triage", "Events")
    submitted.seen("batchor/progress_percent")
    submitted.keep("progress")
    submitted.seen("observed")
    submitted.asset("triage", "Overview")
    submitted.seen("batchor/answered")
    assert not submitted.run(DONE).is_finished


def test_pause_and_resume_from_the_launchpad(submitted: Desk) -> None:
    said = submitted.order("batchor_pause", PAUSED)
    assert "is paused: nothing is submitted or polled until batchor_resume" in said
    assert submitted.run(PAUSED).summary.control_state is RunControlState.PAUSED
    assert submitted.run(DONE).summary.control_state is RunControlState.RUNNING
    said = submitted.order("batchor_resume", PAUSED)
    assert "goes on with the sensor's next tick" in said
    assert submitted.run(PAUSED).summary.control_state is RunControlState.RUNNING


def test_cancel_reaches_the_provider_and_turns_the_partition_red_with_the_reason(submitted: Desk) -> None:
    said = submitted.order("batchor_cancel", CANCELLED)
    assert "is cancelled for good" in said
    submitted.partition("triage", CANCELLED)
    submitted.seen("failed, and did not materialize this asset")
    submitted.keep("cancelled-partition")
    submitted.page.get_by_text("View logs").click()
    submitted.seen("was cancelled (run_cancelled")
    submitted.keep("cancelled-reason")
    submitted.page.get_by_role("button", name="Done").click()
    info = submitted.run(CANCELLED)
    assert (info.is_finished, info.summary.control_state) == (True, RunControlState.CANCEL_REQUESTED)
    (batch,) = [one for one in submitted.sandbox.batches() if one["id"] == info.batches[0].provider_batch_id]
    assert batch["status"] == "cancelled"


def test_a_finished_day_shows_check_plots_preview_and_failed_rows(submitted: Desk) -> None:
    info = submitted.run(DONE)
    submitted.sandbox.finish(info.batches[0].provider_batch_id)
    submitted.partition("triage", DONE)
    submitted.seen("batchor/preview")
    for words in ("T-10000", "batchor/failed_rows", "The model declined to answer.", "batchor/cost"):
        submitted.seen(words)
    expect(submitted.page.locator("td img"), "the picture of the outcomes").to_have_count(1, timeout=30_000)
    submitted.keep("finished-partition")
    submitted.asset("triage", "Checks")
    submitted.page.get_by_text("Execution history").click()
    submitted.seen("Passed")
    submitted.keep("check")
    submitted.asset("triage", "Overview")
    submitted.page.get_by_text("Plots", exact=True).click()
    submitted.page.get_by_text("Events", exact=True).last.click()
    submitted.page.locator("canvas").first.scroll_into_view_if_needed()
    submitted.seen("batchor/progress_percent")
    submitted.keep("plots")
    end = submitted.run(DONE)
    assert end.is_finished
    assert end.summary.completed_items + end.summary.failed_items == end.summary.total_items
    assert end.summary.failed_items >= 1


def test_failed_rows_that_are_retried_get_their_answers_and_leave_the_partition_green(submitted: Desk) -> None:
    before, known = submitted.run(DONE), submitted.batches(DONE)
    rows, failed = before.summary.total_items, before.summary.failed_items
    submitted.partition("triage", DONE)
    submitted.told("batchor/failed", failed)
    submitted.model.lenient = True
    said = submitted.order("batchor_retry_failed", DONE)
    assert said.startswith(f"{failed} failed row")
    assert "a new attempt; the sensor submits and delivers" in said
    again = submitted.new_batch(DONE, known)
    submitted.sandbox.finish(again)
    submitted.partition("triage", DONE)
    submitted.told("batchor/completed", rows)
    submitted.told("batchor/failed", 0)
    submitted.keep("retried-partition")
    end = submitted.run(DONE)
    assert (end.run_id, end.is_finished, end.summary.completed_items) == (before.run_id, True, rows)
    assert [len(submitted.sandbox.paid(one)) for one in (*known, again)] == [rows, failed]
    submitted.asset("triage", "Partitions")
    submitted.seen("Materialized (1)")
    submitted.keep("retried")
