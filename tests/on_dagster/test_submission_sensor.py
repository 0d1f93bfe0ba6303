"""The submission sensor: what is due, how much of it goes out, and that nothing is paid twice."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from batchor_dagster import batchor_assets, build_batchor_submission_sensor
from batchor_engine import BatchJob, OpenAIEnqueueLimitConfig, OpenAIProviderConfig
from example_project.models import TicketTriage
from tests.on_dagster.shop import DAY, FOUR_ROWS, NEXT_DAY, Shop, days, job_for, tickets_asset, triage_assets
from tests.on_dagster.submitting import asked, place, submit_next, tick, with_tickets

THIRD_DAY = "2026-03-04"


def note(shop: Shop, request: dg.RunRequest, status: dg.DagsterRunStatus) -> None:
    shop.instance.add_run(dg.DagsterRun("job", status=status, tags=dict(request.tags)))


def test_only_partitions_with_upstream_are_due_oldest_first(shop: Shop) -> None:
    defs = place(shop)
    assert asked(shop, defs) == []
    with_tickets(shop, defs, THIRD_DAY, NEXT_DAY)
    assert submit_next(shop, defs).asset_materializations_for_node("triage_batch")[0].partition == NEXT_DAY
    with_tickets(shop, defs, DAY)
    assert asked(shop, defs) == [DAY, THIRD_DAY]


def test_the_first_submission_of_an_asset_goes_alone(shop: Shop) -> None:
    defs = place(shop)
    with_tickets(shop, defs, DAY, NEXT_DAY)
    assert asked(shop, defs) == [DAY]


def test_ticks_that_overlap_or_repeat_ask_with_the_same_key(shop: Shop) -> None:
    defs = place(shop)
    with_tickets(shop, defs, DAY)
    (first,), (second,) = (tick(shop, defs).run_requests or [] for _ in range(2))
    assert first.run_key == second.run_key == f"due:triage[{DAY}]:0"
    note(shop, first, dg.DagsterRunStatus.STARTED)
    assert asked(shop, defs) == []


def test_what_is_submitted_is_not_due_again(shop: Shop) -> None:
    defs = place(shop)
    with_tickets(shop, defs, DAY)
    assert submit_next(shop, defs).success
    assert asked(shop, defs) == []
    with_tickets(shop, defs, DAY)
    assert asked(shop, defs) == []
    shop.sandbox.finish()
    assert shop.paid_lines() == 4


def test_what_a_person_submitted_is_not_due_even_if_that_was_cut_short(shop: Shop) -> None:
    defs = place(shop)
    with_tickets(shop, defs, DAY)
    run = shop.materialize(defs, "triage_batch", partition_key=DAY)
    shop.instance.delete_run(run.run_id)
    assert DAY not in shop.instance.get_materialized_partitions(dg.AssetKey("triage_batch"))
    assert asked(shop, defs) == []


def test_a_submission_that_died_after_it_paid_is_resumed_and_pays_nothing(shop: Shop) -> None:
    defs = place(shop)
    with_tickets(shop, defs, DAY)
    first = submit_next(shop, defs)
    shop.instance.delete_run(first.run_id)
    again = submit_next(shop, defs)
    assert again.asset_materializations_for_node("triage_batch")[0].partition == DAY
    assert len(shop.infos()) == len(shop.sandbox.batches()) == 1


def test_a_failed_submission_waits_twice_as_long_each_time_and_is_not_lost(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    defs = place(shop)
    with_tickets(shop, defs, DAY)
    (first,) = tick(shop, defs).run_requests or []
    note(shop, first, dg.DagsterRunStatus.FAILURE)
    (record,) = shop.instance.get_run_records(dg.RunsFilter(tags={"batchor/generation": f"due:triage[{DAY}]"}))
    assert record.end_time is None
    monkeypatch.setattr("batchor_dagster.submission_sensor.time.time", lambda: 59.0)
    assert asked(shop, defs) == []
    monkeypatch.setattr("batchor_dagster.submission_sensor.time.time", lambda: 61.0)
    (second,) = tick(shop, defs).run_requests or []
    assert second.run_key == f"due:triage[{DAY}]:{record.dagster_run.run_id}"
    note(shop, second, dg.DagsterRunStatus.FAILURE)
    assert asked(shop, defs) == []
    monkeypatch.setattr("batchor_dagster.submission_sensor.time.time", lambda: 121.0)
    assert asked(shop, defs) == [DAY]


def test_no_run_that_is_left_has_the_key_of_the_next_attempt_when_an_older_one_was_deleted(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    defs = place(shop)
    with_tickets(shop, defs, DAY)
    monkeypatch.setattr("batchor_dagster.submission_sensor.FIRST_PAUSE_SEC", 0.0)
    keys: list[str | None] = []
    for _ in range(2):
        (request,) = tick(shop, defs).run_requests or []
        note(shop, request, dg.DagsterRunStatus.FAILURE)
        keys.append(request.run_key)
    newest, oldest = shop.instance.get_runs(dg.RunsFilter(tags={"batchor/generation": f"due:triage[{DAY}]"}))
    shop.instance.delete_run(oldest.run_id)
    (third,), (repeated,) = (tick(shop, defs).run_requests or [] for _ in range(2))
    assert third.run_key == repeated.run_key == f"due:triage[{DAY}]:{newest.run_id}"
    assert third.run_key not in keys


def test_a_submission_that_a_person_cancelled_is_left_to_them(shop: Shop) -> None:
    defs = place(shop)
    with_tickets(shop, defs, DAY, NEXT_DAY)
    (first,) = tick(shop, defs).run_requests or []
    note(shop, first, dg.DagsterRunStatus.CANCELED)
    assert asked(shop, defs) == [NEXT_DAY]


def test_no_more_runs_are_in_flight_than_allowed(shop: Shop) -> None:
    defs = place(shop, max_runs_in_flight=2)
    with_tickets(shop, defs, DAY, NEXT_DAY, THIRD_DAY)
    assert submit_next(shop, defs).success
    (second,) = tick(shop, defs).run_requests or []
    assert second.partition_key == NEXT_DAY
    note(shop, second, dg.DagsterRunStatus.STARTED)
    waits = tick(shop, defs)
    assert not waits.run_requests
    assert waits.skip_reason
    assert waits.skip_reason.skip_message == ("Nothing to submit: 2 runs in flight (at most 2), so what is due waits.")


def budgeted(limit: int) -> list[dg.AssetsDefinition]:
    limits = OpenAIEnqueueLimitConfig(enqueued_token_limit=limit, target_ratio=1.0)
    config = OpenAIProviderConfig(model="gpt-5-mini", enqueue_limits=limits)

    @batchor_assets(name="triage", structured_output=TicketTriage, partitions_def=days)
    def triage(tickets: list) -> BatchJob:
        return replace(job_for(tickets), provider_config=config)

    return triage


@pytest.mark.parametrize(("partitions_that_fit", "asked_for"), [(1, []), (2, [NEXT_DAY]), (3, [NEXT_DAY, THIRD_DAY])])
def test_as_many_are_submitted_as_the_token_budget_has_room_for(
    shop: Shop, partitions_that_fit: int, asked_for: list[str]
) -> None:
    probe = place(shop, tickets_asset(FOUR_ROWS, days), budgeted(10_000_000))
    with_tickets(shop, probe, DAY, NEXT_DAY, THIRD_DAY)
    assert submit_next(shop, probe).success
    (batch,) = shop.infos()[0].batches
    with shop.runner() as runner:
        runner.delete_run(shop.infos()[0].run_id, force=True)
    shop.instance.wipe_assets([dg.AssetKey("triage_batch")])
    for run in shop.instance.get_runs(dg.RunsFilter(tags={"batchor/sensor": "batchor_submission_sensor"})):
        shop.instance.delete_run(run.run_id)
    defs = place(shop, tickets_asset(FOUR_ROWS, days), budgeted(batch.tokens * partitions_that_fit + 10))
    assert submit_next(shop, defs).success
    assert asked(shop, defs) == asked_for


def test_rows_that_wait_for_room_come_before_anything_new(shop: Shop) -> None:
    defs = place(shop, tickets_asset(FOUR_ROWS, days), budgeted(1_100))
    with_tickets(shop, defs, DAY, NEXT_DAY)
    assert submit_next(shop, defs).success
    info = shop.infos()[0]
    assert 0 < sum(batch.items for batch in info.batches) < 4
    assert asked(shop, defs) == []


def test_a_window_that_is_still_open_is_not_due(shop: Shop) -> None:
    today = datetime.now(UTC).date()
    yesterday = today - timedelta(days=1)
    open_days = dg.DailyPartitionsDefinition(start_date=yesterday.isoformat(), end_offset=1)
    defs = place(shop, tickets_asset(FOUR_ROWS, open_days), triage_assets(partitions_def=open_days))
    with_tickets(shop, defs, today.isoformat(), yesterday.isoformat())
    assert submit_next(shop, defs).success
    assert asked(shop, defs) == []
    assert [info.labels["partition"] for info in shop.infos()] == [yesterday.isoformat()]


def root_assets(**options: Any) -> list[dg.AssetsDefinition]:
    @batchor_assets(name="triage", structured_output=TicketTriage, **options)
    def triage() -> BatchJob:
        return job_for(FOUR_ROWS)

    return triage


def test_an_asset_without_upstream_is_due_for_every_partition_that_exists(shop: Shop) -> None:
    names = dg.DynamicPartitionsDefinition(name="customers")
    defs = place(shop, root_assets(partitions_def=names))
    assert asked(shop, defs) == []
    shop.instance.add_dynamic_partitions("customers", ["zoe", "adam"])
    assert submit_next(shop, defs).success
    assert asked(shop, defs) == ["adam"]


def test_an_asset_without_partitions_is_due_once(shop: Shop) -> None:
    defs = place(shop, root_assets())
    assert submit_next(shop, defs).success
    assert tick(shop, defs).run_requests == []


def test_one_partition_may_need_several_of_its_upstream(shop: Shop) -> None:
    earlier = dg.DailyPartitionsDefinition(start_date="2026-03-01", end_date="2026-03-07")
    window = dg.TimeWindowPartitionMapping(start_offset=-1)

    @batchor_assets(
        name="triage",
        structured_output=TicketTriage,
        partitions_def=days,
        deps=[dg.AssetDep("tickets", partition_mapping=window)],
    )
    def triage() -> BatchJob:
        return job_for(FOUR_ROWS)

    defs = place(shop, tickets_asset(FOUR_ROWS, earlier), triage)
    with_tickets(shop, defs, DAY, NEXT_DAY)
    assert asked(shop, defs) == [NEXT_DAY]
    with_tickets(shop, defs, "2026-03-01")
    assert submit_next(shop, defs).success
    assert asked(shop, defs) == [NEXT_DAY]


def test_an_outside_asset_is_waited_for_only_once_somebody_reports_it(shop: Shop) -> None:
    outside = dg.AssetSpec("tickets", partitions_def=days)

    @batchor_assets(name="triage", structured_output=TicketTriage, partitions_def=days, deps=[outside])
    def triage() -> BatchJob:
        return job_for(FOUR_ROWS)

    defs = place(shop, outside, triage)
    assert asked(shop, defs) == [DAY]
    shop.instance.report_runless_asset_event(dg.AssetMaterialization("tickets", partition=NEXT_DAY))
    assert asked(shop, defs) == [NEXT_DAY]


def test_upstream_that_was_made_again_is_paid_again_only_on_request(shop: Shop) -> None:
    defs = place(shop, on_upstream_update="resubmit")
    with_tickets(shop, defs, DAY)
    assert submit_next(shop, defs).success
    assert asked(shop, defs) == []
    with_tickets(shop, defs, DAY)
    (first,), (second,) = (tick(shop, defs).run_requests or [] for _ in range(2))
    assert first.run_key == second.run_key
    assert shop.obey(defs, first).success
    assert len(shop.infos()) == 2
    assert asked(shop, defs) == []


def queued(shop: Shop, tags: dict[str, str], job: str = "__ASSET_JOB", *keys: str) -> None:
    """A Dagster run that somebody asked for and that has not begun."""
    selected = frozenset(map(dg.AssetKey, keys)) or None
    status = dg.DagsterRunStatus.NOT_STARTED
    shop.instance.add_run(dg.DagsterRun(job, status=status, tags=tags, asset_selection=selected))


def test_a_queued_run_of_the_sensor_sends_nothing_once_a_person_has_submitted_the_partition(
    shop: Shop, capfd: pytest.CaptureFixture[str]
) -> None:
    defs = place(shop)
    with_tickets(shop, defs, DAY)
    (request,) = tick(shop, defs).run_requests or []
    person = shop.materialize(defs, "triage_batch", partition_key=DAY)
    late = shop.obey(defs, request)
    assert late.success
    assert late.asset_materializations_for_node("triage_batch") == []
    (info,) = shop.infos()
    assert info.labels["generation"] == person.run_id
    assert f"{info.run_id} was submitted for triage[{DAY}] since the sensor asked" in capfd.readouterr().err
    shop.sandbox.finish()
    assert shop.paid_lines() == 4
    assert asked(shop, defs) == []


def test_a_queued_resubmission_sends_nothing_once_a_person_has_submitted_the_partition(shop: Shop) -> None:
    defs = place(shop, on_upstream_update="resubmit")
    with_tickets(shop, defs, DAY)
    assert submit_next(shop, defs).success
    with_tickets(shop, defs, DAY)
    (request,) = tick(shop, defs).run_requests or []
    assert shop.materialize(defs, "triage_batch", partition_key=DAY).success
    assert shop.obey(defs, request).success
    assert len(shop.infos()) == 2
    assert asked(shop, defs) == []
    with_tickets(shop, defs, DAY)
    assert submit_next(shop, defs).success
    assert len(shop.infos()) == 3


@pytest.mark.parametrize(
    "tags",
    [
        {"dagster/partition": DAY},
        {"dagster/asset_partition_range_start": DAY, "dagster/asset_partition_range_end": NEXT_DAY},
    ],
)
@pytest.mark.parametrize(("job", "keys"), [("__ASSET_JOB", ("triage_batch",)), ("nightly", ())])
def test_a_partition_that_a_person_has_queued_is_not_due(
    shop: Shop, tags: dict[str, str], job: str, keys: tuple[str, ...]
) -> None:
    nightly = dg.define_asset_job("nightly", selection=["triage_batch"])
    defs = dg.Definitions.merge(place(shop), dg.Definitions(jobs=[nightly]))
    with_tickets(shop, defs, DAY, THIRD_DAY)
    queued(shop, tags, job, *keys)
    assert asked(shop, defs) == [THIRD_DAY]


def test_a_queued_run_of_other_assets_or_partitions_holds_nothing_back(shop: Shop) -> None:
    defs = place(shop)
    with_tickets(shop, defs, DAY)
    queued(shop, {"dagster/partition": DAY}, "__ASSET_JOB", "triage")
    queued(shop, {"dagster/partition": NEXT_DAY}, "__ASSET_JOB", "triage_batch")
    queued(shop, {}, "batchor_pause")
    assert asked(shop, defs) == [DAY]


def test_a_sensor_whose_history_is_lost_goes_on_with_what_it_resubmitted_and_resubmits_again(shop: Shop) -> None:
    defs = place(shop, on_upstream_update="resubmit")
    for _ in range(2):
        with_tickets(shop, defs, DAY)
        assert submit_next(shop, defs).success
    newest = shop.infos()[0].run_id
    shop.instance.wipe_assets([dg.AssetKey("triage_batch")])
    for run in shop.instance.get_runs():
        shop.instance.delete_run(run.run_id)
    # A new history may count its events from 1: here it has gone further.
    for _ in range(30):
        shop.instance.report_runless_asset_event(dg.AssetMaterialization("elsewhere"))
    with_tickets(shop, defs, DAY)
    (event,) = submit_next(shop, defs).asset_materializations_for_node("triage_batch")
    assert event.metadata["batchor/run_id"].value == newest
    assert len(shop.infos()) == 2
    with_tickets(shop, defs, DAY)
    assert submit_next(shop, defs).success
    assert len(shop.infos()) == 3


def test_the_sensor_is_off_until_somebody_switches_it_on() -> None:
    sensor = build_batchor_submission_sensor(assets=[triage_assets()])
    assert sensor.default_status is dg.DefaultSensorStatus.STOPPED
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="pass what @batchor_assets returned"):
        build_batchor_submission_sensor(assets=[tickets_asset(FOUR_ROWS)])
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="at least 1"):
        build_batchor_submission_sensor(assets=[triage_assets()], max_runs_in_flight=0)
