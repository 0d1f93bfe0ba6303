"""Run control from the UI: what each job does to a run, to the partition, and what it says when it cannot."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from batchor_dagster import BatchorMetadataSet, BatchorResource, batchor_assets, build_batchor_jobs
from batchor_dagster.orders import ORDERS
from batchor_engine import BatchJob, ChunkPolicy, RunControlState
from batchor_engine.sandbox import Fault
from example_project.models import TicketTriage
from tests.on_dagster.shop import (
    DAY,
    FOUR_ROWS,
    NEXT_DAY,
    Shop,
    control,
    days,
    failure_of,
    info_of,
    job_for,
    materialized,
    said,
    serve,
    tickets_asset,
    triage_assets,
)

NAMES = ["cancel", "collect", "delete", "export", "pause", "prune", "refresh", "resolve", "resume", "retry_failed"]


def two_days(shop: Shop, *days_wanted: str) -> dg.Definitions:
    defs = shop.definitions([tickets_asset(FOUR_ROWS, days), triage_assets(partitions_def=days)])
    for day in days_wanted:
        assert shop.materialize(defs, "tickets", "triage_batch", partition_key=day).success
    return defs


def test_all_jobs_come_with_the_definitions(shop: Shop) -> None:
    defs = shop.definitions()
    names = {job.name for job in defs.get_repository_def().get_all_jobs()}
    assert {f"batchor_{name}" for name in NAMES} <= names
    other = {job.name for job in build_batchor_jobs(assets=[triage_assets()], resource_key="other")}
    assert other == {f"other_{name}" for name in NAMES}


def test_an_untouched_launchpad_takes_the_only_run_where_that_is_safe(shop: Shop) -> None:
    defs = two_days(shop, DAY)
    assert "is paused" in said(shop, control(shop, defs, "pause"))
    assert info_of(shop, DAY).summary.control_state is RunControlState.PAUSED
    assert "goes on" in said(shop, control(shop, defs, "resume"))
    assert info_of(shop, DAY).summary.control_state is RunControlState.RUNNING


@pytest.mark.parametrize("name", ["cancel", "prune", "resolve", "delete"])
def test_an_order_that_costs_something_never_guesses(shop: Shop, name: str) -> None:
    defs = two_days(shop, DAY)
    before = info_of(shop, DAY)
    result = control(shop, defs, name)
    assert not result.success
    assert failure_of(result)
    assert info_of(shop, DAY) == before


def test_an_empty_choice_lists_what_is_in_flight(shop: Shop) -> None:
    defs = two_days(shop, DAY, NEXT_DAY)
    listed = failure_of(control(shop, defs, "pause"))
    for day in (DAY, NEXT_DAY):
        assert f"triage[{day}]: run {info_of(shop, day).run_id}, running, 0 of 4 rows answered" in listed
    assert failure_of(control(shop, defs, "cancel")).startswith("Say which run")


def test_nothing_in_flight_is_said(shop: Shop) -> None:
    assert failure_of(control(shop, two_days(shop), "pause")) == "No run is in flight."


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"run_id": "no-such-run"}, "There is no run 'no-such-run' in this store. There is:\n- triage[2026-03-02]"),
        ({"asset": "triag"}, "There is no batch asset 'triag'; there are: triage."),
        ({"partition": "2026-03-03"}, "Nothing was submitted for triage[2026-03-03]. There is:\n- triage[2026-03-02]"),
        ({"asset": "triage", "partition": "yesterday"}, "Nothing was submitted for triage[yesterday]"),
    ],
)
def test_a_wrong_choice_says_what_there_is(shop: Shop, choice: dict[str, str], words: str) -> None:
    defs = two_days(shop, DAY)
    assert words in failure_of(control(shop, defs, "cancel", **choice))
    assert info_of(shop, DAY).summary.control_state is RunControlState.RUNNING


def test_a_run_of_another_partition_is_refused(shop: Shop) -> None:
    defs = two_days(shop, DAY)
    run_id = info_of(shop, DAY).run_id
    result = control(shop, defs, "cancel", run_id=run_id, partition=NEXT_DAY)
    assert f"Run {run_id} belongs to triage[{DAY}], not to triage[{NEXT_DAY}]" in failure_of(result)


def test_the_name_of_the_submitting_asset_means_the_same_run(shop: Shop) -> None:
    defs = two_days(shop, DAY, NEXT_DAY)
    assert "is paused" in said(shop, control(shop, defs, "pause", asset="triage_batch", partition=DAY))
    assert info_of(shop, NEXT_DAY).summary.control_state is RunControlState.RUNNING


def test_a_paused_run_is_not_polled_and_the_sensor_tells_the_reason_once(shop: Shop) -> None:
    defs = two_days(shop, DAY)
    shop.tick(defs)
    with shop.runner() as runner:
        runner.pause_run(info_of(shop, DAY).run_id)
    shop.sandbox.finish()
    tick = shop.tick(defs)
    assert not tick.run_requests
    (observed,) = tick.asset_events
    told = BatchorMetadataSet.extract(observed.metadata)
    assert (told.control, told.control_reason, told.answered) == ("paused", "manual", 0)
    assert not shop.tick(defs).asset_events
    assert "3 rows answered, 1 failed" in said(shop, control(shop, defs, "collect", partition=DAY))


def test_the_sensor_does_not_repeat_what_a_job_has_told(shop: Shop) -> None:
    defs = two_days(shop, DAY)
    assert "is paused" in said(shop, control(shop, defs, "pause"))
    assert not shop.tick(defs).asset_events


def test_a_cancel_reaches_the_provider_and_turns_the_partition_red_once(shop: Shop) -> None:
    defs = two_days(shop, DAY, NEXT_DAY)
    sentence = said(shop, control(shop, defs, "cancel", partition=DAY))
    assert "1 batch was asked to stop at the provider" in sentence
    shop.sandbox.finish()
    results = serve(shop, defs)
    failures = [failure_of(result) for result in results if not result.success]
    run_id = info_of(shop, DAY).run_id
    (red,) = failures
    assert red.startswith(f"{run_id} was cancelled (run_cancelled × 4): 0 of 4 rows have an answer.")
    assert [one.partition for result in results for one in materialized(result, "triage")] == [NEXT_DAY]
    assert not shop.tick(defs).run_requests
    assert "is over" not in sentence


def test_a_cancelled_run_with_some_answers_is_red_and_its_answers_are_kept(shop: Shop, tmp_path: Path) -> None:
    @batchor_assets(name="triage", structured_output=TicketTriage)
    def by_twos(tickets: list) -> BatchJob:
        return replace(job_for(tickets), chunk_policy=ChunkPolicy(max_requests=2))

    defs = shop.definitions([tickets_asset(FOUR_ROWS), by_twos])
    assert shop.materialize(defs, "tickets", "triage_batch").success
    shop.sandbox.finish(str(shop.sandbox.batches()[0]["id"]))
    serve(shop, defs)
    assert "1 batch was asked to stop" in said(shop, control(shop, defs, "cancel", asset="triage"))
    shop.sandbox.finish()
    reds = [failure_of(result) for result in serve(shop, defs) if not result.success]
    assert len(reds) == 1
    assert "(run_cancelled × 2): 2 of 4 rows have an answer." in reds[0]
    exported = said(shop, control(shop, defs, "export", destination_dir=str(tmp_path / "kept")))
    results = Path(exported.rpartition("results in ")[2].rstrip("."))
    assert [json.loads(line)["status"] for line in results.read_text().splitlines()].count("completed") == 2


def test_a_red_that_died_on_the_way_is_shown_again(shop: Shop) -> None:
    defs = two_days(shop, DAY)
    assert control(shop, defs, "cancel", partition=DAY).success
    shop.sandbox.finish()
    (request,) = shop.tick(defs).run_requests or []
    died = dg.DagsterRun("job", status=dg.DagsterRunStatus.FAILURE, tags=dict(request.tags))
    shop.instance.add_run(died)
    with shop.runner() as runner:
        runner.get_run(info_of(shop, DAY).run_id).collect()
    (again,) = shop.tick(defs).run_requests or []
    assert "was cancelled" in failure_of(shop.obey(defs, again))
    assert not shop.tick(defs).run_requests


def test_a_retry_of_the_failed_rows_of_a_finished_run_turns_the_partition_green(shop: Shop) -> None:
    shop.sandbox.faults.add(Fault("status_zero", times=1))
    defs = two_days(shop, DAY)
    shop.sandbox.finish()
    (red,) = serve(shop, defs)
    assert "All 4 rows" in failure_of(red)
    assert said(shop, control(shop, defs, "retry_failed")).startswith("4 failed rows of run")
    first = serve(shop, defs)
    assert [result.success for result in first] == [True]
    shop.sandbox.finish()
    (green,) = serve(shop, defs)
    (shown,) = materialized(green, "triage")
    assert BatchorMetadataSet.extract(shown.metadata).completed == 3
    assert shop.paid_lines() == 8


def test_a_retry_that_another_host_finished_between_two_ticks_is_delivered(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchor_dagster.tick.CLOCK_MARGIN_SEC", 0.0)
    shop.sandbox.faults.add(Fault("status_zero", times=1))
    defs = two_days(shop, DAY)
    shop.sandbox.finish()
    serve(shop, defs)
    with shop.runner() as runner:
        later = two_days(shop, NEXT_DAY)
        shop.sandbox.finish()
        serve(shop, later)
        cursor = shop.tick(defs).cursor
        run = runner.get_run(info_of(shop, DAY).run_id)
        run.retry_failed()
        run.advance()
        shop.sandbox.finish()
        run.collect()
    (request,) = shop.tick(defs, cursor).run_requests or []
    assert request.partition_key == DAY
    assert len(materialized(shop.obey(defs, request), "triage")) == 1


def test_retrying_a_cancelled_run_is_refused_with_the_way_out(shop: Shop) -> None:
    defs = two_days(shop, DAY)
    assert control(shop, defs, "cancel", partition=DAY).success
    shop.sandbox.finish()
    serve(shop, defs)
    result = control(shop, defs, "retry_failed", partition=DAY)
    assert "was cancelled, so its rows stay failed" in failure_of(result)


def test_a_refusal_names_what_an_operator_has_and_no_call_of_python(shop: Shop) -> None:
    defs = two_days(shop, DAY, NEXT_DAY)
    assert control(shop, defs, "cancel", partition=DAY).success
    resumed = failure_of(control(shop, defs, "resume", partition=DAY))
    assert resumed.endswith("cannot be resumed: materialize its batch asset in a new run for the rows.")
    shop.sandbox.finish()
    serve(shop, defs)
    retried = failure_of(control(shop, defs, "retry_failed", partition=DAY))
    assert retried.endswith("so its rows stay failed: materialize its batch asset in a new run for them.")
    pruned = failure_of(control(shop, defs, "prune", partition=NEXT_DAY, include_raw_output_artifacts=True))
    assert pruned.endswith("export it first (job batchor_export), or prune without include_raw_output_artifacts.")


def test_a_refresh_fetches_and_the_sensor_delivers(shop: Shop) -> None:
    defs = two_days(shop, DAY)
    assert "4 rows open" in said(shop, control(shop, defs, "refresh"))
    shop.sandbox.finish()
    assert "it is over, and the sensor delivers it" in said(shop, control(shop, defs, "refresh"))
    assert len(serve(shop, defs)) == 1


def test_pruned_and_deleted_runs_say_what_went(shop: Shop) -> None:
    defs = two_days(shop, DAY)
    shop.sandbox.finish()
    serve(shop, defs)
    run_id = info_of(shop, DAY).run_id
    assert "exports" in said(shop, control(shop, defs, "export"))
    assert "its results stay readable" in said(shop, control(shop, defs, "prune", partition=DAY))
    assert f"Run {run_id} is deleted" in said(shop, control(shop, defs, "delete", run_id=run_id))
    assert shop.infos() == []


def test_a_run_with_live_batches_is_deleted_by_force_only(shop: Shop) -> None:
    defs = two_days(shop, DAY)
    assert "cancel the run and wait for its end" in failure_of(control(shop, defs, "delete", partition=DAY))
    assert "is deleted" in said(shop, control(shop, defs, "delete", partition=DAY, force=True))
    assert {batch["status"] for batch in shop.sandbox.batches()} <= {"cancelling", "cancelled"}


def test_a_submission_in_doubt_is_settled_by_what_the_operator_found(shop: Shop) -> None:
    defs = two_days(shop, DAY)
    unsettled = failure_of(control(shop, defs, "resolve", partition=DAY))
    assert "provider_batch_id, or else not_created: true" in unsettled
    nothing = failure_of(control(shop, defs, "resolve", partition=DAY, not_created=True))
    assert "not exactly one unresolved submission" in nothing


def test_an_order_without_effect_says_so(shop: Shop) -> None:
    defs = two_days(shop, DAY)
    assert "was not paused" in said(shop, control(shop, defs, "resume"))
    assert "has no failed rows" in said(shop, control(shop, defs, "retry_failed", partition=DAY))
    assert "is paused" in said(shop, control(shop, defs, "pause"))
    assert "was paused already (manual)" in said(shop, control(shop, defs, "pause"))
    assert "batchor_collect fetches" in said(shop, control(shop, defs, "refresh"))
    shop.sandbox.finish()
    said(shop, control(shop, defs, "resume"))
    serve(shop, defs)
    assert "there is nothing to cancel" in failure_of(control(shop, defs, "cancel", partition=DAY))


def test_a_store_that_cannot_be_opened_is_one_sentence(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "not-a-database").write_text("x" * 4096)
    resource = BatchorResource(store_url=f"sqlite:///{tmp_path / 'not-a-database'}")
    (job,) = [job for job in build_batchor_jobs(assets=[triage_assets()]) if job.name == "batchor_pause"]
    defs = dg.Definitions(jobs=[job], resources={"batchor": resource})
    result = defs.resolve_job_def("batchor_pause").execute_in_process(instance=shop.instance, raise_on_error=False)
    assert "is not a database" in failure_of(result)


def test_the_page_about_control_names_every_job_and_field() -> None:
    page = (Path(__file__).parents[2] / "docs" / "control.md").read_text()
    rows = [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")]
    assert sorted(rows) == [f"batchor_{name}" for name in NAMES]
    fields = {field for order in ORDERS for field in order.config.model_fields}
    assert [field for field in fields if field not in page] == []
