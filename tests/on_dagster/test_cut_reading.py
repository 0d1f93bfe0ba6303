"""A submission that was cut while it read its rows: nobody takes what was read for all, and all say how it goes on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import dagster as dg
import pytest

from batchor_dagster import BatchorMetadataSet, batchor_assets, build_batchor_submission_sensor
from batchor_engine import BatchItem, BatchJob, ItemSource, OpenAIProviderConfig
from example_project.models import TicketTriage
from tests.on_dagster.shop import DAY, FOUR_ROWS, NEXT_DAY, Shop, control, days, said, serve
from tests.on_dagster.test_submission_sensor import asked

PAID_ROWS = 2


@dataclass
class Cable:
    """A source that breaks after two rows, until somebody mends it."""

    mended: bool = False


class Rows(ItemSource[Any]):
    def __init__(self, cable: Cable) -> None:
        self._cable = cable

    def __iter__(self) -> Iterator[BatchItem[Any]]:
        for place, row in enumerate(FOUR_ROWS):
            if place == PAID_ROWS and not self._cable.mended:
                raise RuntimeError("the connection is lost")
            yield BatchItem(row["id"], {"body": row["body"] or "empty"})


def place(shop: Shop, cable: Cable, **options: Any) -> dg.Definitions:
    @batchor_assets(name="triage", structured_output=TicketTriage, partitions_def=days)
    def triage() -> BatchJob:
        return BatchJob(
            items=Rows(cable),
            build_prompt=lambda item: f"Subject: \nBody:\n{item.payload['body']}",
            provider_config=OpenAIProviderConfig(model="gpt-5-mini"),
        )

    sensor = build_batchor_submission_sensor(assets=triage, **options)
    return dg.Definitions.merge(shop.definitions(triage), dg.Definitions(sensors=[sensor]))


def cut(shop: Shop, defs: dg.Definitions) -> dg.ExecuteInProcessResult:
    """A submission that failed after two rows, which are read, paid and fetched."""
    failed = shop.materialize(defs, "triage_batch", partition_key=DAY)
    assert not failed.success
    serve(shop, defs)
    shop.sandbox.finish()
    serve(shop, defs)
    assert shop.paid_lines() == PAID_ROWS
    return failed


def way_out(run: dg.ExecuteInProcessResult) -> str:
    return (
        f"Of triage[{DAY}] only the first 2 rows were read: re-execute Dagster run {run.run_id} to read on, or "
        "materialize triage_batch again, which pays for all rows."
    )


def latest_observation(shop: Shop) -> dg.AssetObservation:
    (record,) = shop.instance.fetch_observations(dg.AssetKey("triage"), limit=1).records
    assert record.asset_observation
    return record.asset_observation


def test_a_tick_after_a_cut_reading_says_which_rows_are_missing_and_how_they_are_read(shop: Shop) -> None:
    defs = place(shop, Cable())
    failed = cut(shop, defs)
    tick = shop.tick(defs)
    assert tick.skip_reason
    assert tick.skip_reason.skip_message == (
        f"1 run in flight: 2 of the 2 rows read so far answered. {way_out(failed)}"
    )


def test_a_cut_reading_is_observed_once_without_a_share_of_rows_that_nobody_has_counted(shop: Shop) -> None:
    defs = place(shop, Cable())
    failed = cut(shop, defs)
    observed = latest_observation(shop)
    told = BatchorMetadataSet.extract(observed.metadata)
    assert (told.answered, told.rows, told.progress_percent, told.progress) == (2, 2, None, None)
    assert observed.description == told.reading == way_out(failed)
    assert shop.tick(defs).asset_events == []


def test_the_result_asset_promises_no_delivery_of_a_cut_reading(shop: Shop, capfd: pytest.CaptureFixture[str]) -> None:
    defs = place(shop, Cable())
    failed = cut(shop, defs)
    capfd.readouterr()
    shop.materialize(defs, "triage", partition_key=DAY)
    logged = capfd.readouterr().err
    assert way_out(failed) in logged
    assert "when the provider is done" not in logged


@pytest.mark.parametrize("order", ["refresh", "collect", "pause"])
def test_every_job_on_a_cut_reading_says_how_the_rest_is_read(shop: Shop, order: str) -> None:
    defs = place(shop, Cable())
    failed = cut(shop, defs)
    assert said(shop, control(shop, defs, order)).endswith(way_out(failed))


def test_the_way_out_of_a_cut_reading_reads_the_rest_and_pays_nothing_twice(shop: Shop) -> None:
    cable = Cable()
    defs = place(shop, cable)
    failed = cut(shop, defs)
    cable.mended = True
    assert shop.materialize(defs, "triage_batch", partition_key=DAY, tags={"batchor/generation": failed.run_id}).success
    shop.sandbox.finish()
    serve(shop, defs)
    (info,) = shop.infos()
    assert info.is_finished
    assert (info.summary.total_items, shop.paid_lines()) == (4, 4)
    assert "No run is in flight" in str(shop.tick(defs).skip_reason)


def test_a_reading_whose_dagster_run_has_not_ended_is_not_called_cut(shop: Shop) -> None:
    defs = place(shop, Cable())
    failed = cut(shop, defs)
    reader = shop.instance.get_run_by_id(failed.run_id)
    assert reader
    shop.instance.delete_run(failed.run_id)
    shop.instance.add_run(reader.with_status(dg.DagsterRunStatus.STARTED))
    assert str(shop.tick(defs).skip_reason).endswith(
        f"only the first 2 rows were read, and Dagster run {failed.run_id} has not ended: if its worker is gone, end "
        "that run and re-execute it.')"
    )


def test_a_cut_reading_whose_dagster_run_was_deleted_is_resumed_from_the_launchpad(shop: Shop) -> None:
    cable = Cable()
    defs = place(shop, cable)
    shop.instance.delete_run(cut(shop, defs).run_id)
    assert "materialize triage_batch with generation: resume in its launchpad" in str(shop.tick(defs).skip_reason)
    cable.mended = True
    config = {"ops": {"triage_batch": {"config": {"batchor": {"generation": "resume"}}}}}
    assert shop.materialize(defs, "triage_batch", partition_key=DAY, run_config=config).success
    shop.sandbox.finish()
    serve(shop, defs)
    assert shop.paid_lines() == 4


def test_a_reading_that_was_paused_says_so_on_the_submission(shop: Shop, capfd: pytest.CaptureFixture[str]) -> None:
    cable = Cable()
    defs = place(shop, cable)
    failed = cut(shop, defs)
    assert control(shop, defs, "pause").success
    cable.mended = True
    again = shop.materialize(defs, "triage_batch", partition_key=DAY, tags={"batchor/generation": failed.run_id})
    (event,) = again.asset_materializations_for_node("triage_batch")
    assert "only the first 2 rows were read" in str(BatchorMetadataSet.extract(event.metadata).reading)
    assert f"re-execute Dagster run {again.run_id} to read on" in capfd.readouterr().err


def test_a_cut_reading_that_a_later_run_answers_is_no_run_in_flight(shop: Shop) -> None:
    cable = Cable()
    defs = place(shop, cable)
    cut(shop, defs)
    cable.mended = True
    assert shop.materialize(defs, "triage_batch", partition_key=DAY).success
    assert "1 run in flight: 0 of 4 rows answered." in str(shop.tick(defs).skip_reason)
    shop.sandbox.finish()
    serve(shop, defs)
    assert "No run is in flight." in str(shop.tick(defs).skip_reason)


def test_a_cut_reading_that_a_later_run_answers_takes_no_place_of_what_is_due(shop: Shop) -> None:
    cable = Cable()
    defs = place(shop, cable, max_runs_in_flight=1)
    cut(shop, defs)
    assert asked(shop, defs) == []
    cable.mended = True
    assert shop.materialize(defs, "triage_batch", partition_key=DAY).success
    assert asked(shop, defs) == []
    shop.sandbox.finish()
    serve(shop, defs)
    assert asked(shop, defs) == [NEXT_DAY]
