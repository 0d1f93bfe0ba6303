"""How many prompt tokens may be enqueued: what the user configured, lowered by what the provider has said.

Law: a limit named by the provider wins over a larger one in the config, at the same safety ratio.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Allowance:
    """Tokens for all runs of a scope together, and for one batch; None: unlimited."""

    total: int | None
    per_batch: int | None


def allowance(
    effective: int | None, per_batch: int | None, *, learned_limit: int | None, target_ratio: float
) -> Allowance:
    learned = None if learned_limit is None else max(1, int(learned_limit * target_ratio))
    total = _least(effective, learned)
    return Allowance(total, _least(per_batch, total))


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
