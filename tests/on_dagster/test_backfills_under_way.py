"""A backfill that has yet to start its runs: the submission sensor leaves to it what it will submit."""

from __future__ import annotations

import time
from collections.abc import Sequence

import dagster as dg
import pytest
from dagster._core.definitions.assets.graph.asset_graph_subset import AssetGraphSubset
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.remote_origin import (
    InProcessCodeLocationOrigin,
    RemotePartitionSetOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from tests.on_dagster.shop import DAY, FOUR_ROWS, NEXT_DAY, Shop, days, tickets_asset, triage_assets
from tests.on_dagster.submitting import asked, place, submit_next, tick, with_tickets

THIRD_DAY = "2026-03-04"


def subset(*partitions: str, of: Sequence[str] = ("triage_batch",)) -> AssetGraphSubset:
    keys = [dg.AssetKey(name) for name in of]
    if not partitions:
        return AssetGraphSubset(non_partitioned_asset_keys=set(keys))
    return AssetGraphSubset(dict.fromkeys(keys, days.subset_with_partition_keys(partitions)))


def ordered(shop: Shop, target: AssetGraphSubset, name: str = "b1") -> PartitionBackfill:
    """A backfill as the page of an asset asks for it; the daemon has not looked at it."""
    found = PartitionBackfill.from_asset_graph_subset(
        backfill_id=name,
        backfill_timestamp=time.time(),
        tags={},
        dynamic_partitions_store=shop.instance,
        asset_graph_subset=target,
        title=None,
        description=None,
        run_config=None,
    )
    shop.instance.add_backfill(found)
    return found


def place_named(name: str | None) -> InProcessCodeLocationOrigin:
    return InProcessCodeLocationOrigin(LoadableTargetOrigin(python_file="defs.py"), location_name=name)


def repository_in(location: str | None) -> RemoteRepositoryOrigin:
    return RemoteRepositoryOrigin(code_location_origin=place_named(location), repository_name="__repository__")


def ordered_of_job(shop: Shop, job: str, partitions: Sequence[str], location: str | None = None) -> PartitionBackfill:
    """A backfill as the page of a job asks for it."""
    found = PartitionBackfill(
        backfill_id=f"b-{job}",
        status=BulkActionStatus.REQUESTED,
        from_failure=False,
        tags={},
        backfill_timestamp=time.time(),
        partition_set_origin=RemotePartitionSetOrigin(
            repository_origin=repository_in(location),
            partition_set_name=f"{job}_partition_set",
        ),
        partition_names=partitions,
    )
    shop.instance.add_backfill(found)
    return found


def queue(
    shop: Shop,
    tags: dict[str, str],
    asset: str = "triage_batch",
    status: dg.DagsterRunStatus = dg.DagsterRunStatus.NOT_STARTED,
) -> dg.DagsterRun:
    """A run of Dagster that somebody else asked for."""
    selected = frozenset([dg.AssetKey(asset)])
    return shop.instance.add_run(dg.DagsterRun("__ASSET_JOB", status=status, tags=tags, asset_selection=selected))


def test_what_a_backfill_has_not_started_yet_is_left_to_it_and_the_tick_says_so(shop: Shop) -> None:
    defs = place(shop)
    with_tickets(shop, defs, DAY, NEXT_DAY)
    ordered(shop, subset(DAY, NEXT_DAY))
    result = tick(shop, defs)
    assert not result.run_requests
    assert result.skip_reason
    assert result.skip_reason.skip_message == (
        "Nothing to submit: 0 runs in flight (at most 20). What is due of triage_batch is left to backfill b1 where "
        "that has yet to start a run."
    )


def test_other_partitions_and_other_assets_of_a_backfill_hold_nothing_back(
    shop: Shop, capfd: pytest.CaptureFixture[str]
) -> None:
    defs = place(shop)
    with_tickets(shop, defs, DAY, THIRD_DAY)
    ordered(shop, subset(THIRD_DAY, of=["tickets", "triage"]))
    assert submit_next(shop, defs).asset_materializations_for_node("triage_batch")[0].partition == DAY
    assert asked(shop, defs) == [THIRD_DAY]
    ordered(shop, subset(NEXT_DAY), "b2")
    assert asked(shop, defs) == [THIRD_DAY]
    with_tickets(shop, defs, NEXT_DAY)
    assert asked(shop, defs) == [THIRD_DAY]
    assert "What is due of triage_batch is left to backfill b2" in capfd.readouterr().err


@pytest.mark.parametrize("status", [BulkActionStatus.CANCELING, BulkActionStatus.CANCELED, BulkActionStatus.FAILED])
def test_a_backfill_that_starts_nothing_any_more_holds_nothing_back(shop: Shop, status: BulkActionStatus) -> None:
    defs = place(shop)
    with_tickets(shop, defs, DAY)
    backfill = ordered(shop, subset(DAY))
    assert asked(shop, defs) == []
    shop.instance.update_backfill(backfill.with_status(status))
    assert asked(shop, defs) == [DAY]


def test_a_partition_for_which_a_backfill_has_started_its_run_is_not_left_to_it(shop: Shop) -> None:
    defs = place(shop)
    with_tickets(shop, defs, DAY, NEXT_DAY, THIRD_DAY)
    backfill = ordered(shop, subset(DAY, NEXT_DAY, THIRD_DAY))
    data = backfill.asset_backfill_data
    assert data
    data = data._replace(requested_subset=subset(DAY), failed_and_downstream_subset=subset(NEXT_DAY))
    shop.instance.update_backfill(backfill._replace(asset_backfill_data=data))
    assert submit_next(shop, defs).asset_materializations_for_node("triage_batch")[0].partition == DAY
    assert asked(shop, defs) == [NEXT_DAY]


def test_a_backfill_of_an_asset_without_partitions_is_waited_for(shop: Shop) -> None:
    defs = place(shop, tickets_asset(FOUR_ROWS), triage_assets())
    assert shop.materialize(defs, "tickets").success
    backfill = ordered(shop, subset())
    assert asked(shop, defs) == []
    shop.instance.update_backfill(backfill.with_status(BulkActionStatus.CANCELED))
    assert asked(shop, defs) == [None]


def test_what_the_backfill_of_a_job_has_not_started_yet_is_left_to_it(shop: Shop) -> None:
    nightly = dg.define_asset_job("nightly", selection=["triage_batch"])
    hourly = dg.define_asset_job("hourly", selection=["tickets"])
    defs = dg.Definitions.merge(place(shop), dg.Definitions(jobs=[nightly, hourly]))
    with_tickets(shop, defs, DAY, NEXT_DAY)
    backfill = ordered_of_job(shop, "nightly", [DAY, NEXT_DAY])
    assert asked(shop, defs) == []
    shop.instance.update_backfill(backfill.with_partition_checkpoint(DAY))
    assert asked(shop, defs) == [DAY]
    shop.instance.update_backfill(backfill._replace(status=BulkActionStatus.COMPLETED_SUCCESS))
    ordered_of_job(shop, "hourly", [DAY, NEXT_DAY])
    assert asked(shop, defs) == [DAY]


def asked_in(location: str, shop: Shop, defs: dg.Definitions) -> list[str | None]:
    """What a tick asks for in a code location of this name."""
    repository = defs.get_repository_def()
    context = dg.SensorEvaluationContext(
        instance_ref=None,
        last_tick_completion_time=None,
        last_run_key=None,
        cursor=None,
        repository_name="__repository__",
        repository_def=repository,
        resources=repository.get_top_level_resources(),
        code_location_origin=place_named(location),
        instance=shop.instance,
    )
    with context:
        result = defs.resolve_sensor_def("batchor_submission_sensor")(context)
    assert isinstance(result, dg.SensorResult)
    return [request.partition_key for request in result.run_requests or []]


def test_a_job_of_the_same_name_in_another_code_location_holds_nothing_back(shop: Shop) -> None:
    nightly = dg.define_asset_job("nightly", selection=["triage_batch"])
    defs = dg.Definitions.merge(place(shop), dg.Definitions(jobs=[nightly]))
    with_tickets(shop, defs, DAY)
    ordered_of_job(shop, "nightly", [DAY], location="theirs")
    shop.instance.add_run(
        dg.DagsterRun(
            "nightly",
            status=dg.DagsterRunStatus.NOT_STARTED,
            tags={"dagster/partition": DAY},
            remote_job_origin=repository_in("theirs").get_job_origin("nightly"),
        )
    )
    assert asked_in("theirs", shop, defs) == []
    assert asked_in("ours", shop, defs) == [DAY]


def test_a_queued_run_of_the_sensor_sends_nothing_once_a_backfill_was_asked_for(
    shop: Shop, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    defs = place(shop)
    with_tickets(shop, defs, DAY)
    (request,) = tick(shop, defs).run_requests or []
    backfill = ordered(shop, subset(DAY))
    late = shop.obey(defs, request)
    assert late.success
    assert late.asset_materializations_for_node("triage_batch") == []
    assert f"triage[{DAY}] is left to backfill b1" in capfd.readouterr().err
    assert shop.infos() == []
    shop.instance.update_backfill(backfill.with_status(BulkActionStatus.CANCELED))
    real = time.time
    monkeypatch.setattr("batchor_dagster.submission_sensor.time.time", lambda: real() + 61.0)
    assert submit_next(shop, defs).asset_materializations_for_node("triage_batch")[0].partition == DAY


def test_a_queued_run_of_the_sensor_sends_nothing_once_a_backfill_has_queued_its_run_behind_it(
    shop: Shop, capfd: pytest.CaptureFixture[str]
) -> None:
    defs = place(shop)
    with_tickets(shop, defs, DAY)
    (request,) = tick(shop, defs).run_requests or []
    backfill = ordered(shop, subset(DAY))
    assert backfill.asset_backfill_data
    requested = backfill.asset_backfill_data._replace(requested_subset=subset(DAY))
    shop.instance.update_backfill(backfill._replace(asset_backfill_data=requested))
    theirs = queue(shop, {"dagster/partition": DAY, "dagster/backfill": "b1"})
    late = shop.obey(defs, request)
    assert late.success
    assert late.asset_materializations_for_node("triage_batch") == []
    told = f"triage[{DAY}] is left to Dagster's run {theirs.run_id}, which is queued, at work or to be retried: nothing"
    assert told in capfd.readouterr().err
    assert shop.materialize(defs, "triage_batch", partition_key=DAY, tags={"dagster/backfill": "b1"}).success
    assert len(shop.infos()) == len(shop.sandbox.batches()) == 1


@pytest.mark.parametrize(
    "tags",
    [
        {"dagster/partition": DAY},
        {"dagster/asset_partition_range_start": DAY, "dagster/asset_partition_range_end": THIRD_DAY},
    ],
)
def test_a_queued_run_of_the_sensor_sends_nothing_while_a_persons_run_covers_its_partition(
    shop: Shop, tags: dict[str, str]
) -> None:
    defs = place(shop)
    with_tickets(shop, defs, NEXT_DAY if len(tags) > 1 else DAY)
    (request,) = tick(shop, defs).run_requests or []
    queue(shop, tags)
    assert shop.obey(defs, request).asset_materializations_for_node("triage_batch") == []
    assert shop.infos() == []


def test_a_queued_run_of_the_sensor_yields_to_no_run_that_is_dead_or_a_sensors_or_for_something_else(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    defs = place(shop)
    with_tickets(shop, defs, DAY)
    (request,) = tick(shop, defs).run_requests or []
    again = f"due:triage[{DAY}]@2026-03-05T00:00:00.000000+00:00"
    queue(shop, {"dagster/partition": DAY, "batchor/generation": again})
    queue(shop, {"dagster/partition": NEXT_DAY})
    queue(shop, {"dagster/partition": DAY}, "triage")
    queue(shop, {"dagster/partition": DAY}, status=dg.DagsterRunStatus.STARTED)
    assert shop.obey(defs, request).asset_materializations_for_node("triage_batch") == []
    real = time.time
    monkeypatch.setattr("batchor_dagster.ledger.time.time", lambda: real() + 1801.0)
    assert shop.obey(defs, request).asset_materializations_for_node("triage_batch")
    assert len(shop.infos()) == 1


def test_a_run_that_failed_and_that_dagster_will_retry_has_its_partition_left_to_it_for_half_an_hour(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    defs = place(shop)
    with_tickets(shop, defs, DAY)
    (request,) = tick(shop, defs).run_requests or []
    tags = {"dagster/partition": DAY, "dagster/backfill": "b1", "dagster/will_retry": "true"}
    died = queue(shop, tags, status=dg.DagsterRunStatus.FAILURE)
    assert asked(shop, defs) == []
    assert shop.obey(defs, request).asset_materializations_for_node("triage_batch") == []
    real = time.time
    for passed, due in (1700.0, []), (1900.0, [DAY]):
        with monkeypatch.context() as later:
            later.setattr("batchor_dagster.submitters.time.time", lambda passed=passed: real() + passed)
            assert asked(shop, defs) == due
    # Its retry speaks for itself.
    shop.instance.add_run_tags(died.run_id, {"dagster/auto_retry_run_id": "1"})
    assert shop.obey(defs, request).asset_materializations_for_node("triage_batch")
    assert len(shop.infos()) == 1


def test_a_submission_that_died_after_it_paid_goes_on_beside_a_backfill(shop: Shop) -> None:
    defs = place(shop)
    with_tickets(shop, defs, DAY)
    (request,) = tick(shop, defs).run_requests or []
    assert shop.obey(defs, request).success
    ordered(shop, subset(DAY))
    queue(shop, {"dagster/partition": DAY, "dagster/backfill": "b1"})
    assert shop.obey(defs, request).asset_materializations_for_node("triage_batch")
    assert len(shop.infos()) == len(shop.sandbox.batches()) == 1
