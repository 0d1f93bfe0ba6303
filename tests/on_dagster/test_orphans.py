"""Runs whose asset was renamed: nobody delivers them, so every tick says which they are and what to do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import Engine, event

from batchor_dagster import build_batchor_io_manager, build_batchor_polling_sensor
from batchor_dagster.assets import IO_MANAGER_KEY, flatten
from batchor_dagster.engine_runs import Slot
from batchor_dagster.orphans import orphans_message
from example_project.models import TicketTriage
from tests.on_dagster.shop import FOUR_ROWS, Shop, control, job_for, serve, tickets_asset, triage_assets


def skipped(result: dg.SensorResult) -> str:
    assert result.skip_reason
    return str(result.skip_reason.skip_message)


def start(shop: Shop, *assets: str) -> list[str]:
    """Runs at the provider, one for each of these asset names."""
    ids = [Slot(asset).run_id(str(number)) for number, asset in enumerate(assets)]
    with shop.runner() as runner:
        for run_id, asset in zip(ids, assets, strict=True):
            job = replace(job_for(FOUR_ROWS), structured_output=TicketTriage)
            runner.start(job, run_id=run_id, labels=Slot(asset).labels(generation="g"))
    return ids


def test_runs_of_a_renamed_asset_are_named_by_every_tick_with_the_way_out(shop: Shop) -> None:
    assert shop.materialize(shop.definitions(), "tickets", "triage_batch").success
    (run,) = shop.infos()
    shop.sandbox.finish()
    renamed = shop.definitions([tickets_asset(FOUR_ROWS), triage_assets(name="sorted")])
    ticks = [shop.tick(renamed), shop.tick(renamed)]
    for tick in ticks:
        assert not tick.run_requests
        assert not tick.asset_events
        assert skipped(tick) == (
            "No run of an asset here is in flight. No batch asset of this code location is called 'triage' (1 "
            "unfinished run): nothing here sends, fetches or delivers for them. Unless another code location does, "
            f"give the asset its name back, or launch job batchor_refresh with run_id {run.run_id!r} until it is over, "
            "then batchor_export."
        )
    assert len(serve(shop, shop.definitions())) == 1


def test_a_tick_that_asks_for_runs_names_those_of_a_renamed_asset_in_its_log(
    shop: Shop, capfd: pytest.CaptureFixture[str]
) -> None:
    start(shop, "old")
    defs = shop.definitions()
    assert shop.materialize(defs, "tickets", "triage_batch").success
    assert len(shop.tick(defs).run_requests or []) == 0
    shop.sandbox.finish()
    capfd.readouterr()
    assert len(shop.tick(defs).run_requests or []) == 1
    assert "No batch asset of this code location is called 'old' (1 unfinished run)" in capfd.readouterr().err


def test_by_hand_a_run_of_a_renamed_asset_comes_to_its_end_and_no_job_promises_the_sensor(
    shop: Shop, capfd: pytest.CaptureFixture[str]
) -> None:
    (run_id,) = start(shop, "old")
    shop.sandbox.finish()
    defs = shop.definitions()

    def said(order: str) -> str:
        result = control(shop, defs, order, run_id=run_id)
        assert result.success
        return str(capfd.readouterr().err)

    said("pause")
    resumed, refreshed, exported = said("resume"), said("refresh"), said("export")
    nobody = (
        "no batch asset of 'batchor' here is called 'old', so unless another code location has it no sensor goes on "
        "with the run"
    )
    assert f"{nobody}: each launch of batchor_refresh does a round." in resumed
    assert f"it is over, and {nobody}: batchor_export copies its answers." in refreshed
    assert "results in" in exported
    assert skipped(shop.tick(defs)) == "No run is in flight."


def test_a_job_does_not_deny_the_sensor_of_another_code_location(shop: Shop, capfd: pytest.CaptureFixture[str]) -> None:
    here = shop.definitions([tickets_asset(FOUR_ROWS), triage_assets(name="ours")])
    there = shop.definitions([tickets_asset(FOUR_ROWS), triage_assets(name="theirs")])
    assert shop.materialize(there, "tickets", "theirs_batch").success
    (run,) = shop.infos()
    for order in ("pause", "resume"):
        capfd.readouterr()
        assert control(shop, here, order, run_id=run.run_id).success
    assert "unless another code location has it no sensor goes on" in capfd.readouterr().err
    shop.sandbox.finish()
    assert [result.success for result in serve(shop, there)] == [True]


def test_the_assets_of_another_sensor_or_resource_and_runs_without_dagster_are_no_orphans(shop: Shop) -> None:
    start(shop, "archived", "others")
    with shop.runner() as runner:
        runner.start(job_for(FOUR_ROWS), run_id="by-hand", labels={"asset": "mine"})
    others = [triage_assets(name="others"), triage_assets(name="archived", resource_key="archive")]
    assets: list[Any] = [tickets_asset(FOUR_ROWS), triage_assets(), *others]
    io_manager = build_batchor_io_manager()
    defs = dg.Definitions(
        assets=list(flatten(assets)),
        resources={"batchor": shop.batchor, "archive": shop.batchor, IO_MANAGER_KEY: io_manager},
        sensors=[
            build_batchor_polling_sensor(assets=assets[1]),
            build_batchor_polling_sensor(assets=others, name="another"),
        ],
    )
    assert skipped(shop.tick(defs)) == (
        "No run that this sensor watches is in flight. Another sensor of this store has to watch those of 'others' (1 "
        "unfinished run) and 'archived' (1 unfinished run); where none does, give the asset its resource_key back."
    )


def test_a_run_whose_asset_was_moved_to_another_store_is_named(shop: Shop, tmp_path: Path) -> None:
    assert shop.materialize(shop.definitions(), "tickets", "triage_batch").success
    (tmp_path / "archive").mkdir()
    moved, second = triage_assets(resource_key="archive"), triage_assets(name="second")
    archive = replace(shop, folder=tmp_path / "archive", store_url="", artifacts_url="").batchor
    defs = dg.Definitions(
        assets=list(flatten([tickets_asset(FOUR_ROWS), moved, second])),
        resources={"batchor": shop.batchor, "archive": archive, IO_MANAGER_KEY: build_batchor_io_manager()},
        sensors=[build_batchor_polling_sensor(assets=second)],
    )
    start(shop, "gone")
    told = skipped(shop.tick(defs))
    assert "Another sensor of this store has to watch those of 'triage' (1 unfinished run); where none does" in told
    assert "No batch asset of this code location is called 'gone' (1 unfinished run)" in told


def test_any_number_of_orphans_is_said_shortly(shop: Shop) -> None:
    start(shop, *["many"] * 3, *["two"] * 2, "b" * 300, "c", "d")
    with shop.runner() as runner:
        found = runner.find_runs(unfinished=True)
    told = orphans_message(found, "batchor")
    assert "called 'many' (3 unfinished runs) or 'two' (2 unfinished runs) or " in told
    assert "or 2 more names of unfinished runs: nothing" in told
    assert len(orphans_message(found * 100, "batchor")) < 800


def test_many_orphans_take_no_more_queries_than_a_few(shop: Shop) -> None:
    defs, said = shop.definitions(), list[str]()

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        said.append(statement)

    def queries() -> int:
        said.clear()
        event.listen(Engine, "before_cursor_execute", note)
        try:
            assert "called 'old'" in skipped(shop.tick(defs))
        finally:
            event.remove(Engine, "before_cursor_execute", note)
        return len(said)

    names = ["old"] * 12
    start(shop, *names[:5])
    few = queries()
    start(shop, *names)
    assert 0 < queries() <= few
