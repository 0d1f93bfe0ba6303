"""Prices from the installed price list (genai-prices), and what a run has cost by them.

Law: no network. A missing package, an unknown model or an unknown batch price is said in words, never raised and never
guessed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from batchor_engine.core.costs import Cost, Priced, PriceList, Tier, UnknownPrice, UsageByTier, price, with_note
from batchor_engine.core.records import RunRecord, SegmentRecord
from batchor_engine.models import RunUsage
from batchor_engine.results.segments import group_record_batches, iter_record_batches
from batchor_engine.runtime.host import Host

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, PriceCalculation

INSTALL_HINT = "unknown price: install batchor-dagster[prices]"
_BATCH = {"processing": "batch"}
_USAGE_COLUMNS = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")
_OPENAI_HOST = "api.openai.com"


def cost_of(usage: RunUsage, model: str, *, provider: str = "openai", at: datetime | None = None) -> Cost:
    """What these tokens cost at the batch price of `at` (now where it is None), every request in the lowest tier."""
    prices = price_list(model, provider=provider, at=at)
    cost = price({0: usage}, prices)
    threshold = prices.threshold if isinstance(prices, PriceList) else None
    if threshold is None or usage.input_tokens <= threshold:
        return cost
    return with_note(cost, f"requests above {threshold} input tokens cost more and are counted at the lower price")


def price_list(model: str, *, provider: str = "openai", at: datetime | None = None) -> Priced:
    """The batch prices of a model; its full prices, marked as such, where no batch price is known."""
    try:
        import genai_prices
    except ImportError:
        return UnknownPrice(INSTALL_HINT)
    try:
        return _batch_prices(genai_prices, model, provider, at)
    except AttributeError as error:
        # The list is kept up to date without us, and may one day look different.
        return UnknownPrice(f"unknown price: this genai-prices cannot be read ({error}); install another version")


def _batch_prices(library: Any, model: str, provider: str, at: datetime | None) -> Priced:
    today = datetime.now(UTC)
    moment = at or today
    found = _look_up(library, model, provider, moment)
    if isinstance(found, UnknownPrice):
        return found
    late = ""
    if not _has_batch_price(found.model, moment) and _has_batch_price(found.model, today):
        # The list records since when a price was checked, which is often later than since when it was charged.
        late = f"at the price of {today:%Y-%m-%d}, as no batch price is recorded for {moment:%Y-%m-%d}"
        moment = today
    return _read(library, found.model, moment, late)


def _look_up(library: Any, model: str, provider: str, at: datetime) -> PriceCalculation | UnknownPrice:
    try:
        return library.calc_price(
            library.Usage(input_tokens=0, output_tokens=0), model, provider_id=provider, genai_request_timestamp=at
        )
    except LookupError:
        return UnknownPrice(f"unknown price: genai-prices {library.__version__} does not list {model} of {provider}")


def _has_batch_price(model: ModelInfo, at: datetime) -> bool:
    return any(
        variant.when == _BATCH and (variant.constraint is None or variant.constraint.active(at))
        for variant in model.price_variants or ()
    )


def _read(library: Any, model: ModelInfo, at: datetime, note: str) -> Priced:
    is_batch = _has_batch_price(model, at)
    full = model.get_prices(at)
    prices = model.get_prices(at, _BATCH) if is_batch else full
    if prices.input_mtok is None:
        return UnknownPrice(f"unknown price: genai-prices {library.__version__} has no token price for {model.id}")
    cached_note = ""
    if is_batch and full.cache_read_mtok is not None and prices.cache_read_mtok == full.cache_read_mtok:
        cached_note = "cached tokens are counted at their full price, as no batch price is known for them"
    source = f"genai-prices {library.__version__}, {model.id}"
    return PriceList(_tiers(prices), is_batch, source, note, cached_note)


def _tiers(prices: ModelPrice) -> tuple[Tier, ...]:
    rates: list[Any] = [prices.input_mtok, prices.cache_read_mtok or prices.input_mtok, prices.output_mtok]
    starts = sorted({0, *(tier.start for rate in rates for tier in getattr(rate, "tiers", ()))})
    return tuple(Tier(start, *(_rate(rate, start) for rate in rates)) for start in starts)


def _rate(rate: Any, start: int) -> Decimal:
    """USD per million tokens in the tier that begins at `start`; 0 for a model that makes no such tokens."""
    if rate is None:
        return Decimal(0)
    if isinstance(rate, Decimal):
        return rate
    begun = [tier.price for tier in rate.tiers if tier.start <= start]
    return begun[-1] if begun else rate.base


@dataclass(frozen=True)
class RunEstimate:
    """What was known when the rows were read: tokens of whole request lines, each row once, and their cost as input."""

    request_files: int
    input_tokens: int
    cost: Cost


def run_estimate(host: Host, run: RunRecord, *, group: int | None = None) -> RunEstimate:
    """What is stored about the rows so far, or about those of one group; renders nothing again."""
    tallies = host.store.tallies(run.pk)
    tokens = sum(tally.estimated_tokens for number, tally in tallies.items() if group in {None, number})
    cost = with_note(price({0: RunUsage(input_tokens=tokens)}, _prices_of(host, run)), "input only")
    return RunEstimate(len(host.store.parts(run.pk)), tokens, with_note(cost, *_server_note(host, run)))


def run_cost(host: Host, run: RunRecord) -> Cost:
    """What every collected line of a run has cost so far, retried ones included, at the prices of the run's day."""
    prices = _prices_of(host, run)
    usage = UsageByTier(prices)
    for segment in host.store.segments(run.pk):
        _add_segment(host, run, segment, prices, usage)
    return with_note(price(usage.totals, prices), *_server_note(host, run))


