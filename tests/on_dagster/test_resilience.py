"""Killed daemons and workers, a dead provider, a locked database: the partition ends right once, and costs once."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest

from batchor_dagster import BatchorMetadataSet
from batchor_engine.sandbox import Fault
from batchor_engine.testing import check_invariants
from tests.on_dagster.actor import ENGINE_POINTS, GIVEN_UP_VARIABLE, TICK_POINTS
from tests.on_dagster.family import running
from tests.on_dagster.shop import Shop, materialized, triage_that_waits

ROOT = Path(__file__).parents[2]
HOUR = 3600.0


def act(shop: Shop, *options: str) -> subprocess.Popen[str]:
    """Start one round of a daemon in a process of its own."""
    command = [sys.executable, "-m", "tests.on_dagster.actor", shop.sandbox.base_url, str(shop.folder), *options]
    home = {"DAGSTER_HOME": str(shop.instance.root_directory), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **home}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    said, _ = process.communicate(timeout=120)
    return process.returncode, said.strip()


def delivered(shop: Shop) -> list[BatchorMetadataSet]:
    """What Dagster shows of the result asset, one entry for each time that it was materialized."""
    records = shop.instance.fetch_materializations(dg.AssetKey("triage"), limit=20).records
    return [
        BatchorMetadataSet.extract(one.asset_materialization.metadata) for one in records if one.asset_materialization
    ]


def assert_right_once(shop: Shop) -> None:
    """Four rows were paid, three have an answer, and the asset shows that, once."""
    (info,) = shop.infos()
    assert (info.summary.completed_items, info.summary.failed_items) == (3, 1)
    (shown,) = delivered(shop)
    assert (shown.run_id, shown.completed, shown.failed) == (info.run_id, 3, 1)
    assert (len(shop.sandbox.batches()), shop.paid_lines()) == (1, 4)
    with shop.runner() as runner:
        assert check_invariants(runner) == []


@pytest.mark.slow
@pytest.mark.parametrize("point", [*TICK_POINTS, *ENGINE_POINTS])
def test_a_process_killed_at_any_step_of_a_tick_or_of_its_run_changes_nothing_in_the_end(
    shop: Shop, point: str
) -> None:
    defs = shop.definitions()
    assert shop.materialize(defs, "tickets", "triage_batch").success
    shop.sandbox.finish()
    assert ended(act(shop, "--die-at", point)) == (-signal.SIGKILL, "")
    # An hour later, so that a run whose worker is gone is given up.
    assert ended(act(shop, "--later", str(HOUR)))[0] == 0
    assert_right_once(shop)
    assert not shop.tick(defs).run_requests


@pytest.mark.slow
def test_two_daemons_at_once_pay_nothing_twice(shop: Shop) -> None:
    defs = shop.definitions()
    assert shop.materialize(defs, "tickets", "triage_batch").success
    shop.sandbox.finish()
    both = [act(shop), act(shop)]
    assert [ended(one)[0] for one in both] == [0, 0]
    while requests := shop.tick(defs).run_requests:
        shop.obey(defs, requests[0])
    (info,) = shop.infos()
    assert (info.summary.completed_items, info.summary.failed_items) == (3, 1)
    assert {(one.completed, one.failed) for one in delivered(shop)} == {(3, 1)}
    assert (len(shop.sandbox.batches()), shop.paid_lines()) == (1, 4)


def test_a_provider_that_is_down_for_an_hour_delays_a_run_and_costs_nothing(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    defs = shop.definitions(triage_that_waits(0.0))
    real, ahead = time.time, [0.0]
    monkeypatch.setattr("batchor_dagster.tick.time.time", lambda: real() + ahead[0])
    shop.sandbox.faults.add(Fault("http_error", on="*", status=503, times=None))
    assert shop.materialize(defs, "tickets", "triage_batch").success
    for _ in range(4):
        ahead[0] += HOUR / 4
        for request in shop.tick(defs).run_requests or []:
            assert shop.obey(defs, request).success
    assert (shop.sandbox.batches(), delivered(shop)) == ([], [])
    shop.sandbox.faults.clear()
    ahead[0] += HOUR
    (sends,) = shop.tick(defs).run_requests or []
    shop.obey(defs, sends)
    shop.sandbox.finish()
    (collects,) = shop.tick(defs).run_requests or []
    assert len(materialized(shop.obey(defs, collects), "triage")) == 1
    assert_right_once(shop)


def test_downloads_that_fail_for_an_hour_delay_a_run_and_cost_nothing(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    defs = shop.definitions(triage_that_waits(0.0))
    real, ahead = time.time, [0.0]
    monkeypatch.setattr("batchor_dagster.tick.time.time", lambda: real() + ahead[0])
    assert shop.materialize(defs, "tickets", "triage_batch").success
    shop.sandbox.finish()
    shop.sandbox.faults.add(Fault("http_error", on="files.content", status=503, times=None))
    tried = 0
    for _ in range(4):
        ahead[0] += HOUR / 4
        for request in shop.tick(defs).run_requests or []:
            shop.obey(defs, request)
            tried += 1
    assert tried > 0
    assert delivered(shop) == []
    shop.sandbox.faults.clear()
    ahead[0] += HOUR
    (again,) = shop.tick(defs).run_requests or []
    assert len(materialized(shop.obey(defs, again), "triage")) == 1
    assert_right_once(shop)


def test_a_locked_database_fails_a_tick_with_one_sentence_and_the_next_goes_on(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchor_engine.storage.engine.BUSY_TIMEOUT_SEC", 0.2)
    defs = shop.definitions()
    assert shop.materialize(defs, "tickets", "triage_batch").success
    shop.sandbox.finish()
    blocker = sqlite3.connect(shop.folder / "runs.sqlite3")
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(Exception, match="stayed locked by another process"):
        shop.tick(defs)
    blocker.rollback()
    blocker.close()
    (request,) = shop.tick(defs).run_requests or []
    shop.obey(defs, request)
    assert_right_once(shop)


@contextmanager
def daemon(shop: Shop, *, given_up_sec: float) -> Iterator[None]:
    """A real daemon with its code server and its run workers, all of which are killed at the end."""
    told = {GIVEN_UP_VARIABLE: str(given_up_sec), "FRESHNESS_DAEMON_INTERVAL_SECONDS": "1"}
    with running(shop, "dagster-daemon", "run", "-m", "tests.on_dagster.daemon_project", log="daemon.log", **told):
        yield


def freshness(shop: Shop) -> str:
    """How fresh Dagster's daemon last found the result asset."""
    key = dg.AssetKey("triage")
    record = shop.instance.get_freshness_state_records([key]).get(key)
    return record.freshness_state.value if record else ""


