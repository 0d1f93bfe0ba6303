"""Backfills of single-run assets as Dagster's page asks for them, cut into runs by a real daemon."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dagster as dg
import pytest

from batchor_engine.testing import check_invariants
from example_project.demo.dagster_api import ENDED, DagsterApi, DagsterRun
from example_project.demo.processes import any_free_port
from tests.on_dagster.family import running
from tests.on_dagster.shop import Shop, days

CUT = {"dagster/asset_partition_range_start", "dagster/asset_partition_range_end"}


@contextmanager
def dagster_dev(shop: Shop) -> Iterator[DagsterApi]:
    """Dagster's page, daemon and code server, with every run that they start; all of it is killed at the end."""
    port = any_free_port()
    place = ["-m", "tests.on_dagster.range_project", "-h", "127.0.0.1", "-p", str(port)]
    with running(shop, "dagster", "dev", *place, log="dagster.log"):
        api = DagsterApi(port)
        until(api.is_loaded, shop)
        yield api


def until(true: Callable[[], object], shop: Shop, limit_sec: float = 180.0) -> None:
    end = time.monotonic() + limit_sec
    while not true():
        assert time.monotonic() < end, (shop.folder / "dagster.log").read_text()[-4000:]
        time.sleep(0.3)


def ended(api: DagsterApi, asset: str, count: int) -> list[DagsterRun]:
    """The runs of an asset, once there are so many and all have ended."""
    found = [run for run in api.runs() if run.assets == {asset}]
    return found if len(found) >= count and all(run.status in ENDED for run in found) else []


def failed(api: DagsterApi, asset: str) -> bool:
    return any(run.status == "FAILURE" for run in api.runs() if run.assets == {asset})


def cuts(runs: list[DagsterRun]) -> list[list[str]]:
    """The ends of the ranges that runs were started for, in order."""
    return sorted(sorted({run.tags[tag] for tag in CUT}) for run in runs if set(run.tags) >= CUT)


@pytest.mark.slow
@pytest.mark.timeout(480)
def test_a_daemon_cuts_a_backfill_into_ranges_and_each_partition_ends_right_once(shop: Shop) -> None:
    chosen = ["2026-03-02", "2026-03-03", "2026-03-05"]
    with dagster_dev(shop) as api:
        api.backfill(["triage_batch"], chosen)
        until(lambda: ended(api, "triage_batch", 2), shop)
        submitted = ended(api, "triage_batch", 2)
        assert cuts(submitted) == [["2026-03-02", "2026-03-03"], ["2026-03-05"]]
        assert len(shop.sandbox.batches()) == 2
        # Running a range again goes on with the run that it has paid for.
        api.run_again(next(run.run_id for run in submitted if len(cuts([run])[0]) == 2))
        until(lambda: ended(api, "triage_batch", 3), shop)
        log = (shop.folder / "dagster.log").read_text()
        assert {run.status for run in ended(api, "triage_batch", 3)} == {"SUCCESS"}, log[-8000:]
        shop.sandbox.finish()
        until(lambda: len(api.materialized_by("triage", chosen)) == 2 and failed(api, "triage"), shop)
        until(lambda: all(run.status in ENDED for run in api.runs()), shop)
    shown = shop.instance.get_status_by_partition(dg.AssetKey("triage"), chosen, days) or {}
    assert {key: status.value for key, status in shown.items() if status} == {
        "2026-03-02": "MATERIALIZED",
        "2026-03-03": "FAILED",
        "2026-03-05": "MATERIALIZED",
    }
    assert (len(shop.sandbox.batches()), shop.paid_lines()) == (2, 5)
    with shop.runner() as runner:
        assert check_invariants(runner) == []
