"""The polling sensor: a tick looks, reports once and asks; it never does the work itself."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import Engine, event

from batchor_dagster import BatchorMetadataSet, build_batchor_polling_sensor
from batchor_dagster.engine_runs import Slot
from batchor_dagster.ledger import Ledger, Watch
from batchor_dagster.reports import unseen_message
from batchor_dagster.tick import Tick
from batchor_engine.sandbox import Fault
from example_project.models import TicketTriage
from tests.on_dagster.shop import (
    DAY,
    FOUR_ROWS,
    NEXT_DAY,
    Shop,
    days,
    failure_of,
    job_for,
    materialized,
    tickets_asset,
    triage_assets,
    triage_that_waits,
)


def requests_of(result: dg.SensorResult) -> Sequence[dg.RunRequest]:
    return result.run_requests or []


def skipped(result: dg.SensorResult) -> str:
    assert result.skip_reason
    return str(result.skip_reason.skip_message)


def submitted(shop: Shop) -> dg.Definitions:
    defs = shop.definitions()
    assert shop.materialize(defs, "tickets", "triage_batch").success
    return defs


def note_run(shop: Shop, request: dg.RunRequest, status: dg.DagsterRunStatus) -> str:
    """Record a run for this request, as the daemon does when it launches one, and return its id."""
    tags = {**request.tags, "dagster/run_key": request.run_key or ""}
    run = dg.DagsterRun(job_name="__ASSET_JOB", run_id=str(uuid.uuid4()), status=status, tags=tags)
    shop.instance.add_run(run)
    return run.run_id


def test_a_tick_without_runs_asks_for_nothing(shop: Shop) -> None:
    result = shop.tick(shop.definitions())
    assert not requests_of(result)
    assert result.skip_reason
    assert result.skip_reason.skip_message == "No run is in flight."


def test_a_tick_while_the_provider_works_reports_progress_and_asks_for_nothing(shop: Shop) -> None:
    defs = submitted(shop)
    result = shop.tick(defs)
    assert not requests_of(result)
    told = BatchorMetadataSet.extract(result.asset_events[0].metadata)
    assert (told.rows, told.answered, told.progress_percent) == (4, 0, 0.0)


def test_progress_is_observed_once_per_change(shop: Shop) -> None:
    defs = submitted(shop)
    first = shop.tick(defs)
    again = shop.tick(defs, first.cursor)
    without_cursor = shop.tick(defs)
    assert [len(tick.asset_events) for tick in (first, again, without_cursor)] == [1, 0, 0]


def test_a_tick_downloads_nothing(shop: Shop) -> None:
    defs = submitted(shop)
    shop.sandbox.finish()
    shop.tick(defs)
    assert not [call for call in shop.sandbox.journal() if "content" in str(call)]


def test_an_ended_batch_is_asked_for_with_a_run_key_of_run_and_revision(shop: Shop) -> None:
    defs = submitted(shop)
    shop.sandbox.finish()
    (request,) = requests_of(shop.tick(defs))
    info = shop.infos()[0]
    assert request.run_key == f"{info.run_id}:{info.revision}"
    assert request.tags["batchor/sensor"] == "batchor_polling_sensor"
    assert request.tags["batchor/run_id"] == info.run_id
    assert "collect" in request.tags["batchor/reason"]
    assert request.asset_selection == [dg.AssetKey("triage")]


def test_ticks_that_overlap_ask_with_the_same_run_key(shop: Shop) -> None:
    defs = submitted(shop)
    shop.sandbox.finish()
    keys = {requests_of(shop.tick(defs))[0].run_key for _ in range(3)}
    assert len(keys) == 1


def test_the_requested_run_materializes_and_the_sensor_is_done(shop: Shop) -> None:
    defs = submitted(shop)
    shop.sandbox.finish()
    tick = shop.tick(defs)
    result = shop.obey(defs, requests_of(tick)[0])
    assert len(materialized(result, "triage")) == 1
    assert result.get_asset_check_evaluations()[0].passed
    after = shop.tick(defs, tick.cursor)
    assert not requests_of(after)
    assert not requests_of(shop.tick(defs))


def test_partitions_are_asked_for_one_by_one(shop: Shop) -> None:
    defs = shop.definitions([tickets_asset(FOUR_ROWS, days), triage_assets(partitions_def=days)])
    for day in (DAY, NEXT_DAY):
        shop.materialize(defs, "tickets", "triage_batch", partition_key=day)
    shop.sandbox.finish()
    result = shop.tick(defs)
    assert {request.partition_key for request in requests_of(result)} == {DAY, NEXT_DAY}
    assert {event.partition for event in result.asset_events} == {DAY, NEXT_DAY}


def test_a_tick_asks_for_few_runs_and_the_next_one_for_the_rest(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchor_dagster.tick.MAX_REQUESTS", 1)
    defs = shop.definitions([tickets_asset(FOUR_ROWS, days), triage_assets(partitions_def=days)])
    for day in (DAY, NEXT_DAY):
        shop.materialize(defs, "tickets", "triage_batch", partition_key=day)
    shop.sandbox.finish()
    cursor, seen = None, set[str | None]()
    while (result := shop.tick(defs, cursor)).run_requests:
        (request,) = result.run_requests
        assert shop.obey(defs, request).success
        cursor, seen = result.cursor, seen | {request.partition_key}
    assert seen == {DAY, NEXT_DAY}
    assert shop.instance.get_materialized_partitions(dg.AssetKey("triage")) == seen


def test_a_run_under_way_is_not_asked_for_again(shop: Shop) -> None:
    defs = submitted(shop)
    shop.sandbox.finish()
    (request,) = requests_of(shop.tick(defs))
    note_run(shop, request, dg.DagsterRunStatus.STARTED)
    assert not requests_of(shop.tick(defs))


def test_a_failed_run_is_asked_for_again_under_another_key(shop: Shop) -> None:
    defs = submitted(shop)
    shop.sandbox.finish()
    (request,) = requests_of(shop.tick(defs))
    failed = note_run(shop, request, dg.DagsterRunStatus.FAILURE)
    (again,) = requests_of(shop.tick(defs))
    assert again.run_key == f"{request.run_key}:{failed}"


def test_a_failed_run_that_somebody_deletes_does_not_stand_in_the_way_of_the_next(shop: Shop) -> None:
    defs = submitted(shop)
    shop.sandbox.finish()
    failed: list[str] = []
    for _ in range(2):
        (request,) = requests_of(shop.tick(defs))
        failed.append(note_run(shop, request, dg.DagsterRunStatus.FAILURE))
    shop.instance.delete_run(failed[0])
    (again,) = requests_of(shop.tick(defs))
    # Dagster starts nothing for a key that a run has.
    assert not shop.instance.get_runs(dg.RunsFilter(tags={"dagster/run_key": again.run_key or ""}))
    assert requests_of(shop.tick(defs))[0].run_key == again.run_key
    assert len(materialized(shop.obey(defs, again), "triage")) == 1


def test_a_run_that_ended_elsewhere_is_delivered(shop: Shop) -> None:
    defs = submitted(shop)
    shop.sandbox.finish()
    with shop.runner() as runner:
        runner.get_run(shop.infos()[0].run_id).wait(timeout=60)
    tick = shop.tick(defs)
    (request,) = requests_of(tick)
    assert request.tags["batchor/reason"] == "deliver"
    assert len(materialized(shop.obey(defs, request), "triage")) == 1
    assert not requests_of(shop.tick(defs, tick.cursor))


def test_a_run_without_one_answer_turns_red_once(shop: Shop) -> None:
    empty = [{"id": name, "body": ""} for name in "ab"]
    defs = shop.definitions([tickets_asset(empty), triage_assets()])
    shop.materialize(defs, "tickets", "triage_batch")
    shop.sandbox.finish()
    tick = shop.tick(defs)
    result = shop.obey(defs, requests_of(tick)[0])
    assert "All 2 rows" in failure_of(result)
    assert not requests_of(shop.tick(defs, tick.cursor))
    assert not requests_of(shop.tick(defs))


@pytest.mark.parametrize("cursor", ["", "not json", "[]", '{"settled_until": "soon"}', '{"seen": 3}'])
def test_any_cursor_will_do(shop: Shop, cursor: str) -> None:
    defs = submitted(shop)
    shop.sandbox.finish()
    assert len(requests_of(shop.tick(defs, cursor))) == 1


def test_the_cursor_stays_small(shop: Shop) -> None:
    defs = submitted(shop)
    assert len(shop.tick(defs).cursor or "") < 1000


def test_a_provider_that_does_not_answer_fails_no_tick(shop: Shop) -> None:
    defs = submitted(shop)
    shop.sandbox.stop()
    result = shop.tick(defs)
    assert not requests_of(result)


def test_assets_of_others_are_not_watched(shop: Shop) -> None:
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="pass what @batchor_assets returned"):
        build_batchor_polling_sensor(assets=[tickets_asset(FOUR_ROWS)])
    sensor = build_batchor_polling_sensor(assets=[tickets_asset(FOUR_ROWS), triage_assets()], name="mine")
    assert sensor.name == "mine"
    assert sensor.minimum_interval_seconds == 30
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING


def test_a_tick_has_the_grpc_limit_less_a_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    from batchor_dagster.sensors import tick_seconds

    monkeypatch.delenv("DAGSTER_GRPC_TIMEOUT_SECONDS", raising=False)
    told: dict[str, Any] = {}
    for limit in ("", "120", "10"):
        monkeypatch.setenv("DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS", limit)
        told[limit] = tick_seconds()
    assert told == {"": 40.0, "120": 100.0, "10": 5.0}


def test_a_tick_that_runs_out_of_time_forgets_nobody(shop: Shop) -> None:
    defs = submitted(shop)
    shop.sandbox.finish()
    info = shop.infos()[0]
    with shop.runner() as runner:
        runner.get_run(info.run_id).wait(timeout=60)
        watch = Watch("batchor_polling_sensor", {"triage": dg.AssetKey("triage")}, 30)
        with dg.build_sensor_context(instance=shop.instance) as context:
            late = Tick(Ledger(shop.instance, watch), context, runner, deadline=0.0).run()
    assert not requests_of(late)
    assert len(requests_of(shop.tick(defs, late.cursor))) == 1


def test_observations_above_the_limit_come_with_the_next_ticks(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchor_dagster.tick.MAX_OBSERVATIONS", 1)
    defs = shop.definitions([tickets_asset(FOUR_ROWS, days), triage_assets(partitions_def=days)])
    for day in (DAY, NEXT_DAY):
        shop.materialize(defs, "tickets", "triage_batch", partition_key=day)
    first = shop.tick(defs)
    second = shop.tick(defs, first.cursor)
    third = shop.tick(defs, second.cursor)
    told = [{event.partition for event in tick.asset_events} for tick in (first, second, third)]
    assert [len(days_told) for days_told in told] == [1, 1, 0]
    assert told[0] | told[1] == {DAY, NEXT_DAY}


def test_looking_up_many_partitions_takes_no_more_queries_than_a_few(shop: Shop) -> None:
    names = [f"p{number}" for number in range(12)]
    partitions = dg.StaticPartitionsDefinition(names)
    defs = shop.definitions([tickets_asset(FOUR_ROWS[:1], partitions), triage_assets(partitions_def=partitions)])

    def queries(*some: str) -> list[int]:
        """Reads of Dagster's event log by a tick with news, and by a tick with answers to deliver."""
        with shop.runner() as runner:
            for name in some:
                slot = Slot("triage", name)
                job = replace(job_for(FOUR_ROWS[:1]), structured_output=TicketTriage)
                runner.start(job, run_id=slot.run_id("g"), labels=slot.labels(generation="g"))
        counts = [reads(lambda: shop.tick(defs))]
        shop.sandbox.finish()
        with shop.runner() as runner:
            for info in runner.find_runs(unfinished=True):
                runner.get_run(info.run_id).collect()
        return [*counts, reads(lambda: shop.tick(defs))]

    # Ids and events, of observations and of materializations.
    assert all(0 < count <= 4 for count in [*queries(*names[:2]), *queries(*names[2:])])


