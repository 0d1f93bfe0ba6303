"""What the provider's failures mean: row by row, and for a batch as a whole.

Law: type and code decide first, the status next, the wording last; and no word that leaves here holds a credential.

Error classes beyond the contract's table, all counted as attempts:

`refusal`            the model declined. Not curable: the same words would be declined, and paid, again.
`content_filter`     a filter stopped the answer. Not curable, for the same reason.
`incomplete_answer`  the answer was cut, mostly by the output token limit. Curable: lengths differ between samples.
`tool_calls`         the model asks for tools to be called, which a batch cannot do. Not curable: it would ask, and be
                     paid, again. The calls are in the error.
`invalid_embedding`, `invalid_moderation`  not exactly one vector or verdict that can be used. Curable.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from decimal import Decimal
from typing import Any, cast

from batchor_engine.core.outcomes import BatchFailure, Rejection
from batchor_engine.models import JSONValue, RunUsage

ITEM_ERROR = "provider_item_error"
EMPTY = "empty_response_text"
QUOTA = "openai_insufficient_quota"
ENQUEUE_LIMIT = "enqueue_token_limit"
REFUSAL = "refusal"
CONTENT_FILTER = "content_filter"
INCOMPLETE = "incomplete_answer"
TOOL_CALLS = "tool_calls"
INVALID_EMBEDDING = "invalid_embedding"
INVALID_MODERATION = "invalid_moderation"
VALIDATION = "batch_validation_failed"

QUOTA_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
FILE_STORAGE_CODE = "quotaexceeded"
ENQUEUE_CODES = frozenset({"token_limit_exceeded", "enqueued_token_limit_exceeded"})
_UNANSWERED = {
    "batch_expired": "batch_terminal_expired",
    "batch_cancelled": "batch_terminal_cancelled",
    "batch_canceled": "batch_terminal_cancelled",
}
_TRY_AGAIN_STATUSES = frozenset({408, 409, 425, 429})
# The provider's own trouble; in a failed batch anything else is a verdict on the input file.
_PASSING_CODES = frozenset(
    {"server_error", "internal_error", "internal_server_error", "rate_limit_exceeded", "timeout"}
)
_LIMIT = re.compile(r"limit:?\s*(\d[\d,_]*(?:\.\d+)?)(\s?)([a-z]*)", re.IGNORECASE)
_PENDING = re.compile(
    r"\bnot (?:(?:yet|been|fully) )*(?:in (?:an? |the )?)?\W?processed\b|\bstill (?:being |in )?process(?:ed|ing)\b",
    re.IGNORECASE,
)
_UNITS = {"k": 10**3, "thousand": 10**3, "m": 10**6, "million": 10**6, "b": 10**9, "billion": 10**9}
_SECRET = re.compile(r"\b(?:sk|sess|rk|pk)-[A-Za-z0-9*_.-]{6,}|(?i:\bbearer\s+)[^\s\"',]{6,}")
_SHOWN = 500


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """The text without anything that is, or looks like, a key."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "[redacted]")
    return _SECRET.sub("[redacted]", text)


def redacted(value: Any, secrets: Collection[str] = ()) -> JSONValue:
    """A JSON value with every text in it redacted."""
    if isinstance(value, str):
        return redact(value, secrets)
    if isinstance(value, dict):
        return {str(key): redacted(part, secrets) for key, part in cast("dict[Any, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [redacted(part, secrets) for part in cast("list[Any]", value)]
    plain = value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value))
    return value if plain else redact(str(value), secrets)


def error_words(error: object, secrets: Iterable[str] = ()) -> tuple[frozenset[str], str]:
    """The codes (code and type, lower case) and the message, redacted, of an error in whatever shape it comes."""
    codes, message = frozenset[str](), "" if error is None else str(error)
    if isinstance(error, Mapping):
        parts = cast("Mapping[str, Any]", error)
        codes = frozenset(str(parts[key]).lower() for key in ("code", "type") if parts.get(key))
        message = str(parts.get("message") or "")
    # Cut last: of a key that is cut, the half would not be known.
    return codes, redact(message, secrets)[:_SHOWN]


def is_quota(codes: Iterable[str]) -> bool:
    """Whether the account has run out of money or credit."""
    return not QUOTA_CODES.isdisjoint(codes)


