"""A submission that nobody can prove: where Dagster says so, and how an operator settles it from the UI."""

from __future__ import annotations

from dataclasses import replace

import dagster as dg
import pytest

from batchor_dagster import BatchorMetadataSet, BatchorResource, batchor_assets
from batchor_engine import BatchJob, BatchRunner, OpenAIBatchProvider, OpenAIConnection, RetryPolicy
from batchor_engine.sandbox import Fault
from example_project.models import TicketTriage
from tests.on_dagster.shop import (
    DAY,
    FOUR_ROWS,
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
)


class Unlisting(OpenAIBatchProvider):
    """A server that cannot say which batches exist, so that a lost answer cannot be looked up."""

    @property
    def lists_batches(self) -> bool:
        return False


class UnlistingResource(BatchorResource):
    """Reaches such a server."""

    def runner(self) -> BatchRunner:
        connection = OpenAIConnection(api_key=self.api_key, base_url=self.base_url)
        return BatchRunner(
            storage=self.store_url,
            artifacts_url=self.artifacts_url,
            connection=connection,
            provider_factory=Unlisting,
        )


class DoubtfulShop(Shop):
    @property
    def batchor(self) -> BatchorResource:
        return UnlistingResource(**{**super().batchor.model_dump()})


@pytest.fixture
def doubtful(shop: Shop) -> DoubtfulShop:
    return DoubtfulShop(shop.sandbox, shop.instance, shop.folder)


def in_doubt(shop: Shop, fault: str) -> dg.Definitions:
    """A day whose only batch the provider may or may not have, and what the sensor makes of that."""

    @batchor_assets(name="triage", structured_output=TicketTriage, partitions_def=days)
    def at_once(tickets: list) -> BatchJob:
        return replace(job_for(tickets), retry_policy=RetryPolicy(max_attempts=1, base_backoff_sec=0.0))

    shop.sandbox.faults.add(Fault(fault, on="batches.create"))
    defs = shop.definitions([tickets_asset(FOUR_ROWS, days), at_once])
    assert shop.materialize(defs, "tickets", "triage_batch", partition_key=DAY).success
    asked = [shop.obey(defs, request) for request in shop.tick(defs).run_requests or []]
    assert [failure_of(one) for one in asked if not one.success] == []
    assert [batch.state for batch in info_of(shop, DAY).batches] == ["indeterminate"]
    return defs


def test_a_batch_that_the_operator_found_is_adopted_and_paid_once(doubtful: DoubtfulShop) -> None:
    defs = in_doubt(doubtful, "lost_answer")
    (found,) = doubtful.sandbox.batches()
    seen = doubtful.tick(defs)
    assert "1 submission is in doubt: look for the batch at the provider" in str(seen.skip_reason)
    assert [BatchorMetadataSet.extract(one.metadata).in_doubt for one in seen.asset_events] == [1]
    assert doubtful.tick(defs, seen.cursor).asset_events == []
    unasked = failure_of(control(doubtful, defs, "resolve", provider_batch_id=found["id"]))
    assert f"run {info_of(doubtful, DAY).run_id}" in unasked
    sentence = said(doubtful, control(doubtful, defs, "resolve", partition=DAY, provider_batch_id=found["id"]))
    assert f"has adopted batch {found['id']}" in sentence
    assert "in doubt" not in str(doubtful.tick(defs).skip_reason)
    doubtful.sandbox.finish()
    delivered = serve(doubtful, defs)
    assert len(materialized(delivered[-1], "triage")) == 1
    assert (doubtful.paid_lines(), len(doubtful.sandbox.batches())) == (4, 1)


def test_rows_of_a_batch_that_never_was_are_sent_again(doubtful: DoubtfulShop) -> None:
    defs = in_doubt(doubtful, "drop")
    assert doubtful.sandbox.batches() == []
    sentence = said(doubtful, control(doubtful, defs, "resolve", partition=DAY, not_created=True))
    assert "sends the rows of the lost submission again" in sentence
    assert [one.success for one in serve(doubtful, defs)] == [True]
    doubtful.sandbox.finish()
    delivered = serve(doubtful, defs)
    assert len(materialized(delivered[-1], "triage")) == 1
    assert (doubtful.paid_lines(), len(doubtful.sandbox.batches())) == (4, 1)
