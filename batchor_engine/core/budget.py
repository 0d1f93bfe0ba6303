"""How many prompt tokens may be enqueued: what the user configured, lowered by what the provider has said.

Law: a limit named by the provider wins over a larger one in the config, at the same safety ratio.
"""

from __future__ import annotations

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
