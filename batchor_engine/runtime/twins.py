"""Two remote batches of one intent: a create call that arrived after its sender was given up.

Law: one of them does the work. The one we know is kept, the other is cancelled as soon as any listing shows it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType

from batchor_engine.core.identity import INTENT_KEY
from batchor_engine.core.polling import LAST_WORDS
from batchor_engine.core.records import BatchRecord
from batchor_engine.core.types import BatchRemoteRecord
from batchor_engine.errors import ProviderError
from batchor_engine.ports.providers import BatchProvider
from batchor_engine.runtime.host import Host
from batchor_engine.states import BATCH_UNSETTLED, BatchState

log = logging.getLogger("batchor_engine")

_OVER = {*LAST_WORDS, "cancelling"}
# Which remote batch is ours is still to be found out.
_OPEN = {*BATCH_UNSETTLED, BatchState.INDETERMINATE}


def cancel_twins(
    host: Host,
    provider: BatchProvider,
    page: Sequence[BatchRemoteRecord],
    away: Mapping[str, str | None] = MappingProxyType({}),
) -> int:
    """Cancel the live batches of a page that carry an intent of ours under another id; how many.

    `away` are the ids at the provider of submitted batches, by intent: who has the id of its intent is no twin.
    """
    marked = {
        remote["id"]: intent
        for remote in page
        if (intent := (remote.get("metadata") or {}).get(INTENT_KEY))
        and away.get(intent) != remote["id"]
        and _is_live(remote)
    }
    if not marked:
        return 0
    known = {batch.intent_id: batch for batch in host.store.batches(intents=set(marked.values()))}
    twins = [(remote_id, known[intent]) for remote_id, intent in marked.items() if intent in known]
    twins = [(remote_id, batch) for remote_id, batch in twins if _is_twin(remote_id, batch)]
    for remote_id, batch in twins:
        log.warning("cancelling twin batch=%s of run=%s intent=%s", remote_id, batch.run_id, batch.intent_id)
        with suppress(ProviderError):
            provider.cancel_batch(remote_id)
            host.emit(batch.run_id, "twin_batch_cancelled", provider_batch_id=remote_id)
    return len(twins)


def _is_twin(remote_id: str, batch: BatchRecord) -> bool:
    """Whether our batch of this intent is settled, and is not this one."""
    return batch.state not in _OPEN and batch.provider_batch_id != remote_id


def _is_live(remote: BatchRemoteRecord) -> bool:
    return str(remote.get("status")) not in _OVER
