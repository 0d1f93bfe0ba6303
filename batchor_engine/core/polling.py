"""Reading what a poll saw.

Law: an unknown status means still running. Only the four last words of a provider end a batch.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from typing import Any

from batchor_engine.core.records import AwayBatch, BatchRecord, Observation
from batchor_engine.core.types import BatchRemoteRecord

LAST_WORDS = frozenset({"completed", "failed", "expired", "cancelled"})
PAGE_SIZE = 100
_SLOWEST_SEC = 60.0
_TWIN_SEC = 900.0


def observation(batch: AwayBatch | BatchRecord, remote: BatchRemoteRecord) -> Observation:
    """What a remote record says of our batch; counts it does not give stay as they were."""
    status, completed, failed = _progress(batch, remote)
    return Observation(
        batch=batch.pk,
        remote_status=status,
        ended=status in LAST_WORDS,
        completed=completed,
        failed=failed,
        # Some servers say "" where there is no file.
        output_file_id=remote.get("output_file_id") or None,
        error_file_id=remote.get("error_file_id") or None,
        input_file_id=remote.get("input_file_id") or None,
        errors=remote.get("errors"),
    )


def is_news(batch: AwayBatch, remote: BatchRemoteRecord) -> bool:
    """Whether a remote record says more than is stored; a poll that saw nothing new writes nothing."""
    seen = _progress(batch, remote)
    return seen[0] in LAST_WORDS or seen != (batch.remote_status, batch.remote_completed, batch.remote_failed)


def _progress(batch: AwayBatch | BatchRecord, remote: BatchRemoteRecord) -> tuple[str, int, int]:
    """Status, and rows completed and failed; counts that are not given stay as they were."""
    counts: Any = remote.get("request_counts") or {}
    completed, failed = counts.get("completed"), counts.get("failed")
    return (
        status_of(remote),
        completed if _is_count(completed) else batch.remote_completed,
        failed if _is_count(failed) else batch.remote_failed,
    )


def status_of(remote: BatchRemoteRecord) -> str:
    return str(remote.get("status") or "unknown")


def max_pages(active: int) -> int:
    """List pages that one poll may ask for, so that a shared account cannot make a poll long."""
    return -(-active // PAGE_SIZE) + 1


def by_list(batches: Collection[AwayBatch], now: float) -> bool:
    """Whether to look at a list page: for several batches, and while a late twin of a young one may still appear."""
    return len(batches) > 1 or any(now - batch.created_at < _TWIN_SEC for batch in batches)


def in_turn(batches: Collection[AwayBatch], last: int | None, now: float) -> Sequence[AwayBatch]:
    """The batches, beginning with the one after `last`; anywhere when none is known, so that short processes differ."""
    line = sorted(batches, key=lambda batch: batch.pk)
    if not line:
        return line
    if last is None:
        first = random.Random(now).randrange(len(line))  # noqa: S311 - a turn, not cryptography
    else:
        first = next((place for place, batch in enumerate(line) if batch.pk > last), 0)
    return [*line[first:], *line[:first]]


def cadence_sec(interval: float, youngest_age: float | None) -> float:
    """How long to sleep between looks: the interval at first, then a fiftieth of the youngest batch's age, ≤ 60 s.

    A batch that has run for an hour is looked at once a minute; None (no batch is away) keeps the interval.
    """
    return interval if youngest_age is None else max(interval, min(youngest_age / 50.0, _SLOWEST_SEC))


def _is_count(value: object) -> bool:
    return type(value) is int
