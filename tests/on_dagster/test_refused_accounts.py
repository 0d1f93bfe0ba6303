"""An account that refuses us: the runs of the others go on, and the tick says so."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import dagster as dg
import pytest

from batchor_dagster import batchor_assets
from batchor_dagster.troubles import _telling
from batchor_engine import BatchJob, OpenAIProviderConfig, ProviderError, RunEvent
from batchor_engine.sandbox import Fault, SandboxServer
from example_project.models import TicketTriage
from tests.on_dagster.shop import FOUR_ROWS, Shop, job_for, tickets_asset, triage_assets


@pytest.fixture
def refused() -> Iterator[SandboxServer]:
    """Another account, whose key will be revoked."""
    with SandboxServer() as server:
        yield server


def assets(refused: SandboxServer) -> list[Any]:
    config = OpenAIProviderConfig(model="gpt-5-mini", base_url=refused.base_url)

    @batchor_assets(name="other", structured_output=TicketTriage)
    def other(tickets: list) -> BatchJob:
        return replace(job_for(tickets), provider_config=config)

    return [tickets_asset(FOUR_ROWS), triage_assets(), other]


def test_a_revoked_key_of_one_account_stops_no_delivery_of_another(shop: Shop, refused: SandboxServer) -> None:
    defs = shop.definitions(assets(refused))
    assert shop.materialize(defs, "tickets", "triage_batch", "other_batch").success
    refused.faults.add(Fault("http_error", on="*", status=401, message="Revoked", times=None))
    first = shop.tick(defs)
    assert first.asset_events
    assert "Revoked" in str(first.skip_reason)
    shop.sandbox.finish()
    (request,) = shop.tick(defs, first.cursor).run_requests or []
    assert request.asset_selection is not None
    assert shop.obey(defs, request).success
    assert shop.instance.get_latest_materialization_event(dg.AssetKey("triage")) is not None


def test_a_tick_that_has_nothing_to_hand_on_is_red_while_a_key_is_refused(shop: Shop, refused: SandboxServer) -> None:
    defs = shop.definitions(assets(refused))
    assert shop.materialize(defs, "tickets", "other_batch").success
    refused.faults.add(Fault("http_error", on="*", status=401, message="Revoked", times=None))
    cursor = shop.tick(defs).cursor
    with pytest.raises(ProviderError, match="Revoked"):
        shop.tick(defs, cursor)


def test_a_submission_that_is_refused_says_why_in_the_steps_log(shop: Shop, capfd: pytest.CaptureFixture[str]) -> None:
    shop.sandbox.faults.add(Fault("http_error", on="batches.create", status=400, message="File f is not processed."))
    defs = shop.definitions()
    assert shop.materialize(defs, "tickets", "triage_batch").success
    assert capfd.readouterr().err.count("a submission failed: ") == 1
    assert shop.paid_lines() == 0


def test_an_observer_of_ones_own_hears_what_a_steps_log_could_not_take() -> None:
    class Full(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("no space left")

    heard: list[RunEvent] = []
    log = logging.Logger("step")
    log.addHandler(Full())
    event = RunEvent("batch_submit_retry", "r", None, {"message": "We are down."})
    with pytest.raises(OSError, match="no space left"):
        _telling(log, heard.append)(event)
    assert heard == [event]


def test_a_long_id_of_a_run_leaves_room_for_the_providers_words() -> None:
    said: list[str] = []
    log = logging.Logger("step")
    log.addFilter(lambda record: said.append(record.getMessage()) or True)
    words = f"{'m' * 400} and here is the limit"
    _telling(log, None)(RunEvent("batch_submit_retry", "r" * 200, None, {"message": words}))
    assert said[0].endswith(words)


def test_a_batch_that_fails_is_told_once_in_the_log_of_the_run_that_fetches_it(
    shop: Shop, capfd: pytest.CaptureFixture[str]
) -> None:
    shop.sandbox.faults.add(Fault("batch_failed", code="server_error", message="The shop is shut."))
    defs = shop.definitions()
    assert shop.materialize(defs, "tickets", "triage_batch").success
    shop.sandbox.finish()
    (request,) = shop.tick(defs).run_requests or []
    capfd.readouterr()
    shop.obey(defs, request)
    assert capfd.readouterr().err.count("a batch failed: The shop is shut.") == 1
