"""What the provider has said against the size of a run's batches.

Law: only what is stored counts; the provider is not asked again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from batchor_engine.core.records import BatchRecord
from batchor_engine.core.settle import BATCH_COMPLETED, ENQUEUE_LIMIT
from batchor_engine.core.types import BatchRemoteRecord
from batchor_engine.ports.providers import BatchProvider
from batchor_engine.ports.state import StateStore
from batchor_engine.states import BatchState

# For this long a limit that the provider named to a run fails its rows above it; later they ask again.
_WORD_HOLDS_SEC = 24 * 3600.0


class Refusal(NamedTuple):
    """A batch that was above the provider's limit of enqueued tokens, and the limit it named, where it did."""

    batch: BatchRecord
    limit: int | None
    message: str


def as_remote(batch: BatchRecord) -> BatchRemoteRecord:
    """A batch's end as the provider told it."""
    return BatchRemoteRecord(
        id=str(batch.provider_batch_id),
        status=batch.remote_status or "",
        errors=batch.errors,
        output_file_id=batch.output_file_id,
        error_file_id=batch.error_file_id,
    )


def refusals(store: StateStore, provider: BatchProvider, run_pk: int) -> Iterator[Refusal]:
    """Batches of a run that the provider refused for their tokens, the last one first."""
    for batch in reversed(store.batches(run_pk=run_pk, states={BatchState.COLLECTED})):
        if batch.remote_status != BATCH_COMPLETED:
            failure = provider.explain_failure(as_remote(batch))
            if failure.error_class == ENQUEUE_LIMIT:
                yield Refusal(batch, failure.enqueued_token_limit, failure.message)


def last_word(store: StateStore, provider: BatchProvider, run_pk: int, now: float) -> Refusal | None:
    """The last refusal of a run that named a limit, unless the account may have been raised since."""
    last = next((one for one in refusals(store, provider, run_pk) if one.limit is not None), None)
    return last if last is not None and (last.batch.ended_at or 0.0) > now - _WORD_HOLDS_SEC else None
