"""What the two assets of a job take from Dagster, and where it lands; translators and builders."""

from typing import Any

import dagster as dg
import pytest

from batchor_dagster import (
    BatchorAssetData,
    BatchorAssetRole,
    BatchorJobParts,
    DagsterBatchorTranslator,
    batchor_assets,
    build_batchor_assets,
)
from batchor_engine import BatchJob, DataFrameItemSource, OpenAIProviderConfig, PromptParts
from example_project.models import TicketTriage
from tests.on_dagster.shop import FOUR_ROWS, Shop, days, failure_of, job_for, tickets_asset

pytestmark = pytest.mark.filterwarnings("ignore:Parameter `", "ignore:Class `FreshnessPolicy`")


@dg.success_hook
def cheer(_context: dg.HookContext) -> None: ...


def pair(**options: Any) -> tuple[dg.AssetsDefinition, dg.AssetsDefinition]:
    @batchor_assets(**{"name": "triage", **options})
    def triage() -> BatchJob:
        """Sort tickets."""
        return job_for(FOUR_ROWS)

    return triage[0], triage[1]


def spec_of(asset: dg.AssetsDefinition) -> dg.AssetSpec:
    (spec,) = asset.specs
    return spec


BOTH = {
    "group_name": "support",
    "owners": ["team:cx"],
    "tags": {"tier": "1"},
    "kinds": {"gpt"},
    "metadata": {"dashboard": "https://example.org"},
    "partitions_def": days,
    "backfill_policy": dg.BackfillPolicy.single_run(),
    "retry_policy": dg.RetryPolicy(max_retries=2),
    "op_tags": {"dagster-k8s/config": {"container_config": {}}},
    "hooks": {cheer},
}


def test_what_belongs_to_both_assets_reaches_both() -> None:
    for asset in pair(**BOTH):
        spec = spec_of(asset)
        assert (spec.group_name, spec.owners, spec.tags["tier"]) == ("support", ["team:cx"], "1")
        assert {"gpt", "openai"} <= spec.kinds
        assert spec.metadata["dashboard"] == "https://example.org"
        assert (asset.partitions_def, asset.backfill_policy) == (days, dg.BackfillPolicy.single_run())
        assert asset.op.retry_policy == dg.RetryPolicy(max_retries=2)
        assert "dagster-k8s/config" in asset.op.tags
        assert asset.hook_defs == {cheer}


def test_what_belongs_to_one_asset_stays_with_it() -> None:
    eager, hourly = dg.AutomationCondition.eager(), dg.AutomationCondition.on_cron("0 * * * *")
    batch, results = pair(
        deps=["glossary"],
        code_version="7",
        automation_condition=eager,
        results_automation_condition=hourly,
        pool="uploads",
        results_pool="downloads",
    )
    assert [dep.asset_key.to_user_string() for dep in spec_of(batch).deps] == ["glossary"]
    assert [dep.asset_key for dep in spec_of(results).deps] == [batch.key]
    assert (spec_of(batch).code_version, spec_of(results).code_version) == ("7", None)
    assert (spec_of(batch).automation_condition, spec_of(results).automation_condition) == (eager, hourly)
    assert (batch.op.pool, results.op.pool) == ("uploads", "downloads")


def test_freshness_is_asked_of_the_results() -> None:
    from datetime import timedelta

    policy = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=30))
    batch, results = pair(freshness_policy=policy)
    assert (spec_of(batch).freshness_policy, spec_of(results).freshness_policy) == (None, policy)


class Ours(DagsterBatchorTranslator):
    """A project's own names: what is asked of a model is called so."""

    seen: list[BatchorAssetData]

    def __init__(self) -> None:
        self.seen = []

    def get_asset_spec(self, data: BatchorAssetData) -> dg.AssetSpec:
        self.seen.append(data)
        spec = super().get_asset_spec(data)
        key = spec.key if data.role is BatchorAssetRole.RESULTS else dg.AssetKey(["asked", data.name])
        return spec.replace_attributes(key=key, group_name="llm", owners=["team:ml"])


