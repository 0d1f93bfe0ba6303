"""How long a failure waits.

Law: delays grow until there is progress, and never past the policy's maximum. A batch that failed was created well, so
only rows that complete are progress after it.
"""

from __future__ import annotations

from batchor_engine.core.records import Backoff
from batchor_engine.errors import ProviderErrorKind
from batchor_engine.models import RetryPolicy

# 2**63 seconds is past every maximum; beyond it a float would overflow.
_MAX_EXPONENT = 62
# Why a call of ours failed, by kind; every other kind is CONTROL_PLANE_TRANSIENT.
CONTROL_PLANE_CLASS = {
    ProviderErrorKind.QUOTA: "openai_insufficient_quota",
    ProviderErrorKind.FILE_STORAGE: "file_storage_full",
    ProviderErrorKind.ENQUEUE_LIMIT: "enqueue_token_limit",
    ProviderErrorKind.REJECTED: "batch_error",
    ProviderErrorKind.AUTH: "batch_error",
}
CONTROL_PLANE_TRANSIENT = "control_plane_transient"
# The limit of enqueued tokens is not among them: most servers say it of a batch they have taken.
_OF_CALLS = {CONTROL_PLANE_TRANSIENT, *CONTROL_PLANE_CLASS.values()} - {
    CONTROL_PLANE_CLASS[ProviderErrorKind.ENQUEUE_LIMIT]
}


def delay_sec(failures: int, policy: RetryPolicy) -> float:
    """Seconds to wait after the n-th consecutive failure, n from 1."""
    if failures < 1 or not policy.base_backoff_sec or not policy.max_backoff_sec:
        return 0.0
    return min(policy.base_backoff_sec * 2.0 ** min(failures - 1, _MAX_EXPONENT), policy.max_backoff_sec)


def after_failure(
    backoff: Backoff, now: float, policy: RetryPolicy, error_class: str, retry_after_sec: float | None = None
) -> Backoff:
    """One more failure in a row; the provider's own wish counts where it is longer.

    A call that fails after a batch did leaves the batch's class, so that the count outlives the next creation.
    """
    wait = max(delay_sec(backoff.consecutive + 1, policy), retry_after_sec or 0.0)
    return Backoff(
        consecutive=backoff.consecutive + 1,
        total=backoff.total + 1,
        until=max(backoff.until, now + wait),
        error_class=backoff.error_class if _counts_batches(backoff) and error_class in _OF_CALLS else error_class,
    )


def after_creation(backoff: Backoff) -> Backoff:
    """A batch was taken: what failed calls have counted restarts, what failed batches have counted goes on."""
    return backoff if _counts_batches(backoff) else after_progress(backoff)


def after_progress(backoff: Backoff) -> Backoff:
    """The count restarts; a delay that another batch earned runs on."""
    return Backoff(0, backoff.total, backoff.until, backoff.error_class)


def _counts_batches(backoff: Backoff) -> bool:
    return backoff.consecutive > 0 and backoff.error_class not in _OF_CALLS
