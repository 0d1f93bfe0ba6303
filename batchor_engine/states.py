"""The states of items, batches and runs, and every legal move between them.

Law: a state changes only along these tables. Every write that moves a row names the states it may leave, taken from
here, and says how many rows it moved. An illegal move changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import TypeVar


class ItemStatus(StrEnum):
    """Where one row of work stands."""

    PENDING = "pending"
    QUEUED_LOCAL = "queued_local"
    SUBMITTED = "submitted"
    COMPLETED = "completed"
    FAILED_RETRYABLE = "failed_retryable"
    FAILED_PERMANENT = "failed_permanent"


class BatchState(StrEnum):
    """Where one batch stands between our intent and its collected answers."""

    PLANNED = "planned"
    INTENDED = "intended"
    UPLOADED = "uploaded"
    SUBMITTED = "submitted"
    ENDED = "ended"
    COLLECTED = "collected"
    ABANDONED = "abandoned"
    REJECTED = "rejected"
    INDETERMINATE = "indeterminate"
    LOST = "lost"


class RunLifecycleStatus(StrEnum):
    """Whether a run is over, and how."""

    RUNNING = "running"
    COMPLETED = "completed"
    COMPLETED_WITH_FAILURES = "completed_with_failures"


class RunControlState(StrEnum):
    """What an operator wishes of a run; independent of how far it is."""

    RUNNING = "running"
    PAUSED = "paused"
    CANCEL_REQUESTED = "cancel_requested"


ITEM_TRANSITIONS: Mapping[ItemStatus, frozenset[ItemStatus]] = {
    ItemStatus.PENDING: frozenset({ItemStatus.QUEUED_LOCAL, ItemStatus.FAILED_PERMANENT}),
    ItemStatus.QUEUED_LOCAL: frozenset({ItemStatus.SUBMITTED, ItemStatus.PENDING, ItemStatus.FAILED_PERMANENT}),
    ItemStatus.SUBMITTED: frozenset(
        {ItemStatus.COMPLETED, ItemStatus.FAILED_RETRYABLE, ItemStatus.FAILED_PERMANENT, ItemStatus.PENDING}
    ),
    ItemStatus.COMPLETED: frozenset(),
    # A cancel reaches rows that wait for their next attempt.
    ItemStatus.FAILED_RETRYABLE: frozenset({ItemStatus.PENDING, ItemStatus.FAILED_PERMANENT}),
    # Only retry_failed() makes this move; the old result is superseded by it.
    ItemStatus.FAILED_PERMANENT: frozenset({ItemStatus.PENDING}),
}

BATCH_TRANSITIONS: Mapping[BatchState, frozenset[BatchState]] = {
    BatchState.PLANNED: frozenset({BatchState.INTENDED, BatchState.ABANDONED}),
    BatchState.INTENDED: frozenset({BatchState.UPLOADED, BatchState.ABANDONED, BatchState.REJECTED}),
    BatchState.UPLOADED: frozenset(
        {BatchState.SUBMITTED, BatchState.ABANDONED, BatchState.REJECTED, BatchState.INDETERMINATE}
    ),
    BatchState.SUBMITTED: frozenset({BatchState.ENDED}),
    BatchState.ENDED: frozenset({BatchState.COLLECTED, BatchState.LOST}),
    BatchState.COLLECTED: frozenset(),
    BatchState.ABANDONED: frozenset(),
    BatchState.REJECTED: frozenset(),
    BatchState.INDETERMINATE: frozenset({BatchState.SUBMITTED, BatchState.ABANDONED}),
    BatchState.LOST: frozenset(),
}

ITEM_TERMINAL = frozenset({ItemStatus.COMPLETED, ItemStatus.FAILED_PERMANENT})
ITEM_OPEN = frozenset(ItemStatus) - ITEM_TERMINAL
BATCH_OVER = frozenset(state for state, targets in BATCH_TRANSITIONS.items() if not targets)
BATCH_LIVE = frozenset(BatchState) - BATCH_OVER
# States in which nothing is paid yet as far as we can prove, so the owner of the run must settle them first.
BATCH_UNSETTLED = frozenset({BatchState.PLANNED, BatchState.INTENDED, BatchState.UPLOADED})
# States of a live batch in which we have no word from the provider that it is there.
BATCH_NOT_REMOTE = frozenset({*BATCH_UNSETTLED, BatchState.INDETERMINATE})
# States whose prompt tokens count against the provider's enqueued-token limit.
BATCH_HOLDS_BUDGET = frozenset({*BATCH_NOT_REMOTE, BatchState.SUBMITTED})
RUN_TERMINAL = frozenset({RunLifecycleStatus.COMPLETED, RunLifecycleStatus.COMPLETED_WITH_FAILURES})

# Items are stored by the million, so their states are small integers at rest. Never renumber.
ITEM_CODES: Mapping[ItemStatus, int] = {
    ItemStatus.PENDING: 0,
    ItemStatus.QUEUED_LOCAL: 1,
    ItemStatus.SUBMITTED: 2,
    ItemStatus.COMPLETED: 3,
    ItemStatus.FAILED_RETRYABLE: 4,
    ItemStatus.FAILED_PERMANENT: 5,
}

_State = TypeVar("_State", bound=StrEnum)


class IllegalTransitionError(RuntimeError):
    """A move that no table allows was asked for: a defect of batchor, not of its user."""


def sources_of(table: Mapping[_State, frozenset[_State]], target: _State) -> frozenset[_State]:
    """States from which `target` can be reached in one move."""
    return frozenset(state for state, targets in table.items() if target in targets)


def check_move(table: Mapping[_State, frozenset[_State]], source: _State, target: _State) -> None:
    """Raise IllegalTransitionError unless the table allows `source` → `target`."""
    if target not in table[source]:
        raise IllegalTransitionError(f"{type(source).__name__} may not go from {source} to {target}")


def run_status(*, ingest_finished: bool, open_items: int, live_batches: int, failed_items: int) -> RunLifecycleStatus:
    """Derive a run's status from its counters: over when all is read, every item terminal and no batch alive."""
    if not ingest_finished or open_items or live_batches:
        return RunLifecycleStatus.RUNNING
    return RunLifecycleStatus.COMPLETED_WITH_FAILURES if failed_items else RunLifecycleStatus.COMPLETED


def mermaid() -> str:
    """The item and batch tables as two Mermaid state diagrams, as docs/architecture.md shows them."""
    return "\n\n".join(
        _diagram(title, table)
        for title, table in (("items", ITEM_TRANSITIONS.items()), ("batches", BATCH_TRANSITIONS.items()))
    )


def _diagram(title: str, rows: Iterable[tuple[StrEnum, frozenset[StrEnum]]]) -> str:
    rows = list(rows)
    arrows = [f"    {source} --> {target}" for source, targets in rows for target in sorted(targets)]
    ends = [f"    {source} --> [*]" for source, targets in rows if not targets]
    head = ["```mermaid", "stateDiagram-v2", f"    %% {title}", f"    [*] --> {rows[0][0]}"]
    return "\n".join([*head, *arrows, *ends, "```"])