def test_a_translator_names_both_assets_and_what_is_given_wins() -> None:
    batch, results = pair(translator=Ours(), group_name="support")
    assert (batch.key, results.key) == (dg.AssetKey(["asked", "triage"]), dg.AssetKey("triage"))
    assert [dep.asset_key for dep in spec_of(results).deps] == [batch.key]
    assert spec_of(results).metadata["batchor/results_of"] == "asked/triage"
    assert {spec_of(asset).group_name for asset in (batch, results)} == {"support"}
    assert {tuple(spec_of(asset).owners) for asset in (batch, results)} == {("team:ml",)}


def test_a_translated_pair_submits_and_delivers(shop: Shop) -> None:
    defs = shop.definitions([list(pair(translator=Ours()))])
    assert shop.materialize(defs, "asked/triage").success
    shop.sandbox.finish()
    assert shop.materialize(defs, "triage").success


def parts(items: Any) -> BatchorJobParts:
    return BatchorJobParts(
        items=items,
        build_prompt=lambda item: PromptParts(f"Subject: \nBody:\n{item.payload['body']}"),
        provider_config=OpenAIProviderConfig(model="gpt-5-nano"),
    )


def test_a_translator_is_told_the_model_where_it_is_known() -> None:
    ours = Ours()
    build_batchor_assets(name="triage", key_prefix="cx", translator=ours, parts=parts([]))
    assert [(one.role, one.name, one.key_prefix, one.llm_model) for one in ours.seen] == [
        (BatchorAssetRole.BATCH, "triage", ("cx",), "gpt-5-nano"),
        (BatchorAssetRole.RESULTS, "triage", ("cx",), "gpt-5-nano"),
    ]
    pair(translator=ours)
    assert ours.seen[-1].llm_model is None


def test_a_job_from_its_parts_takes_upstream_assets(shop: Shop) -> None:
    def rows(tickets: list) -> DataFrameItemSource:
        return DataFrameItemSource(tickets, item_id="id")

    made = build_batchor_assets(name="triage", structured_output=TicketTriage, parts=parts(rows))
    defs = shop.definitions([tickets_asset(FOUR_ROWS), made])
    assert shop.materialize(defs, "tickets", "triage_batch").success
    assert shop.infos()[0].summary.total_items == 4


def test_a_job_from_a_function_needs_no_decorator(shop: Shop) -> None:
    made = build_batchor_assets(name="triage", job=lambda: job_for(FOUR_ROWS[:1]))
    assert shop.materialize(shop.definitions([made]), "triage_batch").success
    assert shop.infos()[0].summary.total_items == 1


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"name": "triage"}, "needs one of job= and parts="),
        ({"name": "triage", "job": lambda: None, "parts": parts([])}, "needs one of job= and parts="),
        ({"parts": parts([])}, "needs name= beside parts="),
        ({"name": "triage", "parts": parts(iter([]))}, "can be read only once"),
    ],
)
def test_a_builder_says_what_it_needs(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(dg.DagsterInvalidDefinitionError, match=sentence):
        build_batchor_assets(**given)


def test_a_retried_step_goes_on_with_what_it_sent(shop: Shop) -> None:
    tried: list[int] = []

    @batchor_assets(name="triage", retry_policy=dg.RetryPolicy(max_retries=1))
    def triage() -> BatchJob:
        job = job_for(FOUR_ROWS)

        def build(item: Any) -> PromptParts | str:
            tried.append(1)
            if len(tried) == 3:
                raise RuntimeError("the glossary was not there for a moment")
            return job.build_prompt(item)

        return BatchJob(job.items, build, job.provider_config)

    result = shop.materialize(shop.definitions([triage]), "triage_batch")
    assert result.success, failure_of(result)
    assert (len(shop.infos()), shop.infos()[0].summary.total_items) == (1, 4)
    shop.sandbox.finish()
    assert shop.materialize(shop.definitions([triage]), "triage").success
    assert shop.paid_lines() == 4
