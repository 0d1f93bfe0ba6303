"""What tokens cost once a price is known: facts about money, without any price list."""

from __future__ import annotations

from decimal import Decimal

import pytest

from batchor_engine.core.costs import Cost, PriceList, Tier, UnknownPrice, UsageByTier, price, usd, with_note
from batchor_engine.models import RunUsage

BASE = Tier(0, Decimal("2"), Decimal("0.5"), Decimal("8"))
LONG = Tier(1000, Decimal("4"), Decimal("1"), Decimal("12"))
FLAT = PriceList((BASE,), is_batch_price=True, source="a list")
TIERED = PriceList((BASE, LONG), is_batch_price=True, source="a list")


def cost(usage: RunUsage, prices: PriceList = FLAT) -> Decimal | None:
    return price({0: usage}, prices).amount_usd


def test_cached_tokens_are_a_part_of_the_input_and_cost_their_own_price() -> None:
    assert cost(RunUsage(input_tokens=1_000_000, cached_tokens=400_000)) == Decimal("1.4")


def test_reasoning_tokens_are_a_part_of_the_output_and_are_not_charged_twice() -> None:
    assert cost(RunUsage(output_tokens=1_000_000, reasoning_tokens=900_000)) == Decimal(8)


def test_more_cached_tokens_than_input_never_make_a_negative_amount() -> None:
    assert cost(RunUsage(input_tokens=100, cached_tokens=5_000_000)) == Decimal("0.00005")


def test_a_large_request_costs_more_and_many_small_ones_do_not() -> None:
    usage = UsageByTier(TIERED)
    for tokens in (1000, 1000, 1001):
        usage.add(RunUsage(input_tokens=tokens))
    assert usage.totals == {0: RunUsage(2000), 1: RunUsage(1001)}
    assert price(usage.totals, TIERED).amount_usd == Decimal("0.008004")
    assert (TIERED.threshold, FLAT.threshold) == (1000, None)


def test_a_full_price_is_named_and_is_no_amount() -> None:
    full = PriceList((BASE,), is_batch_price=False, source="a list")
    found = price({0: RunUsage(input_tokens=1_000_000)}, full)
    assert (found.amount_usd, found.is_batch_price) == (None, False)
    assert found.note == "unknown batch price; full price would be $2.00"


def test_an_unknown_price_is_said_and_counting_goes_on() -> None:
    unknown = UnknownPrice("nobody knows")
    usage = UsageByTier(unknown)
    usage.add(RunUsage(5))
    assert price(usage.totals, unknown) == Cost(None, note="nobody knows")


def test_a_note_on_cached_prices_is_told_only_where_tokens_were_cached() -> None:
    prices = PriceList((BASE,), True, "a list", cached_note="cached at full price")
    assert price({0: RunUsage(10)}, prices).note == ""
    assert price({0: RunUsage(10, 5)}, prices).note == "cached at full price"
    assert with_note(price({0: RunUsage(10, 5)}, prices), "more").note == "cached at full price; more"


@pytest.mark.parametrize(
    ("amount", "text"),
    [("0", "$0.00"), ("0.000012", "$0.000012"), ("0.5", "$0.5"), ("1", "$1.00"), ("12345.678", "$12,345.68")],
)
def test_amounts_are_written_for_people(amount: str, text: str) -> None:
    assert usd(Decimal(amount)) == text
