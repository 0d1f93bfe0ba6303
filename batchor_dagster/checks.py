"""Asset checks that are read off the outcome of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal

import dagster as dg

from batchor_dagster.facts import Facts
from batchor_dagster.failures import INVALID, REFUSED, TRUNCATED, unanswered
from batchor_engine import counted, usd


@dataclass(frozen=True, kw_only=True)
class BatchorChecks:
    """What the rows of each partition must come to; a threshold that is None makes no check.

    Rates are shares of all rows, from 0 to 1; a value equal to its threshold passes. Each check is named after its
    threshold without `max_`: `failure_rate`, `invalid_rate`, `refusal_rate`, `truncated_rate`, `missing_rows`,
    `cost_usd`. Those in `warn_only` have the severity WARN, the others ERROR. With `blocking`, a failed check of
    severity ERROR stops what is downstream in the same Dagster run.

    Args:
        max_failure_rate: Rows that failed for good, whatever the reason.
        max_invalid_rate: Rows whose answer was empty, no JSON, no vector, or not what the model asks for.
        max_refusal_rate: Rows that the model declined or a filter stopped.
        max_truncated_rate: Rows whose answer was cut.
        max_missing_rows: Rows that were never answered: left out by the provider, expired or cancelled. A number.
        max_cost_usd: What the run may cost in US dollars; an unknown price fails the check with severity WARN.

    Example:
        >>> BatchorChecks(max_failure_rate=0.01, max_cost_usd=20, warn_only=frozenset({"cost_usd"}), blocking=True)
    """

    max_failure_rate: float | None = 0.05
    max_invalid_rate: float | None = None
    max_refusal_rate: float | None = None
    max_truncated_rate: float | None = None
    max_missing_rows: int | None = None
    max_cost_usd: float | None = None
    warn_only: frozenset[str] = frozenset()
    blocking: bool = False

    def __post_init__(self) -> None:
        for rule in _RULES:
            limit = rule.limit(self)
            if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int | float)):
                raise TypeError(f"BatchorChecks.max_{rule.name} must be a number, not {limit!r}")
            if limit is not None and not (0 <= limit <= (1 if rule.is_rate else float("inf"))):
                top = "between 0 and 1" if rule.is_rate else "at least 0"
                raise ValueError(f"BatchorChecks.max_{rule.name} must be {top}, not {limit}")
        if unknown := sorted(set(self.warn_only) - {rule.name for rule in _RULES}):
            raise ValueError(f"BatchorChecks.warn_only names no check {unknown[0]!r}; known: {', '.join(_names())}")


@dataclass(frozen=True)
class _Rule:
    """One check: its name, what it counts, and the sentence for it; `measure` gives None where nothing is known."""

    name: str
    what: str
    measure: Callable[[Facts], float | None]

    @property
    def is_rate(self) -> bool:
        return self.name.endswith("_rate")

    def limit(self, checks: BatchorChecks) -> float | None:
        return getattr(checks, f"max_{self.name}")

    def shown(self, value: float) -> str:
        if self.is_rate:
            return f"{value:.1%} of the rows"
        return usd(Decimal(str(value))) if self.name.endswith("_usd") else counted(round(value), "row")


def _cost(facts: Facts) -> float | None:
    return None if facts.cost.amount_usd is None else float(facts.cost.amount_usd)


_RULES = (
    _Rule("failure_rate", "failed for good", lambda facts: facts.failed / facts.rows if facts.rows else 0.0),
    _Rule("invalid_rate", "had an answer that is not valid", lambda facts: facts.share_of(INVALID)),
    _Rule("refusal_rate", "were declined or filtered", lambda facts: facts.share_of(REFUSED)),
    _Rule("truncated_rate", "had their answer cut", lambda facts: facts.share_of(TRUNCATED)),
    _Rule("missing_rows", "were never answered", lambda facts: float(facts.missing + unanswered(facts.failures))),
    _Rule("cost_usd", "is the cost", _cost),
)


def check_specs(asset: dg.AssetKey, checks: BatchorChecks) -> list[dg.AssetCheckSpec]:
    """One check for each threshold that is set."""
    return [
        dg.AssetCheckSpec(
            rule.name,
            asset=asset,
            blocking=checks.blocking,
            description=f"At most {rule.shown(limit)} {rule.what}.",
        )
        for rule, limit in _wanted(checks)
    ]


def check_results(
    asset: dg.AssetKey, facts: Facts, checks: BatchorChecks, *, partition: str = ""
) -> list[dg.AssetCheckResult]:
    """The outcome of every check; a run without rows passes."""
    return [_result(asset, facts, rule, limit, checks, partition) for rule, limit in _wanted(checks)]


def _wanted(checks: BatchorChecks) -> Iterator[tuple[_Rule, float]]:
    return ((rule, limit) for rule in _RULES if (limit := rule.limit(checks)) is not None)


def _result(
    asset: dg.AssetKey, facts: Facts, rule: _Rule, limit: float, checks: BatchorChecks, partition: str
) -> dg.AssetCheckResult:
    value = rule.measure(facts)
    only_warn = rule.name in checks.warn_only or value is None
    metadata: dict[str, float | str | dg.JsonMetadataValue] = {f"max_{rule.name}": limit}
    if value is not None:
        metadata[rule.name] = value
    if partition:
        metadata["partition"] = partition
    if facts.failures:
        metadata["failures"] = dg.JsonMetadataValue(dict(facts.failures))
    return dg.AssetCheckResult(
        check_name=rule.name,
        asset_key=asset,
        passed=value is not None and value <= limit,
        severity=dg.AssetCheckSeverity.WARN if only_warn else dg.AssetCheckSeverity.ERROR,
        description=(f"{partition}: " if partition else "") + _sentence(rule, facts, value, limit),
        metadata=metadata,
    )


def _sentence(rule: _Rule, facts: Facts, value: float | None, limit: float) -> str:
    allowed = f"at most {rule.shown(limit)} allowed"
    if value is None:
        return f"The cost is not known ({facts.cost.note}); {allowed}"
    if rule.name.endswith("_usd"):
        return f"{rule.shown(value)}; {allowed}"
    count = round(value * facts.rows) if rule.is_rate else round(value)
    share = f" ({value:.1%})" if rule.is_rate else ""
    return f"{count} of {facts.rows} rows {rule.what}{share}; {allowed.replace(' of the rows', '')}"


def _names() -> list[str]:
    return [rule.name for rule in _RULES]