def reads(act: Callable[[], object]) -> int:
    """How many SELECTs of observations and materializations an action makes, over any engine."""
    said: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.startswith("SELECT") and "dagster_event_type" in statement:
            said.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        act()
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    return len(said)


def test_a_worker_that_was_killed_stands_in_the_way_for_half_an_hour(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    defs = submitted(shop)
    shop.sandbox.finish()
    (request,) = requests_of(shop.tick(defs))
    dead = note_run(shop, request, dg.DagsterRunStatus.STARTED)
    now = time.time()
    monkeypatch.setattr("batchor_dagster.ledger.time.time", lambda: now + 1700)
    assert not requests_of(shop.tick(defs))
    monkeypatch.setattr("batchor_dagster.ledger.time.time", lambda: now + 1900)
    (again,) = requests_of(shop.tick(defs))
    assert again.run_key == f"{request.run_key}:{dead}"


def test_a_tick_says_why_it_saw_nothing(shop: Shop) -> None:
    defs = submitted(shop)
    shop.sandbox.faults.add(Fault("http_error", on="*", status=503, message="We are down", times=None))
    told = skipped(shop.tick(defs))
    assert told.startswith("The provider did not answer for all batches: ")
    assert "We are down" in told
    assert told.endswith(" 1 run in flight: 0 of 4 rows answered.")
    shop.sandbox.faults.clear()
    assert skipped(shop.tick(defs)) == "1 run in flight: 0 of 4 rows answered."


def test_a_tick_says_that_a_run_waits_for_its_next_attempt_and_nothing_is_called_a_batch_before(
    shop: Shop, capfd: pytest.CaptureFixture[str]
) -> None:
    shop.sandbox.faults.add(Fault("http_error", on="*", status=503, times=None))
    defs = shop.definitions(triage_that_waits(3600.0))
    assert shop.materialize(defs, "tickets", "triage_batch").success
    assert "4 rows, and no batch is known at the provider yet" in capfd.readouterr().err
    told = skipped(shop.tick(defs))
    assert re.fullmatch(
        "1 run in flight: 0 of 4 rows answered. 1 run waits, for the provider refused or could not be reached: the "
        r"next attempt is due in \d+ s\.",
        told,
    )
    shop.materialize(defs, "triage")
    assert "0 of 4 rows answered, and no batch is known at the provider yet." in capfd.readouterr().err


def test_many_reasons_for_not_seeing_batches_are_one_short_sentence() -> None:
    told = unseen_message(["Down.", "Down.", *(f"Another {'x' * 500}{n}" for n in range(50))])
    assert told == "The provider did not answer for all batches: Down (50 other errors in the tick's log). "
    assert len(unseen_message(["x" * 5000])) < 400
    assert unseen_message([]) == ""
