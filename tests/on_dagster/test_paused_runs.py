"""A run that stands still says why in words, and how it goes on, wherever an operator looks."""

from __future__ import annotations

import dagster as dg
import pytest

from batchor_dagster import BatchorMetadataSet, BatchorResource, build_batchor_definitions
from batchor_dagster.failures import meaning, paused_message
from batchor_engine.core.backoff import CONTROL_PLANE_CLASS
from batchor_engine.providers import failures as provider_failures
from batchor_engine.sandbox import Fault
from tests.on_dagster.shop import (
    FOUR_ROWS,
    Shop,
    control,
    failure_of,
    materialized,
    said,
    tickets_asset,
    triage_assets,
)

REASONS = sorted({"manual", "control_plane_transient", *CONTROL_PLANE_CLASS.values()})
NO_CREDIT = "The account has no credit left"


def out_of_credit(shop: Shop, **options: object) -> tuple[dg.Definitions, dg.ExecuteInProcessResult]:
    """What a submission looks like that the account has no money for."""
    shop.sandbox.faults.add(Fault("http_error", on="batches.create", status=429, code="insufficient_quota"))
    defs = shop.definitions([tickets_asset(FOUR_ROWS), triage_assets(**options)])
    return defs, shop.materialize(defs, "tickets", "triage_batch")


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_of_the_engine_is_told_in_words_with_the_job_that_goes_on(reason: str) -> None:
    told = paused_message(reason, "archive")
    assert reason not in told
    assert "then launch job archive_resume" in told
    assert "{" not in told


def test_a_reason_that_is_not_known_is_shown_as_it_is() -> None:
    assert paused_message("moon_phase", "batchor").startswith("It was paused for 'moon_phase'; then launch")


@pytest.mark.parametrize(
    "error_class",
    sorted(
        {
            value
            for name, value in vars(provider_failures).items()
            if name.isupper() and not name.startswith("_") and isinstance(value, str)
        }
        - {provider_failures.FILE_STORAGE_CODE}
    ),
)
def test_every_class_that_a_row_can_fail_with_has_a_meaning(error_class: str) -> None:
    assert meaning(error_class)


def test_a_submission_without_credit_says_so_though_it_is_green(shop: Shop, capfd: pytest.CaptureFixture[str]) -> None:
    _, sent = out_of_credit(shop)
    (event,) = materialized(sent, "triage_batch")
    assert NO_CREDIT in str(BatchorMetadataSet.extract(event.metadata).paused)
    assert f"is paused. {NO_CREDIT}" in capfd.readouterr().err


def test_a_tick_says_why_runs_stand_still_and_observes_it_once(shop: Shop) -> None:
    defs, _ = out_of_credit(shop)
    tick = shop.tick(defs)
    assert f"1 run is paused. {NO_CREDIT}" in str(tick.skip_reason)
    (observed,) = tick.asset_events
    told = BatchorMetadataSet.extract(observed.metadata)
    assert (told.control_reason, told.paused) == ("openai_insufficient_quota", observed.description)
    assert shop.tick(defs).asset_events == []


def test_the_result_asset_says_it_instead_of_promising_the_sensor(
    shop: Shop, capfd: pytest.CaptureFixture[str]
) -> None:
    defs, _ = out_of_credit(shop)
    shop.materialize(defs, "triage")
    logged = capfd.readouterr().err
    assert f"It is paused. {NO_CREDIT}" in logged
    assert "when the provider is done" not in logged


def test_a_resumed_run_stands_still_no_more(shop: Shop) -> None:
    defs, _ = out_of_credit(shop)
    resumed = control(shop, defs, "resume")
    assert "goes on with the sensor's next tick" in said(shop, resumed)
    (observed,) = (
        one.asset_observation_data.asset_observation for one in resumed.all_events if one.is_asset_observation
    )
    assert BatchorMetadataSet.extract(observed.metadata).paused is None


def test_jobs_of_another_resource_are_named_as_they_are(shop: Shop) -> None:
    assets = triage_assets(resource_key="archive")
    defs = build_batchor_definitions(
        assets=[tickets_asset(FOUR_ROWS), assets],
        resources={"archive": BatchorResource(**shop.batchor.model_dump())},
        resource_key="archive",
    )
    assert shop.materialize(defs, "tickets", "triage_batch").success

    def launch(order: str) -> dg.ExecuteInProcessResult:
        return defs.resolve_job_def(f"archive_{order}").execute_in_process(
            instance=shop.instance,
            raise_on_error=False,
            run_config={"ops": {f"{order}_archive": {"config": {"asset": "triage"}}}},
        )

    assert "until archive_resume" in said(shop, launch("pause"))
    assert "archive_collect fetches" in said(shop, launch("refresh"))
    assert "is cancelled for good" in said(shop, launch("cancel"))
    shop.sandbox.finish()
    with shop.runner() as runner:
        runner.get_run(shop.infos()[0].run_id).collect()
    assert "job archive_export writes them to a folder" in failure_of(shop.materialize(defs, "triage"))
