"""What an outcome does to its row.

Law: every path ends. Counted failures end at the policy's attempts, uncounted ones at a cap of their own, and rows that
were done and have no line at the policy's attempts, within bounds of ours: each time may have been paid. No count ends
what another one has to end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from batchor_engine.core.backoff import delay_sec
from batchor_engine.core.outcomes import Answer, BatchFailure, LineRef, Missing, Outcome, Rejection
from batchor_engine.core.records import ItemMove, ItemRow
from batchor_engine.models import ItemFailure, RetryPolicy, RunUsage
from batchor_engine.states import ItemStatus

# A row that was sent this often without ever being tried is not going to be.
MAX_UNCOUNTED = 10
# A line that is missing once is no fault of the row, even where a policy wants no second attempt.
_FEWEST_SENT = 3
# A row's uncounted tries are one number, whose hundreds are the lines that were missing.
_MISSING = 100
BATCH_COMPLETED = "completed"
BATCH_FAILED = "failed"
BATCH_ENDED_EARLY = "batch_terminal_"
BATCH_VALIDATION_FAILED = "batch_validation_failed"
OUTPUT_LOST = "batch_output_lost"
QUOTA = "openai_insufficient_quota"
ENQUEUE_LIMIT = "enqueue_token_limit"
# The provider asks us to wait; the rows themselves are as good as before.
BACK_PRESSURE = frozenset({QUOTA, ENQUEUE_LIMIT})


class Verdict(NamedTuple):
    """A row's next state, and what is kept of this line; `attempts` and `uncounted` are the new totals."""

    to: ItemStatus
    attempts: int
    uncounted: int
    retry_at: float | None
    text: str | None
    failure: ItemFailure | None
    usage: RunUsage | None
    ref: LineRef | None

    @property
    def final(self) -> bool:
        # A set would hash an enumeration's name for every row.
        return self.to is ItemStatus.COMPLETED or self.to is ItemStatus.FAILED_PERMANENT

    def move(self, row: ItemRow) -> ItemMove:
        return ItemMove(row.item_index, self.to, self.attempts, self.uncounted, self.retry_at)


@dataclass(frozen=True)
class Unanswered:
    """What a batch's end means for the rows that no line answers.

    `weighs` is False for back-pressure and for another row's fault, which say nothing about a row; `row_waits` is False
    where the whole run holds back instead. `pinned` are the rows (by 0-based line) that the provider itself named as
    the cause.
    """

    error_class: str
    message: str
    curable: bool = True
    weighs: bool = True
    row_waits: bool = False
    pinned: Mapping[int, str] = field(default_factory=dict[int, str])


def unanswered(batch_status: str, failure: BatchFailure | None, lines: int) -> Unanswered:
    """Read the end of a batch: completed without a line, ended early, refused for now, or refused for good.

    `lines` is how many it was sent with.
    """
    if failure is None:
        message = "the batch completed, but no line of its files answers this row"
        return Unanswered("batch_output_missing_row", message, row_waits=True)
    if failure.error_class in BACK_PRESSURE:
        return Unanswered(failure.error_class, failure.message, weighs=False)
    pinned = {number - 1: reason for number, reason in failure.lines}
    if pinned or failure.curable:
        message = f"the provider ended the batch as {batch_status} before it answered this row: {failure.message}"
        # Each such end fails a pinned row for good, so the others go again once for each bad row at most. A line that
        # the batch does not have fails nobody: then every end weighs, or it would go on for ever.
        weighs = not any(0 <= line < lines for line in pinned)
        return Unanswered(f"{BATCH_ENDED_EARLY}{batch_status}", message, weighs=weighs, pinned=pinned)
    return Unanswered(BATCH_VALIDATION_FAILED, failure.message, curable=False)


def output_lost(why: str) -> Unanswered:
    """Answers that cannot be had any more may have been paid, so their rows are never resent by themselves."""
    message = f"the answers of this batch cannot be had ({why}): use retry_failed() to pay again"
    return Unanswered(OUTPUT_LOST, message, curable=False)


def settle(outcome: Outcome, row: ItemRow, line: int, policy: RetryPolicy, now: float, rest: Unanswered) -> Verdict:
    """Decide one row; `line` is its 0-based place in the batch, `rest` what becomes of a row without an answer."""
    match outcome:
        case Answer():
            return Verdict(
                ItemStatus.COMPLETED, row.attempts + 1, row.uncounted, None, outcome.text, None, outcome.usage,
                outcome.ref,
            )  # fmt: skip
        case Rejection():
            return _rejected(outcome, row, policy, now)
        case Missing():
            return _unanswered(rest, row, line, policy, now)


def _rejected(outcome: Rejection, row: ItemRow, policy: RetryPolicy, now: float) -> Verdict:
    attempts = row.attempts + (1 if outcome.counts else 0)
    uncounted = row.uncounted + (0 if outcome.counts else 1)
    left = attempts - row.granted < policy.max_attempts if outcome.counts else uncounted % _MISSING < MAX_UNCOUNTED
    again = outcome.curable and left
    failure = ItemFailure(outcome.error_class, outcome.message, again, outcome.raw_error)
    kept = (outcome.text, failure, outcome.usage, outcome.ref)
    if not again:
        return Verdict(ItemStatus.FAILED_PERMANENT, attempts, uncounted, None, *kept)
    if outcome.error_class.startswith(BATCH_ENDED_EARLY):
        # The run waits for the provider, not the row.
        return Verdict(ItemStatus.PENDING, attempts, uncounted, None, *kept)
    failures = attempts - row.granted if outcome.counts else uncounted % _MISSING
    wait = max(delay_sec(failures, policy), outcome.retry_after_sec or 0.0)
    return Verdict(ItemStatus.FAILED_RETRYABLE, attempts, uncounted, now + wait, *kept)


def _unanswered(rest: Unanswered, row: ItemRow, line: int, policy: RetryPolicy, now: float) -> Verdict:
    if line in rest.pinned:
        failure = ItemFailure(BATCH_VALIDATION_FAILED, rest.pinned[line], retryable=False)
        return _without_line(ItemStatus.FAILED_PERMANENT, row, row.uncounted, failure)
    missed = _MISSING if rest.row_waits else 1
    uncounted = row.uncounted + (missed if rest.weighs else 0)
    missing, others = divmod(uncounted, _MISSING)
    # A batch that was worked through may have been paid for every row, whatever its files say.
    cap = min(max(policy.max_attempts, _FEWEST_SENT), MAX_UNCOUNTED)
    again = rest.curable and missing < cap and others < MAX_UNCOUNTED
    failure = ItemFailure(rest.error_class, rest.message, again)
    if not again:
        return _without_line(ItemStatus.FAILED_PERMANENT, row, uncounted, failure)
    if rest.row_waits:
        return _without_line(ItemStatus.FAILED_RETRYABLE, row, uncounted, failure, now + delay_sec(missing, policy))
    return _without_line(ItemStatus.PENDING, row, uncounted, failure)


def _without_line(
    to: ItemStatus, row: ItemRow, uncounted: int, failure: ItemFailure, retry_at: float | None = None
) -> Verdict:
    return Verdict(to, row.attempts, uncounted, retry_at, None, failure, None, None)