def until(true: Callable[[], object], shop: Shop, limit_sec: float = 120.0) -> None:
    end = time.monotonic() + limit_sec
    while not true():
        assert time.monotonic() < end, (shop.folder / "daemon.log").read_text()[-4000:]
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.timeout(480)
def test_a_real_daemon_killed_with_its_code_server_and_its_worker_in_the_middle_of_a_download(shop: Shop) -> None:
    defs = shop.definitions()
    assert shop.materialize(defs, "tickets", "triage_batch").success
    with daemon(shop, given_up_sec=5):
        until(lambda: "batches.list" in str(shop.sandbox.journal()), shop)
    shop.sandbox.faults.add(Fault("delay", on="files.content", seconds=15))
    shop.sandbox.finish()
    with daemon(shop, given_up_sec=5):
        until(lambda: shop.sandbox.faults.listing()[0]["fired"], shop)
    assert delivered(shop) == []
    with daemon(shop, given_up_sec=5):
        until(lambda: delivered(shop), shop)
    assert_right_once(shop)


@pytest.mark.slow
@pytest.mark.timeout(480)
def test_a_real_daemon_finds_the_delivery_fresh_and_makes_what_is_eager_downstream(shop: Shop) -> None:
    defs = shop.definitions()
    assert shop.materialize(defs, "tickets", "triage_batch").success
    with daemon(shop, given_up_sec=HOUR):
        # A condition compares with its first evaluation, so that one must come before the delivery.
        until(lambda: "Tick produced" in (shop.folder / "daemon.log").read_text(), shop)
        until(lambda: freshness(shop) == "UNKNOWN", shop)
        shop.sandbox.finish()
        until(lambda: shop.instance.fetch_materializations(dg.AssetKey("digest"), limit=1).records, shop)
        until(lambda: freshness(shop) == "PASS", shop)
