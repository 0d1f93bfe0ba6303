"""What a stranger gets wrong in definitions is refused at once, with the thing, the value and the way out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import dagster as dg
import pytest

from batchor_dagster import (
    BatchorChecks,
    BatchorResource,
    batchor_assets,
    build_batchor_definitions,
    build_batchor_polling_sensor,
)
from batchor_engine import BatchJob
from batchor_engine.sandbox import Fault
from example_project.models import TicketTriage
from tests.on_dagster.shop import FOUR_ROWS, Shop, failure_of, job_for, tickets_asset, triage_assets, triage_that_waits

STORE = BatchorResource(store_url="sqlite:///runs.sqlite3")


def refusal(**given: Any) -> str:
    with pytest.raises(dg.DagsterInvalidDefinitionError) as caught:
        build_batchor_definitions(**{"assets": [triage_assets()], "resources": {"batchor": STORE}, **given})
    return str(caught.value)


def test_a_missing_resource_is_named_with_those_that_there_are() -> None:
    told = refusal(resources={"warehouse": 1})
    assert "a BatchorResource under the key 'batchor', and has 'warehouse': add one, or name its key" in told
    assert "and has none:" in refusal(resources={})


@pytest.mark.parametrize(("of_assets", "of_builder"), [("archive", "batchor"), ("batchor", "archive")])
def test_assets_of_another_resource_are_told_apart(of_assets: str, of_builder: str) -> None:
    told = refusal(
        assets=[triage_assets(resource_key=of_assets)], resource_key=of_builder, resources={of_builder: STORE}
    )
    assert f"no result asset of resource {of_builder!r}: triage has {of_assets!r}. Give the assets and the" in told


@pytest.mark.parametrize("name", [None, "mine"])
def test_a_second_polling_sensor_for_one_store_is_refused_whatever_its_name(name: str | None) -> None:
    second = build_batchor_polling_sensor(assets=[triage_assets()], name=name)
    assert "makes the polling sensor of resource 'batchor', and one is enough: leave" in refusal(sensors=[second])


def test_a_polling_sensor_for_another_store_is_welcome() -> None:
    archive = triage_assets(name="archived", resource_key="archive")
    defs = build_batchor_definitions(
        assets=[tickets_asset(FOUR_ROWS), triage_assets(), archive],
        resources={"batchor": STORE, "archive": STORE},
        sensors=[build_batchor_polling_sensor(assets=[archive], resource_key="archive")],
    )
    dg.Definitions.validate_loadable(defs)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"structured_output": {"urgency": int}}, "structured_output must be a Pydantic model class, not {'urgency'"),
        ({"structured_output": list[TicketTriage]}, "for a list, make it a field of a model"),
        ({"on_pending": "later"}, "on_pending must be one of 'skip', 'wait', 'fail', not 'later'"),
        ({"io_manager_value": "polars"}, "io_manager_value must be one of 'pandas', 'arrow', 'list', not 'polars'"),
    ],
)
def test_an_option_that_no_run_could_use_is_refused_by_the_decorator(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(dg.DagsterInvalidDefinitionError) as caught:
        triage_assets(**given)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("limit", ["0.1", True])
def test_a_threshold_that_is_no_number_is_named(limit: Any) -> None:
    with pytest.raises(TypeError, match=f"BatchorChecks.max_failure_rate must be a number, not {limit!r}"):
        BatchorChecks(max_failure_rate=limit)


def test_a_green_submission_says_that_the_provider_was_out_of_reach(
    shop: Shop, capfd: pytest.CaptureFixture[str]
) -> None:
    shop.sandbox.faults.add(Fault("http_error", on="*", status=503, times=None))
    defs = shop.definitions(triage_that_waits(3600.0))
    assert shop.materialize(defs, "tickets", "triage_batch").success
    assert "is not all sent. The provider refused it or could not be reached: the next attempt is due in" in (
        capfd.readouterr().err
    )
    shop.materialize(defs, "triage")
    assert "could not be reached: the next attempt is due in" in capfd.readouterr().err


def test_a_prompt_that_is_none_is_a_sentence_with_the_item_and_its_repair_pays_nothing_twice(shop: Shop) -> None:
    answers: list[str | None] = ["Hello", None]

    @batchor_assets(name="triage", structured_output=TicketTriage)
    def triage(tickets: list) -> BatchJob:
        prompts = iter(answers)
        return replace(job_for(tickets), build_prompt=lambda item: next(prompts))  # type: ignore[arg-type,return-value]

    defs = shop.definitions([tickets_asset(FOUR_ROWS[:2]), triage])
    same = {"dagster/backfill": "one"}
    failed = shop.materialize(defs, "tickets", "triage_batch", tags=same)
    assert failure_of(failed) == (
        "triage: build_prompt must return PromptParts or a string, but returned None for item 'b': return a prompt for "
        "each item, and leave out of the items those that need none"
    )
    answers[:] = ["Hello", "Mended"]
    assert shop.materialize(defs, "triage_batch", tags=same).success
    shop.sandbox.finish()
    assert shop.paid_lines() == 2
