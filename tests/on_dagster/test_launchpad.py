"""What an operator sets in the launchpad of `<name>_batch`: for one run, recorded, and never a second payment."""

import json
from dataclasses import replace
from typing import Any

import dagster as dg
import pytest

from batchor_dagster import BatchorMetadataSet, batchor_assets
from batchor_dagster.config import BatchorRunConfig, config_class, overridden
from batchor_engine import BatchJob, OpenAIProviderConfig
from tests.on_dagster.shop import FOUR_ROWS, Shop, failure_of, job_for, materialized, tickets_asset, triage_assets


class Limits(dg.Config):
    first: int = 2


def config(**fields: Any) -> dict[str, Any]:
    return {"ops": {"triage_batch": {"config": {"batchor": fields}}}}


def launch(shop: Shop, tags: dict[str, str] | None = None, **fields: Any) -> dg.ExecuteInProcessResult:
    return shop.materialize(shop.definitions(), "triage_batch", run_config=config(**fields), tags=tags or {})


@pytest.fixture
def stocked(shop: Shop) -> Shop:
    assert shop.materialize(shop.definitions(), "tickets").success
    return shop


def test_the_launchpad_opens_with_defaults() -> None:
    op = triage_assets()[0].op
    shown = op.config_schema.default_value["batchor"]
    assert shown["generation"] == "new"
    assert set(shown) >= {"generation"}
    fields = op.config_schema.config_type.fields["batchor"].config_type.fields
    assert set(fields) == {
        "model",
        "reasoning_effort",
        "request_options",
        "first_rows",
        "generation",
        "max_attempts",
        "enqueued_token_limit",
        "max_batch_enqueued_tokens",
    }
    assert not any(field.is_required for field in fields.values())


def test_a_null_takes_one_of_the_jobs_own_request_options_away() -> None:
    config = OpenAIProviderConfig(model="gpt-5-mini", request_options={"temperature": 0.5, "service_tier": "flex"})
    wanted = BatchorRunConfig(request_options={"temperature": None, "max_output_tokens": 9}).overrides()
    job = overridden(replace(job_for(FOUR_ROWS), provider_config=config), wanted)
    assert job.provider_config.request_options == {"service_tier": "flex", "max_output_tokens": 9}


def test_overrides_change_the_job_and_are_recorded(stocked: Shop) -> None:
    result = launch(
        stocked,
        model="gpt-5-nano",
        reasoning_effort="low",
        request_options={"temperature": 0.5},
        max_attempts=5,
        enqueued_token_limit=90_000,
    )
    told = BatchorMetadataSet.extract(materialized(result, "triage_batch")[0].metadata)
    assert told.overrides
    assert told.overrides.value == {
        "model": "gpt-5-nano",
        "reasoning_effort": "low",
        "request_options": {"temperature": 0.5},
        "max_attempts": 5,
        "enqueued_token_limit": 90_000,
    }
    with stocked.runner() as runner:
        used: Any = runner.get_run(str(told.run_id)).provider_config
    assert (used.model, used.reasoning_effort, used.request_options) == ("gpt-5-nano", "low", {"temperature": 0.5})
    assert used.enqueue_limits.enqueued_token_limit == 90_000


def test_a_canary_sends_the_first_rows_alone_and_lands(stocked: Shop) -> None:
    launch(stocked, first_rows=2)
    stocked.sandbox.finish()
    event = materialized(stocked.materialize(stocked.definitions(), "triage"), "triage")[0]
    assert BatchorMetadataSet.extract(event.metadata).rows == 2
    assert stocked.paid_lines() == 2


@pytest.mark.parametrize("written", ["resume", "Resume", " RESUME "])
def test_resume_goes_on_with_the_latest_run_as_it_was_started(stocked: Shop, written: str) -> None:
    launch(stocked, first_rows=2, model="gpt-5-nano")
    assert launch(stocked, generation=written).success
    assert len(stocked.infos()) == len(stocked.sandbox.batches()) == 1


