"""Prices of the kept list, and what a run has cost by them."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from batchor_engine import BatchItem, OpenAIProviderConfig
from batchor_engine.core.costs import PriceList, UnknownPrice
from batchor_engine.models import RunTally, RunUsage
from batchor_engine.results.segments import read_rows
from batchor_engine.runtime.costs import cost_of, price_list, run_cost

from .conftest import World

MILLION = RunUsage(input_tokens=1_000_000, output_tokens=1_000_000)
LATER = datetime(2026, 11, 1, tzinfo=UTC)


def full_price(model: str, usage: RunUsage) -> Decimal:
    import genai_prices

    raw = genai_prices.Usage(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens)
    return genai_prices.calc_price(raw, model, provider_id="openai", genai_request_timestamp=LATER).total_price


@pytest.mark.parametrize("model", ["gpt-5-mini", "gpt-5.2", "gpt-4.1-nano", "gpt-5-mini-2025-08-07"])
def test_a_batch_costs_half(model: str) -> None:
    cost = cost_of(MILLION, model, at=LATER)
    assert cost.is_batch_price
    assert cost.amount_usd == full_price(model, MILLION) / 2
    assert cost.source.startswith("genai-prices ")


@pytest.mark.parametrize("model", ["text-embedding-3-small", "gpt-5-search-api"])
def test_a_model_without_a_batch_price_is_never_given_its_full_price(model: str) -> None:
    cost = cost_of(MILLION, model, at=LATER)
    assert cost.amount_usd is None
    assert cost.note.startswith("unknown batch price; full price would be $")


def test_an_unknown_model_and_a_foreign_provider_have_no_price() -> None:
    for cost in (cost_of(MILLION, "my-own-model"), cost_of(MILLION, "gpt-5-mini", provider="nobody")):
        assert cost.amount_usd is None
        assert cost.note.startswith("unknown price: genai-prices ")


def test_without_the_package_the_price_is_unknown_and_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    assert cost_of(MILLION, "gpt-5-mini").note == "unknown price: install batchor-dagster[prices]"


def test_a_day_before_the_list_knew_batch_prices_is_counted_at_todays_and_says_so() -> None:
    cost = cost_of(MILLION, "gpt-5-mini", at=datetime(2026, 1, 1, tzinfo=UTC))
    assert cost.is_batch_price
    assert "no batch price is recorded for 2026-01-01" in cost.note


def test_cached_tokens_without_a_batch_price_are_named() -> None:
    cached = RunUsage(input_tokens=1_000_000, cached_tokens=1_000_000)
    assert "cached tokens are counted at their full price" in cost_of(cached, "gpt-4.1", at=LATER).note
    assert cost_of(cached, "gpt-5-mini", at=LATER).note == ""


def test_a_sum_of_small_requests_is_not_charged_as_one_large_request() -> None:
    prices = price_list("gpt-5.4", at=LATER)
    assert isinstance(prices, PriceList)
    assert prices.threshold is not None
    sum_of_many = RunUsage(input_tokens=100 * prices.threshold)
    cost = cost_of(sum_of_many, "gpt-5.4", at=LATER)
    assert cost.amount_usd == prices.tiers[0].input * sum_of_many.input_tokens / 1_000_000
    assert "cost more" in cost.note


def test_prices_need_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a price was looked up in the network")

    monkeypatch.setattr("socket.socket.connect", refuse)
    assert cost_of(MILLION, "gpt-5-mini").amount_usd


def test_a_run_costs_all_its_paid_lines_retried_ones_too(world: World) -> None:
    world.fault("empty_answer", custom_ids=("row-1:a1",))
    runner = world.runner()
    run = runner.run_and_wait(world.job(4), run_id="costly")
    stored = runner.storage.run("costly")
    assert stored is not None
    lines = [row for key in runner.storage.segments(stored.pk) for row in rows_of(runner, stored, key)]
    assert len(lines) == 5
    assert run.usage().output_tokens == sum(row.usage.output_tokens for row in lines if row.usage)
    cost = run_cost(runner.host, stored)
    expected = cost_of(run.usage(), "gpt-5-mini", at=world.clock.now())
    assert cost.amount_usd == expected.amount_usd
    assert cost.amount_usd
    assert f"the run's server is {world.sandbox.base_url.split('/')[2]}" in cost.note


def rows_of(runner: Any, run: Any, segment: Any) -> list[Any]:
    with runner.host.artifacts(run).local_file(segment.key) as path:
        return list(read_rows(path, final_only=False))


def test_a_large_request_of_a_run_is_charged_in_its_own_tier(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = world.runner()
    run = runner.run_and_wait(world.job(3, provider_config=OpenAIProviderConfig(model="gpt-5.4")), run_id="tiers")
    stored = runner.storage.run("tiers")
    assert stored is not None
    real = price_list("gpt-5.4", at=LATER)
    assert isinstance(real, PriceList)
    used = [row.usage for one in runner.storage.segments(stored.pk) for row in rows_of(runner, stored, one)]
    # The sandbox's requests are small, so the tier begins between them.
    edge = max(one.input_tokens for one in used if one) - 1
    low, high = real.tiers
    small = PriceList((low, type(high)(edge, high.input, high.cached, high.output)), True, "smaller tiers")
    monkeypatch.setattr("batchor_engine.runtime.costs.price_list", lambda *_a, **_k: small)
    dear = [one for one in used if one and one.input_tokens > edge]
    cheap = [one for one in used if one and one.input_tokens <= edge]
    expected = sum(one.input_tokens * high.input + one.output_tokens * high.output for one in dear) + sum(
        one.input_tokens * low.input + one.output_tokens * low.output for one in cheap
    )
    assert dear
    assert run.usage().cached_tokens == 0
    assert run_cost(runner.host, stored).amount_usd == expected / 1_000_000


def test_a_run_without_answers_costs_nothing_and_a_custom_model_is_unknown(world: World) -> None:
    runner = world.runner()
    runner.start(world.job(2), run_id="young")
    young = runner.storage.run("young")
    assert young is not None
    assert run_cost(runner.host, young).amount_usd == 0
    assert isinstance(price_list("my-own"), UnknownPrice)


def test_a_newer_list_may_lack_what_we_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices", SimpleNamespace(__version__="9"))
    assert cost_of(MILLION, "gpt-5-mini").amount_usd is None


def test_an_estimate_knows_the_files_the_tokens_and_the_price_of_the_input(world: World) -> None:
    run = world.runner().start(world.job(4), run_id="guess")
    told = run.estimate()
    assert told.request_files == 1
    assert told.input_tokens == run.tallies()[0].estimated_tokens > 0
    expected = cost_of(RunUsage(input_tokens=told.input_tokens), "gpt-5-mini", at=world.clock.now())
    assert told.cost.amount_usd == expected.amount_usd
    assert "input only; priced as OpenAI charges" in told.cost.note


def test_a_run_names_its_server(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    run = world.runner().start(world.job(1), run_id="place")
    assert run.server == world.sandbox.base_url.split("/")[2]
    away = world.runner(connection=None).get_run("place")
    assert away.server == "api.openai.com"
    monkeypatch.setenv("OPENAI_BASE_URL", "https://gateway.example/v1")
    assert away.server == "gateway.example"
    monkeypatch.setenv("OPENAI_BASE_URL", "https://me:hush@gateway.example:8443/v1")
    assert away.server == "gateway.example:8443"


def test_tallies_count_rows_and_attempts_by_group(world: World) -> None:
    world.fault("empty_answer", custom_ids=("row-1:a1",))
    world.fault("refusal", custom_ids=("row-2:a1",))
    rows = [BatchItem(f"row-{n}", {"n": n}, {"batchor_group": n % 2}) for n in range(5)]
    runner = world.runner()
    before = runner.start(world.job(rows), run_id="groups").tallies()
    assert {group: (tally.rows, tally.completed) for group, tally in before.items()} == {0: (3, 0), 1: (2, 0)}
    after = runner.get_run("groups").wait().tallies()
    assert {group: (tally.completed, tally.failed, tally.attempts) for group, tally in after.items()} == {
        0: (2, 1, 3),
        1: (2, 0, 3),
    }
    total = sum(after.values(), RunTally())
    assert total.attempts == sum(result.attempt_count for result in runner.get_run("groups").results())
