"""The generation of a resubmission: one for each new materialization upstream, in any Dagster instance."""

from __future__ import annotations

from dataclasses import replace

import dagster as dg
import pytest

from tests.on_dagster.shop import DAY, Shop
from tests.on_dagster.submitting import asked, place, submit_next, tick, with_tickets


def resubmission(shop: Shop) -> tuple[dg.Definitions, dg.RunRequest]:
    """What the sensor asks for once a partition that was submitted has new rows upstream."""
    defs = place(shop, on_upstream_update="resubmit")
    with_tickets(shop, defs, DAY)
    assert submit_next(shop, defs).success
    with_tickets(shop, defs, DAY)
    (request,) = tick(shop, defs).run_requests or []
    return defs, request


def newest_tickets(shop: Shop) -> dg.EventLogRecord:
    return shop.instance.fetch_materializations(dg.AssetKey("tickets"), limit=1).records[0]


def by_id(shop: Shop, request: dg.RunRequest) -> dg.RunRequest:
    """The request as a batchor that named generations after ids asked for it."""
    generation = f"due:triage[{DAY}]@{newest_tickets(shop).storage_id}"
    return request.with_replaced_attrs(
        run_key=f"{generation}:0", tags={**request.tags, "batchor/generation": generation}
    )


def test_a_new_dagster_instance_whose_ids_begin_again_submits_new_rows_again(shop: Shop) -> None:
    defs, request = resubmission(shop)
    assert shop.obey(defs, request).success
    first_id = newest_tickets(shop).storage_id
    with dg.instance_for_test() as empty:
        moved = replace(shop, instance=empty)
        defs, request = resubmission(moved)
        assert len(shop.infos()) == 2
        assert newest_tickets(moved).storage_id == first_id
        assert moved.obey(defs, request).success
        assert len(shop.infos()) == 3
        assert asked(moved, defs) == []


def test_a_new_dagster_instance_does_not_take_an_older_ones_id_for_its_own(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchor_dagster.submission_sensor.CLOCK_MARGIN_SEC", 0.0)
    defs, request = resubmission(shop)
    assert shop.obey(defs, by_id(shop, request)).success
    with dg.instance_for_test() as empty:
        moved = replace(shop, instance=empty)
        defs, request = resubmission(moved)
        assert by_id(shop, request).run_key == by_id(moved, request).run_key
        assert moved.obey(defs, request).success
        assert len(shop.infos()) == 3


def test_a_resubmission_that_was_named_after_an_id_and_died_after_it_paid_is_gone_on_with(shop: Shop) -> None:
    defs, request = resubmission(shop)
    died = shop.obey(defs, by_id(shop, request))
    shop.instance.delete_run(died.run_id)
    assert submit_next(shop, defs).success
    assert len(shop.infos()) == len(shop.sandbox.batches()) == 2
    assert asked(shop, defs) == []


def test_a_resubmission_that_was_named_after_an_id_and_that_a_person_cancelled_is_left_to_them(shop: Shop) -> None:
    defs, request = resubmission(shop)
    tags = dict(by_id(shop, request).tags)
    shop.instance.add_run(dg.DagsterRun("job", status=dg.DagsterRunStatus.CANCELED, tags=tags))
    assert asked(shop, defs) == []