def cost_of_rows(host: Host, run: RunRecord, rows: Iterable[RunUsage]) -> Cost:
    """What these rows of a run have cost."""
    prices = _prices_of(host, run)
    usage = UsageByTier(prices)
    for used in rows:
        usage.add(used)
    return with_note(price(usage.totals, prices), *_server_note(host, run))


def group_usages(host: Host, run: RunRecord, group: int) -> Iterator[RunUsage]:
    """The usage of every collected line of one group of rows, retried ones included."""
    for segment in host.store.segments(run.pk):
        with host.artifacts(run).reading(segment.key) as file:
            yield from _usages(lambda: group_record_batches(file, _USAGE_COLUMNS, group))


def _prices_of(host: Host, run: RunRecord) -> Priced:
    config = host.config_of(run)
    begun = datetime.fromtimestamp(run.created_at, UTC)
    return price_list(config.scope_model(), provider=str(config.provider_kind), at=begun)


def _add_segment(host: Host, run: RunRecord, segment: SegmentRecord, prices: Priced, usage: UsageByTier) -> None:
    threshold = prices.threshold if isinstance(prices, PriceList) else None
    # A segment that is small as a whole holds no large request, so its file need not be opened.
    if threshold is None or segment.totals.usage.input_tokens <= threshold:
        usage.add_at(0, segment.totals.usage)
        return
    with host.artifacts(run).reading(segment.key) as file:
        for used in _usages(lambda: iter_record_batches(file, _USAGE_COLUMNS)):
            usage.add(used)


def _usages(batches: Callable[[], Iterator[Any]]) -> Iterator[RunUsage]:
    for batch in batches():
        columns = [batch.column(name).to_pylist() for name in _USAGE_COLUMNS]
        for row in zip(*columns, strict=True):
            if row[0] is not None:
                yield RunUsage(*(number or 0 for number in row))


def server_of(host: Host, run: RunRecord) -> str:
    """The network location that this process would send the run's requests to."""
    configured = getattr(host.connection.apply(host.config_of(run)), "base_url", None)
    base_url: str | None = configured or os.environ.get("OPENAI_BASE_URL")
    # The environment's URL may carry a password, until a call refuses it.
    return urlsplit(base_url).netloc.rpartition("@")[2] if base_url else _OPENAI_HOST


def _server_note(host: Host, run: RunRecord) -> tuple[str, ...]:
    server = server_of(host, run)
    return () if server == _OPENAI_HOST else (f"priced as OpenAI charges, while the run's server is {server}",)
