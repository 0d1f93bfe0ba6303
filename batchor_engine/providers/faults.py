"""From whatever an SDK call raises to a ProviderError that says what it means.

Law: a create whose effect is unknown is AMBIGUOUS, whatever the exception's name; and no SDK object, request or key
travels with the error.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, cast
from urllib.parse import urlsplit

from batchor_engine.errors import ProviderError, ProviderErrorKind
from batchor_engine.providers.failures import (
    error_words,
    is_enqueue_limit,
    is_file_pending,
    is_file_storage_full,
    is_quota,
    redact,
)

# Raised before the first byte of the request has left, so that nothing can have been created.
_NEVER_SENT = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol"})
# A lock held elsewhere, "too early", a timeout: passing, and said by a server that did nothing.
_PASSING = frozenset({409, 425})
_DEFECTS = (TypeError, NameError, NotImplementedError, ImportError, AssertionError)


@contextmanager
def provider_call(what: str, *, creates: bool = False, secrets: Callable[[], Iterable[str]] = tuple) -> Generator[None]:
    """Turn every failure of the block into a ProviderError; defects of the program pass as they are."""
    try:
        yield
    except ProviderError:
        raise
    except _DEFECTS:
        raise
    except Exception as error:  # noqa: BLE001 - SDKs and transports raise errors of no fixed type
        # The SDK's error holds the request with its Authorization header, so it is not chained.
        raise as_provider_error(error, what, creates=creates, secrets=secrets()) from None


def as_provider_error(
    error: Exception, what: str, *, creates: bool = False, secrets: Iterable[str] = ()
) -> ProviderError:
    """What a failed SDK call means; `what` names the call in the message."""
    status = _status_of(error)
    body = getattr(error, "body", None)
    hidden = list(secrets)
    codes, message = error_words(_inner(body), hidden)
    said = message or redact(_words_of(error), hidden)
    kind = _kind(status, codes, message or str(error), creates=creates, never_sent=_was_never_sent(error))
    how = f" (HTTP {status})" if status is not None else f" ({type(error).__name__})"
    return ProviderError(
        f"{what} failed{how}: {said}",
        kind=kind,
        status_code=status,
        code=_code_of(error, body),
        retry_after_sec=_retry_after(error),
    )


def _words_of(error: Exception) -> str:
    """An exception's words; "Connection error." does not say whereto or why, which its request and cause know."""
    words = str(error).rstrip(".") or type(error).__name__
    url = getattr(getattr(error, "request", None), "url", None)
    host, port = getattr(url, "host", None), getattr(url, "port", None)
    where = f" to {host}{f':{port}' if port else ''}" if host else ""
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    why = f" ({cause})" if cause is not error and str(cause) and str(cause) not in words else ""
    return f"{words}{where}{why}"


def about_place(error: ProviderError, base_url: str) -> ProviderError:
    """The failure of a call that names no id: NOT_FOUND is then the URL's fault, and the message names it."""
    if error.kind is not ProviderErrorKind.NOT_FOUND:
        return error
    parts = urlsplit(base_url)
    # Without the user, the password and the query, which may be secrets.
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return ProviderError(
        f"{error.message.rstrip('.')}. There is no such API at {shown}: check base_url (or OPENAI_BASE_URL), which for "
        "most servers ends in /v1",
        kind=error.kind,
        status_code=error.status_code,
        code=error.code,
        retry_after_sec=error.retry_after_sec,
    )


def malformed(what: str, got: object, *, creates: bool = False, secrets: Iterable[str] = ()) -> ProviderError:
    """An answer with a good status that is not what was asked for, such as a proxy's HTML page."""
    kind = ProviderErrorKind.AMBIGUOUS if creates else ProviderErrorKind.TRANSIENT
    said = redact(str(got), secrets)[:200]
    return ProviderError(f"{what} got an answer that cannot be understood: {said!r}", kind=kind)


def _kind(
    status: int | None, codes: frozenset[str], message: str, *, creates: bool, never_sent: bool
) -> ProviderErrorKind:
    unknown_effect = ProviderErrorKind.AMBIGUOUS if creates and not never_sent else ProviderErrorKind.TRANSIENT
    if status is None or status == 408 or not 400 <= status < 500:
        return unknown_effect
    if is_quota(codes) or status == 402:
        return ProviderErrorKind.QUOTA
    if is_file_storage_full(codes, message):
        return ProviderErrorKind.FILE_STORAGE
    if is_enqueue_limit(codes, message):
        return ProviderErrorKind.ENQUEUE_LIMIT
    if status == 400 and is_file_pending(message):
        return ProviderErrorKind.FILE_PENDING
    if status in _PASSING:
        return ProviderErrorKind.TRANSIENT
    return {
        401: ProviderErrorKind.AUTH,
        403: ProviderErrorKind.AUTH,
        404: ProviderErrorKind.NOT_FOUND,
        429: ProviderErrorKind.RATE_LIMITED,
    }.get(status, ProviderErrorKind.REJECTED)


def _status_of(error: Exception) -> int | None:
    status = getattr(error, "status_code", None)
    if status is None:
        status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) and not isinstance(status, bool) else None


def _inner(body: object) -> object:
    """The SDK unwraps {"error": {...}}; other clients do not."""
    return cast("Mapping[str, Any]", body).get("error", body) if isinstance(body, Mapping) else body


def _code_of(error: Exception, body: object) -> str | None:
    inner = _inner(body)
    code = cast("Mapping[str, Any]", inner).get("code") if isinstance(inner, Mapping) else None
    code = code or getattr(error, "code", None)
    return redact(str(code)) if code else None


def _was_never_sent(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if type(cause).__name__ in _NEVER_SENT or isinstance(cause, ConnectionRefusedError):
            return True
        cause = cause.__cause__
    return False


def _retry_after(error: Exception) -> float | None:
    headers = getattr(getattr(error, "response", None), "headers", None)
    if not hasattr(headers, "get"):
        return None
    wanted = cast("Mapping[str, str]", headers)
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return max(0.0, float(wanted.get(name) or "") * unit)
        except ValueError:
            continue
    return _seconds_until(wanted.get("retry-after"))


def _seconds_until(date: str | None) -> float | None:
    try:
        moment = parsedate_to_datetime(date or "")
    except ValueError:
        return None
    return max(0.0, moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() - time.time())
