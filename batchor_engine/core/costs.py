"""What tokens cost, once a price is known.

Law: a full price is never shown as a batch price, and a price that is not known is never a number. Reasoning tokens
are a part of the output, cached ones a part of the input: neither is charged twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from batchor_engine.models import RunUsage

_MILLION = Decimal(1_000_000)


@dataclass(frozen=True)
class Cost:
    """Money for tokens; `amount_usd` is None where no batch price is known, and `note` then says what is.

    `source` names the price list. `is_batch_price` is True only where the amount was counted at batch prices.
    """

    amount_usd: Decimal | None
    currency: str = "USD"
    is_batch_price: bool = False
    source: str = ""
    note: str = ""

    def __str__(self) -> str:
        """The amount with the price list and the notes, or why there is none."""
        if self.amount_usd is None:
            return self.note or "unknown price"
        return f"{usd(self.amount_usd)} ({_joined(self.source, self.note)})"


@dataclass(frozen=True)
class Tier:
    """USD per million tokens, for requests with more than `above` input tokens."""

    above: int
    input: Decimal
    cached: Decimal
    output: Decimal


@dataclass(frozen=True)
class PriceList:
    """The prices of one model, cheapest tier first; the notes are what a reader of an amount must know."""

    tiers: tuple[Tier, ...]
    is_batch_price: bool
    source: str
    note: str = ""
    cached_note: str = ""

    @property
    def threshold(self) -> int | None:
        """Input tokens of one request above which it costs more; None where every request costs the same."""
        return self.tiers[1].above if len(self.tiers) > 1 else None

    def tier_of(self, input_tokens: int) -> int:
        """The tier of one request, as its place in `tiers`."""
        return max(place for place, tier in enumerate(self.tiers) if tier.above == 0 or input_tokens > tier.above)


@dataclass(frozen=True)
class UnknownPrice:
    """Why there is no price, in words for a user."""

    reason: str


Priced = PriceList | UnknownPrice


class UsageByTier:
    """Tokens added up by what their requests cost, because one large request costs more than many small ones."""

    def __init__(self, prices: Priced) -> None:
        self._prices = prices
        self.totals: dict[int, RunUsage] = {}

    def add(self, usage: RunUsage) -> None:
        """Add one request, or any number of requests of the lowest tier."""
        tier = self._prices.tier_of(usage.input_tokens) if isinstance(self._prices, PriceList) else 0
        self.add_at(tier, usage)

    def add_at(self, tier: int, usage: RunUsage) -> None:
        self.totals[tier] = self.totals.get(tier, RunUsage()) + usage


def price(usage: Mapping[int, RunUsage], prices: Priced) -> Cost:
    """The cost of tokens by tier; an amount only where the list holds batch prices."""
    if isinstance(prices, UnknownPrice):
        return Cost(None, note=prices.reason)
    amount = sum((_charged(used, prices.tiers[tier]) for tier, used in usage.items()), Decimal(0))
    if not prices.is_batch_price:
        return Cost(None, source=prices.source, note=f"unknown batch price; full price would be {usd(amount)}")
    cached = prices.cached_note if any(used.cached_tokens for used in usage.values()) else ""
    return Cost(amount, is_batch_price=True, source=prices.source, note=_joined(prices.note, cached))


def _charged(used: RunUsage, tier: Tier) -> Decimal:
    # Some servers count cached tokens beside the input instead of inside it.
    cached = min(used.cached_tokens, used.input_tokens)
    fresh = used.input_tokens - cached
    return (fresh * tier.input + cached * tier.cached + used.output_tokens * tier.output) / _MILLION


def with_note(cost: Cost, *notes: str) -> Cost:
    """The same cost with more to say."""
    return Cost(cost.amount_usd, cost.currency, cost.is_batch_price, cost.source, _joined(cost.note, *notes))


def usd(amount: Decimal) -> str:
    """An amount for people: whole cents from a dollar on, more digits below."""
    if amount and amount < 1:
        return f"${amount:.6f}".rstrip("0")
    return f"${amount:,.2f}"


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