def is_file_storage_full(codes: Iterable[str], message: str) -> bool:
    """Whether the account holds as many files, or bytes of them, as it may; a single file above its limit is not that.

    Azure has a code for it; OpenAI says it in words alone, under the code of any wrong request.
    """
    return FILE_STORAGE_CODE in codes or "file storage quota" in message.lower()


def is_file_pending(message: str) -> bool:
    """Whether an uploaded file is not processed yet, which Azure says of a batch that is created too early.

    A file that could not or cannot be processed is another thing, and stays so.
    """
    return "file" in message.lower() and _PENDING.search(message) is not None


def is_enqueue_limit(codes: Iterable[str], message: str) -> bool:
    """Whether too many prompt tokens are enqueued already."""
    return not ENQUEUE_CODES.isdisjoint(codes) or "enqueued token limit" in message.lower()


def row_failure(
    error: object,
    *,
    status: int | None,
    record: object,
    retry_after_sec: float | None = None,
    usage: RunUsage | None = None,
) -> Rejection:
    """The rejection of one row; `status` is its HTTP status where it has one, `record` the whole line."""
    codes, message = error_words(error)
    said = message or ", ".join(sorted(codes)) or "no reason given"
    error_class, counts, curable = ITEM_ERROR, False, True
    if unanswered := next((name for code, name in _UNANSWERED.items() if code in codes), None):
        error_class = unanswered
    elif is_quota(codes):
        error_class = QUOTA
    elif is_enqueue_limit(codes, message):
        error_class = ENQUEUE_LIMIT
    else:
        counts, curable = True, _is_curable(status, codes)
    return Rejection(
        error_class,
        said if status is None or 200 <= status < 300 else f"HTTP {status}: {said}",
        curable=curable,
        counts=counts,
        raw_error=redacted(record),
        usage=usage,
        retry_after_sec=retry_after_sec,
    )


def batch_failure(status: str, errors: object) -> BatchFailure:
    """Why a batch of this final status came to nothing, from the `errors` of its record."""
    entries = _entries(errors)
    words = [error_words(entry) for entry in entries]
    codes = frozenset[str]().union(*(codes for codes, _ in words))
    message = "; ".join(text or ", ".join(sorted(found)) for found, text in words[:3])[:_SHOWN]
    message = message or f"the batch ended as {status}"
    if is_quota(codes):
        return BatchFailure(QUOTA, message)
    if is_enqueue_limit(codes, message):
        return BatchFailure(ENQUEUE_LIMIT, message, enqueued_token_limit=_named_limit(message))
    if status == "failed" and codes - _PASSING_CODES:
        return BatchFailure(VALIDATION, message, curable=False, lines=_pinned(entries))
    return BatchFailure(f"batch_terminal_{status}", message)


def _is_curable(status: int | None, codes: frozenset[str]) -> bool:
    if status and 400 <= status < 500:
        return status in _TRY_AGAIN_STATUSES
    # Without a status the provider's own word for "your request is wrong" has to do.
    return not any(code.startswith("invalid_") or code == "context_length_exceeded" for code in codes)


def _entries(errors: object) -> list[Mapping[str, Any]]:
    found = cast("Mapping[str, Any]", errors).get("data", errors) if isinstance(errors, Mapping) else errors
    listed = cast("list[Any]", found) if isinstance(found, list) else [found] if found else []
    return [cast("Mapping[str, Any]", entry) for entry in listed if isinstance(entry, Mapping)]


def _pinned(entries: Iterable[Mapping[str, Any]]) -> tuple[tuple[int, str], ...]:
    return tuple(
        (entry["line"], error_words(entry)[1])
        for entry in entries
        if isinstance(entry.get("line"), int) and not isinstance(entry["line"], bool)
    )


def _named_limit(message: str) -> int | None:
    """The limit that a refusal names; None where there is none, or one that could be read in two ways."""
    found = _LIMIT.search(message)
    if found is None:
        return None
    number, gap, word = re.sub("[,_]", "", found[1]), found[2], found[3].lower()
    unit = _UNITS.get(word)
    if unit is None and ((word and not gap) or "." in number):
        return None
    return int(Decimal(number) * (unit or 1))
