"""Reading what a poll saw.

Law: an unknown status means still running. Only the four last words of a provider end a batch.
"""

from __future__ import annotations

from typing import Any, cast

from batchor_engine.core.records import BatchRecord, Observation
from batchor_engine.core.types import BatchRemoteRecord
from batchor_engine.models import JSONValue

LAST_WORDS = frozenset({"completed", "failed", "expired", "cancelled"})
PAGE_SIZE = 100


def observation(batch: BatchRecord, remote: BatchRemoteRecord) -> Observation:
    """What a remote record says of our batch; counts it does not give stay as they were."""
    status = str(remote.get("status") or "unknown")
    counts = cast("dict[str, Any]", remote.get("request_counts") or {})
    return Observation(
        batch=batch.pk,
        remote_status=status,
        ended=status in LAST_WORDS,
        completed=_count(counts.get("completed"), batch.remote_completed),
        failed=_count(counts.get("failed"), batch.remote_failed),
        # Some servers say "" where there is no file.
        output_file_id=remote.get("output_file_id") or None,
        error_file_id=remote.get("error_file_id") or None,
        input_file_id=remote.get("input_file_id") or None,
        errors=cast("JSONValue", remote.get("errors")),
    )


def is_news(batch: BatchRecord, seen: Observation) -> bool:
    """Whether an observation says more than is stored; a poll that saw nothing new writes nothing."""
    stored = (batch.remote_status, batch.remote_completed, batch.remote_failed)
    return seen.ended or stored != (seen.remote_status, seen.completed, seen.failed)


def max_pages(active: int) -> int:
    """List pages that one poll may ask for, so that a shared account cannot make a poll long."""
    return -(-active // PAGE_SIZE) + 1


def _count(value: object, before: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else before
