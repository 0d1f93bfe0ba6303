"""What a batch does next, decided from its record and its clock alone.

Law: nothing here reads a clock, a file or a fault board; the desk and the worker carry out what is said.
"""

from __future__ import annotations

from dataclasses import dataclass

from .config import SandboxConfig
from .faults import Fault, FaultKind, first
from .values import BatchRecord


@dataclass(frozen=True)
class Pace:
    """How far the phase is: `due` when it may be left, `progress` from 0 to 1 on the way."""

    due: bool
    progress: float


@dataclass(frozen=True)
class Validate:
    """Read the input file and go on to in_progress or failed."""


@dataclass(frozen=True)
class AnswerTo:
    """Answer lines until so many are answered."""

    count: int


@dataclass(frozen=True)
class Enter:
    """Go to the next phase; the batch will end as `ending`."""

    status: str
    ending: str


@dataclass(frozen=True)
class Close:
    """Publish the files and end."""


Step = Validate | AnswerTo | Enter | Close


def pace(record: BatchRecord, config: SandboxConfig, now: float, polled: bool) -> Pace:
    """The pace of a batch by the configured clock; `polled` says that a poll is being answered."""
    faults = carried(record)
    stuck = first(faults, FaultKind.STUCK)
    if record.pushed:
        return Pace(True, 1.0)
    if config.clock == "manual" or (stuck is not None and stuck.phase == record.status):
        return Pace(False, 0.0)
    if config.clock == "polls":
        length = config.polls.of(record.status)
        return Pace(record.polls_seen >= length, (record.polls_seen + polled) / (length + 1))
    length = config.phases.of(record.status)
    passed = now - record.phase_since
    return Pace(passed >= length, min(1.0, passed / length) if length > 0 else 1.0)


def next_step(record: BatchRecord, at: Pace, now: float) -> Step | None:
    """The next thing to do for a batch, or None when only time is missing."""
    match record.status:
        case "validating":
            return Validate() if at.due else None
        case "in_progress":
            return _in_progress(record, at, now)
        case "finalizing" | "cancelling":
            return Close() if at.due else None
        case _:
            return None


def _in_progress(record: BatchRecord, at: Pace, now: float) -> Step | None:
    early = first(carried(record), FaultKind.EXPIRE, FaultKind.CANCEL)
    goal = record.total if early is None else min(early.at, record.total)
    target = goal if at.due else min(goal, int(record.total * at.progress))
    if record.answered < target:
        return AnswerTo(target)
    if record.expires and now >= record.expires_at:
        return Enter("finalizing", "expired")
    if not at.due:
        return None
    if early is None:
        return Enter("finalizing", "completed")
    if early.kind == FaultKind.EXPIRE:
        return Enter("finalizing", "expired")
    return Enter("cancelling", "cancelled")


def carried(record: BatchRecord) -> list[Fault]:
    """The faults that were bound to a batch."""
    return [Fault.from_json(one) for one in record.faults]
