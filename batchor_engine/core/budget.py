"""How many prompt tokens may be enqueued: what the user configured, lowered by what the provider has said.

Law: a limit named by the provider wins over a larger one in the config, at the same safety ratio.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from batchor_engine.core.records import ScopeRecord

# Our estimates may be this much lower than the provider's counting before we stop lowering the limit any further.
_SMALLEST_SCALE = 1 / 1024


@dataclass(frozen=True)
class Allowance:
    """Tokens for all runs of a scope together, for one batch, and for one row; None: unlimited."""

    total: int | None
    per_batch: int | None
    per_row: int | None

    def budget_for(self, items: int, tokens: int) -> int | None:
        """What a batch is claimed against: a row that alone is above a lowered limit goes while nothing else is out."""
        return self.total if self.total is None or items != 1 else max(self.total, tokens)


def scope_name(account_label: str, model: str) -> str:
    """The scope whose limit all runs of one account and model share."""
    return f"{account_label}|{model}"


def allowance(effective: int | None, per_batch: int | None, scope: ScopeRecord, *, target_ratio: float) -> Allowance:
    """The configured limits, lowered by what the provider has said and by how far off our counting was.

    A row is refused only by a limit that somebody named, never by our own caution.
    """
    learned = None if scope.learned_limit is None else max(1, int(scope.learned_limit * target_ratio))
    total = _scaled(_least(effective, learned), scope.scale)
    return Allowance(
        total, _least(_scaled(per_batch, scope.scale), total), _least(per_batch, effective, scope.learned_limit)
    )


def after_refusal(scope: ScopeRecord, named: int | None, tokens: int) -> ScopeRecord:
    """A batch of `tokens` (by our count) was above the limit, so that limit is known; `named` is the provider's word.

    When nothing else of ours was enqueued, our count itself is too low, and the next batches are half as large.
    """
    learned = named or scope.learned_limit or tokens
    scale = scope.scale if scope.reserved > 0 else max(_SMALLEST_SCALE, scope.scale / 2)
    return replace(scope, learned_limit=learned, scale=scale)


def after_success(scope: ScopeRecord) -> ScopeRecord:
    """A batch went through: caution is taken back step by step."""
    return replace(scope, scale=min(1.0, scope.scale * 1.25))


def _scaled(limit: int | None, scale: float) -> int | None:
    return None if limit is None else max(1, int(limit * scale))


def _least(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


# A run that was refused budget keeps its place this long after it last asked.
WAITER_SEC = 120.0


@dataclass(frozen=True, order=True)
class Claimant:
    """A run that wants budget: the tokens it has enqueued already, and since when it waits for more."""

    held: int
    since: float


def may_take(tokens: int, *, reserved: int, budget: int, me: Claimant, waiting: Iterable[Claimant]) -> bool:
    """Whether a run may enqueue `tokens` now: they fit, and no run that waits has less, or waited longer with as much.

    So a run of a million rows cannot keep a small one waiting, and two large ones take turns.
    """
    return reserved + tokens <= budget and all(me <= other for other in waiting)
