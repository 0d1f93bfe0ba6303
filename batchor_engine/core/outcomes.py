"""What one sent request came to, as a value, before anything is decided about it.

Law: an outcome says what the provider said. Whether it counts, retries or ends the row is settle()'s to decide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from batchor_engine.models import JSONValue, RunUsage


class LineRef(NamedTuple):
    """Where a line stands in a kept raw file: which file ("output" or "error"), byte offset, byte length."""

    file: str
    offset: int
    length: int


class Answer(NamedTuple):
    """The provider answered with usable text (canonical JSON text for endpoints that return data)."""

    text: str
    usage: RunUsage | None = None
    ref: LineRef | None = None


@dataclass(frozen=True)
class Rejection:
    """The provider gave this row a failure, or an answer that is none (refusal, incomplete, empty).

    `curable` is False where no retry can help; `counts` is False where the row was never really tried.
    `retry_after_sec` is the provider's own wish.
    """

    error_class: str
    message: str
    curable: bool
    counts: bool = True
    raw_error: JSONValue | None = None
    text: str | None = None
    usage: RunUsage | None = None
    ref: LineRef | None = None
    retry_after_sec: float | None = None


@dataclass(frozen=True)
class Missing:
    """The row was sent and no line of any file answers it."""


Outcome: TypeAlias = Answer | Rejection | Missing


@dataclass(frozen=True)
class FileAnomalies:
    """Lines of a batch's files that belong to no row or to one row twice; all are counted and reported."""

    unreadable: int = 0
    unknown_ids: int = 0
    duplicates: int = 0


@dataclass(frozen=True)
class BatchFailure:
    """Why a batch as a whole failed, expired or was cancelled, in the provider's words.

    `curable` is False where the same requests would fail again. `lines` pins rejected lines of the input file (1-based,
    with the reason). `enqueued_token_limit` is the limit the provider named, where it did.
    """

    error_class: str
    message: str
    curable: bool = True
    lines: tuple[tuple[int, str], ...] = ()
    enqueued_token_limit: int | None = None
