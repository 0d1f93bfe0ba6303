"""A re-execution whose rows have changed since says so where the person who re-executes looks."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import dagster as dg
import pytest

from batchor_dagster import batchor_assets
from batchor_engine import BatchItem, BatchJob
from example_project.models import TicketTriage
from tests.on_dagster.shop import (
    DAY,
    FOUR_ROWS,
    NEXT_DAY,
    Rows,
    Shop,
    days,
    job_for,
    tickets_asset,
    triage_assets,
)
from tests.on_dagster.submitting import asked, place, submit_next, with_tickets

MORE: Rows = [*FOUR_ROWS, {"id": "e", "body": "Another."}]


def logged(shop: Shop, result: dg.ExecuteInProcessResult) -> list[str]:
    """The warnings in Dagster's own log of a run."""
    entries = shop.instance.all_logs(result.run_id)
    return [one.user_message for one in entries if one.dagster_event is None and one.level == 30]


@pytest.fixture
def rows() -> Rows:
    return list(FOUR_ROWS)


def warning_prompt(item: BatchItem[Any]) -> str:
    warnings.warn("said by the prompt", stacklevel=1)
    return f"Subject: \nBody:\n{item.payload['body']}"


@pytest.fixture
def defs(shop: Shop, rows: Rows) -> dg.Definitions:
    @batchor_assets(name="triage", structured_output=TicketTriage, partitions_def=days)
    def triage() -> BatchJob:
        return replace(job_for(rows), build_prompt=warning_prompt)

    return shop.definitions([triage])


def submit(shop: Shop, defs: dg.Definitions, day: str, backfill: str) -> list[str]:
    done = shop.materialize(defs, "triage_batch", partition_key=day, tags={"dagster/backfill": backfill})
    assert done.success
    return logged(shop, done)


def test_a_reexecution_with_another_source_says_so_in_the_log_of_its_run(
    shop: Shop, defs: dg.Definitions, rows: Rows
) -> None:
    for day in (DAY, NEXT_DAY):
        with pytest.warns(UserWarning, match="said by the prompt"):
            assert submit(shop, defs, day, "one") == []
    rows[:] = MORE
    for day in (DAY, NEXT_DAY, DAY):
        (told,) = submit(shop, defs, day, "one")
        assert told.startswith(f"triage[{day}]: The source has changed since run 'triage-{day}-")
        assert told.endswith("read it; nothing of the change is sent: materialize in a new run for a new generation.")
    with pytest.warns(UserWarning, match="said by the prompt"):
        assert submit(shop, defs, DAY, "two") == []
    shop.sandbox.finish()
    assert shop.paid_lines() == len(FOUR_ROWS) * 2 + len(MORE)


def test_new_rows_of_a_wiped_partition_are_not_resubmitted_and_the_log_of_the_sensors_run_says_so(
    shop: Shop, rows: Rows
) -> None:
    defs = place(shop, tickets_asset(rows, days), triage_assets(partitions_def=days), on_upstream_update="resubmit")
    with_tickets(shop, defs, DAY)
    died = submit_next(shop, defs)
    shop.instance.wipe_assets([dg.AssetKey("triage_batch")])
    shop.instance.delete_run(died.run_id)
    rows[:] = MORE
    with_tickets(shop, defs, DAY)
    (told,) = logged(shop, submit_next(shop, defs))
    assert told.startswith(f"triage[{DAY}]: The source has changed since run 'triage-{DAY}-")
    assert told.endswith("read it; nothing of the change is sent: materialize in a new run for a new generation.")
    assert asked(shop, defs) == []
    assert len(shop.infos()) == 1
    assert shop.materialize(defs, "triage_batch", partition_key=DAY).success
    shop.sandbox.finish()
    assert shop.paid_lines() == len(FOUR_ROWS) + len(MORE)