def test_going_on_with_what_is_sent_is_not_told_as_a_submission(stocked: Shop) -> None:
    def told() -> list[str]:
        run = launch(stocked, generation="v2")
        assert run.success
        return [entry.user_message for entry in stocked.instance.all_logs(run.run_id) if not entry.is_dagster_event]

    first, again = told(), told()
    assert any("4 rows in 1 batch" in text for text in first)
    (run_id,) = [info.run_id for info in stocked.infos() if info.labels["generation"] == "v2"]
    assert again[-1] == f"Goes on with run {run_id}; nothing new was sent."
    assert not any("in 1 batch" in text for text in again)


def test_resume_needs_something_to_resume(stocked: Shop) -> None:
    assert failure_of(launch(stocked, generation="resume")).startswith("There is no run of triage to resume")


def test_a_named_generation_is_one_run_however_often_it_is_started(stocked: Shop) -> None:
    for _ in range(2):
        assert launch(stocked, generation="v2").success
    assert launch(stocked).success
    assert sorted(info.labels["generation"] == "v2" for info in stocked.infos()) == [False, True]
    assert len(stocked.sandbox.batches()) == 2


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"model": "gpt-5.1"}, "provider.model"),
        ({"first_rows": 1}, "first_rows"),
        ({"max_attempts": 7}, "max_attempts"),
    ],
)
def test_another_job_in_the_same_generation_is_refused_with_the_way_out(
    stocked: Shop, ended: bool, fields: dict[str, Any], what: str
) -> None:
    launch(stocked, generation="v2")
    if ended:
        stocked.sandbox.finish()
        stocked.materialize(stocked.definitions(), "triage")
    paid = stocked.paid_lines()
    message = failure_of(launch(stocked, generation="v2", **fields))
    assert what in message
    assert "generation: new" in message
    assert (len(stocked.sandbox.batches()), stocked.paid_lines()) == (1, paid)


def test_a_reexecution_keeps_the_overrides_of_its_root(stocked: Shop) -> None:
    tags = {"dagster/backfill": "b1"}
    launch(stocked, tags, model="gpt-5-nano")
    assert launch(stocked, tags).success
    assert [json.loads(info.labels["overrides"]) for info in stocked.infos()] == [{"model": "gpt-5-nano"}]
    assert len(stocked.sandbox.batches()) == 1


def test_the_functions_own_config_stands_beside_ours(shop: Shop) -> None:
    seen: list[Limits] = []

    @batchor_assets(name="triage")
    def triage(config: Limits, tickets: list) -> BatchJob:
        seen.append(config)
        return job_for(tickets[: config.first])

    defs = shop.definitions([tickets_asset(FOUR_ROWS), triage])
    given = {"ops": {"triage_batch": {"config": {"first": 3, "batchor": {"first_rows": 1}}}}}
    assert shop.materialize(defs, "tickets", "triage_batch", run_config=given).success
    assert isinstance(seen[0], Limits)
    assert (seen[0].first, shop.infos()[0].summary.total_items) == (3, 1)


def test_a_config_that_takes_our_name_is_refused_when_it_is_defined() -> None:
    class Taken(dg.Config):
        batchor: int = 1

    def triage(config: Taken) -> BatchJob:
        return job_for(FOUR_ROWS)

    with pytest.raises(dg.DagsterInvalidDefinitionError, match="rename the field"):
        config_class(triage)


def test_a_config_without_fields_leaves_no_room_for_ours(shop: Shop) -> None:
    @batchor_assets(name="triage")
    def triage(config: dict) -> BatchJob:
        return job_for(FOUR_ROWS[: config["first"]])

    given = {"ops": {"triage_batch": {"config": {"first": 1}}}}
    assert shop.materialize(shop.definitions([triage]), "triage_batch", run_config=given).success
    assert shop.infos()[0].summary.total_items == 1


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [({"first_rows": 0}, "at least 1, but is 0"), ({"max_attempts": 0}, "max_attempts must be greater than 0")],
)
def test_a_value_out_of_range_fails_before_anything_is_stored(
    stocked: Shop, fields: dict[str, int], sentence: str
) -> None:
    assert sentence in failure_of(launch(stocked, **fields))
    assert stocked.infos() == []
