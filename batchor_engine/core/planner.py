"""What to do next for a run's submission side.

Law: planning looks at values and names actions; it performs none. A waiting, paused or finished run plans nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from batchor_engine.core.records import BatchRecord, RunRecord
from batchor_engine.states import ItemStatus, RunControlState


@dataclass(frozen=True)
class RunView:
    """A run as planning sees it; `unsettled` batches are between plan and certainty, `submitted` ones are away."""

    run: RunRecord
    unsettled: tuple[BatchRecord, ...]
    submitted: tuple[BatchRecord, ...]
    has_source: bool
    next_retry_at: float | None


@dataclass(frozen=True)
class Recover:
    """Find out about batches that a crash or a lost answer left open, and carry them on."""


@dataclass(frozen=True)
class ReopenRows:
    """Failed rows whose delay has passed are pending again."""


@dataclass(frozen=True)
class Ingest:
    """Read on in the source, sending full batches on the way."""


@dataclass(frozen=True)
class Submit:
    """Send what is pending, as far as the budget allows."""


@dataclass(frozen=True)
class TakeBack:
    """Cancelled: batches that never reached the provider give their rows back."""


@dataclass(frozen=True)
class AskCancel:
    """Cancelled: ask the provider to cancel this batch."""

    batch: BatchRecord


@dataclass(frozen=True)
class FinishCancel:
    """Cancelled: fail what is still open, once no batch is alive."""


Action: TypeAlias = Recover | ReopenRows | Ingest | Submit | TakeBack | AskCancel | FinishCancel


def plan(view: RunView, now: float) -> tuple[Action, ...]:
    """The actions of one cycle, in order."""
    run = view.run
    if run.is_finished or run.control is RunControlState.PAUSED:
        return ()
    if run.control is RunControlState.CANCEL_REQUESTED:
        return _plan_cancel(view)
    return tuple(_plan_work(view, now))


def _plan_cancel(view: RunView) -> tuple[Action, ...]:
    take_back = (TakeBack(),) if view.unsettled else ()
    asked = () if view.run.drain else tuple(AskCancel(one) for one in view.submitted if one.cancel_asked_at is None)
    alive = bool(view.submitted) or view.run.live_batches > len(view.unsettled) + len(view.submitted)
    return (*take_back, *asked, *(() if alive else (FinishCancel(),)))


def _plan_work(view: RunView, now: float) -> list[Action]:
    run, actions = view.run, list[Action]()
    if view.unsettled:
        actions.append(Recover())
    due = view.next_retry_at is not None and view.next_retry_at <= now
    if due:
        actions.append(ReopenRows())
    ingests = view.has_source and not run.ingest.finished
    if ingests:
        actions.append(Ingest())
    if (ingests or due or run.counts[ItemStatus.PENDING]) and run.backoff.until <= now:
        actions.append(Submit())
    return actions
