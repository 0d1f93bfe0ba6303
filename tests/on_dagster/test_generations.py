"""Which engine run a Dagster run belongs to: a retry never starts a second paid run."""

from __future__ import annotations

import uuid
from typing import Any

import dagster as dg
import pytest

from batchor_dagster.engine_runs import Slot, generation_of
from batchor_dagster.metadata import GENERATION_TAG
from tests.on_dagster.shop import Shop


def noted(instance: dg.DagsterInstance, **fields: Any) -> dg.DagsterRun:
    run = dg.DagsterRun(job_name="job", run_id=str(uuid.uuid4()), **fields)
    instance.add_run(run)
    return run


def child_of(instance: dg.DagsterInstance, root: dg.DagsterRun, **tags: str) -> dg.DagsterRun:
    return noted(instance, root_run_id=root.run_id, parent_run_id=root.run_id, tags=tags)


def test_a_run_of_its_own_is_its_own_generation(instance: dg.DagsterInstance) -> None:
    run = noted(instance)
    assert generation_of(run, instance) == run.run_id


def test_a_reexecution_keeps_its_roots_generation(instance: dg.DagsterInstance) -> None:
    root = noted(instance)
    assert generation_of(child_of(instance, root), instance) == root.run_id


def test_a_reexecution_outside_its_backfill_keeps_the_generation_of_the_backfill(instance: dg.DagsterInstance) -> None:
    root = noted(instance, tags={"dagster/backfill": "b1"})
    assert generation_of(child_of(instance, root), instance) == generation_of(root, instance) == "b1"


def test_a_reexecuted_backfill_keeps_the_generation_of_the_first(instance: dg.DagsterInstance) -> None:
    again = noted(instance, tags={"dagster/backfill": "b2", "dagster/root_backfill_id": "b1"})
    assert generation_of(again, instance) == "b1"


def test_a_root_that_was_deleted_still_names_the_generation(instance: dg.DagsterInstance) -> None:
    root = noted(instance)
    child = child_of(instance, root)
    instance.delete_run(root.run_id)
    assert generation_of(child, instance) == root.run_id


def test_a_reexecution_of_a_reexecution_keeps_the_generation_though_the_root_was_deleted(
    instance: dg.DagsterInstance,
) -> None:
    root = noted(instance, tags={GENERATION_TAG: "due:triage[]"})
    child = child_of(instance, root, **root.tags)
    instance.delete_run(root.run_id)
    assert generation_of(child, instance) == "due:triage[]"


def test_a_submission_of_a_backfill_keeps_its_generation_where_a_reexecution_finds_it(shop: Shop) -> None:
    defs = shop.definitions()
    assert shop.materialize(defs, "tickets").success
    first = shop.materialize(defs, "triage_batch", tags={"dagster/backfill": "b1"})
    run = shop.instance.get_run_by_id(first.run_id)
    assert run
    # What Dagster copies to a re-execution once the backfill has ended.
    copied = {name: value for name, value in run.tags.items() if not name.startswith("dagster/")}
    shop.instance.delete_run(first.run_id)
    assert shop.materialize(defs, "triage_batch", tags=copied).success
    assert len(shop.infos()) == len(shop.sandbox.batches()) == 1


def test_run_ids_are_stable_readable_and_distinct() -> None:
    slot = Slot("cx/triage", "2026-03-02")
    assert slot.run_id("g") == slot.run_id("g")
    assert slot.run_id("g").startswith("cx-triage-2026-03-02-")
    others = [Slot("cx-triage", "2026-03-02"), Slot("cx/triage", "2026-03-03"), Slot("cx/triage-2026-03-02", "")]
    assert len({slot.run_id("g"), slot.run_id("h"), *(other.run_id("g") for other in others)}) == 5


@pytest.mark.parametrize("partition", ["ünï/çode|a=b", "x" * 500, "..", "\u2028"])
def test_any_partition_key_gives_a_run_id_that_is_a_file_name(partition: str) -> None:
    name = Slot("triage", partition).run_id("g")
    assert len(name) < 200
    assert "/" not in name
    assert name.isascii()
