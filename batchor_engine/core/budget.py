"""How many prompt tokens may be enqueued: what the user configured, lowered by what the provider has said.

Law: a limit named by the provider wins over a larger one in the config, at the same safety ratio, until what goes
through shows that it was raised. A refusal without a number is a reason for caution, never a limit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from batchor_engine.core.records import ScopeRecord

# Our estimates may be this much lower than the provider's counting before we stop lowering the limit any further.
_SMALLEST_SCALE = 1 / 1024
# A learned limit is lifted by this much with every batch that goes through: an account that was raised is noticed, and
# one that was not refuses a batch now and then. Above any account's limit it is forgotten.
_LIFT = 1.02
_NO_LIMIT = 10**12


@dataclass(frozen=True)
class Allowance:
    """Tokens for all runs of a scope together, for one batch, and for one row; None: unlimited.

    `scale` below 1 is caution after a refusal; where no number is known, it is the number of rows that it lowers.
    """

    total: int | None
    per_batch: int | None
    per_row: int | None
    scale: float = 1.0

    @property
    def is_blind(self) -> bool:
        """Whether the provider has refused a batch and nobody has named a number."""
        return self.total is None and self.scale < 1

    def budget_for(self, items: int, tokens: int) -> int | None:
        """What a batch is claimed against: a row that alone is above a lowered limit goes while nothing else is out.

        So does any batch where no number is known that would say how many fit.
        """
        if self.total is None:
            return tokens if self.is_blind else None
        return max(self.total, tokens) if items == 1 else self.total

    def rows_of(self, most: int, pending: int) -> int:
        """How many rows a batch may have, where `most` is the policy's number and `pending` wait."""
        return max(1, int(min(most, pending) * self.scale)) if self.is_blind else most


def scope_name(account_label: str, model: str) -> str:
    """The scope whose limit all runs of one account and model share."""
    return f"{account_label}|{model}"


def allowance(effective: int | None, per_batch: int | None, scope: ScopeRecord, *, target_ratio: float) -> Allowance:
    """The configured limits, lowered by what the provider has said and by how far off our counting was.

    A row is refused only by a limit that its job names, never by our own caution or by what another run was told.
    """
    learned = None if scope.learned_limit is None else max(1, int(scope.learned_limit * target_ratio))
    total = _scaled(_least(effective, learned), scope.scale)
    return Allowance(total, _least(_scaled(per_batch, scope.scale), total), _least(per_batch, effective), scope.scale)


def after_refusal(scope: ScopeRecord, named: int | None, tokens: int, *, news: bool) -> ScopeRecord:
    """A batch of `tokens` (by our count) was above the limit; `named` is the provider's word for it.

    The next batches are half as large where the number does not explain it: there is none, or the batch was within it
    while nothing else of ours was enqueued. It is no `news` when the batch went out before an earlier refusal came in.
    """
    explained = named is not None and (tokens > named or scope.reserved > 0)
    scale = max(_SMALLEST_SCALE, scope.scale / 2) if news and not explained else scope.scale
    return replace(scope, learned_limit=named or scope.learned_limit, scale=scale)


def after_success(scope: ScopeRecord, tokens: int) -> ScopeRecord:
    """A batch of `tokens` went through: caution is taken back, and a learned limit lifted, step by step."""
    learned = scope.learned_limit
    if learned is not None:
        learned = max(tokens, int(learned * _LIFT) + 1)
    return replace(
        scope,
        learned_limit=None if learned is None or learned > _NO_LIMIT else learned,
        scale=min(1.0, scope.scale * 1.25),
    )


def _scaled(limit: int | None, scale: float) -> int | None:
    return None if limit is None else max(1, int(limit * scale))


def _least(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


# A batch that is not known to be at the provider after this has lost the worker that was sending it, or has a slow one.
SENDING_SEC = 30 * 60.0
# A window is 24 hours; the reservation of a batch at the provider that nobody gave back is dead some hours later.
AWAY_SEC = (24 + 6) * 3600.0
# A run that was refused budget keeps its place this long after it last asked, or after there was last no room for it:
# whoever looks after runs by the minute has to come and take it.
WAITER_SEC = 600.0


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
