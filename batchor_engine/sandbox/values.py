"""Frozen values of the sandbox: what a responder sees and says, and what is stored of files and batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

JSONObject = dict[str, Any]

LIVE_STATUSES = frozenset({"validating", "in_progress", "finalizing", "cancelling"})


@dataclass(frozen=True)
class SandboxRequest:
    """One request line as a responder sees it; `prompt` is the user's text, `system` the instructions."""

    custom_id: str
    endpoint: str
    model: str
    body: JSONObject
    prompt: str
    system: str = ""
    schema: JSONObject | None = None


@dataclass(frozen=True)
class SandboxAnswer:
    """What the model "says" to one request; unset token counts are estimated from the texts.

    `status_code` other than 200 makes it an error line; `body` replaces the whole response body.
    """

    text: str = ""
    refusal: str | None = None
    incomplete: bool = False
    status_code: int = 200
    error_code: str | None = None
    error_message: str | None = None
    input_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    body: JSONObject | None = None


Responder = Callable[[SandboxRequest], "str | JSONObject | SandboxAnswer"]


@dataclass(frozen=True)
class Usage:
    """Token counts of one answer or the sum over a batch."""

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0

    def plus(self, other: Usage) -> Usage:
        """The sum, field by field."""
        return Usage(
            self.input_tokens + other.input_tokens,
            self.cached_tokens + other.cached_tokens,
            self.output_tokens + other.output_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )

    def as_responses(self) -> JSONObject:
        """The shape of Responses bodies and of `batch.usage`."""
        return {
            "input_tokens": self.input_tokens,
            "input_tokens_details": {"cached_tokens": self.cached_tokens},
            "output_tokens": self.output_tokens,
            "output_tokens_details": {"reasoning_tokens": self.reasoning_tokens},
            "total_tokens": self.input_tokens + self.output_tokens,
        }

    def as_chat(self) -> JSONObject:
        """The shape of Chat Completions bodies."""
        return {
            "prompt_tokens": self.input_tokens,
            "completion_tokens": self.output_tokens,
            "total_tokens": self.input_tokens + self.output_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning_tokens, "audio_tokens": 0},
        }


NO_USAGE = Usage()


@dataclass(frozen=True)
class FileRecord:
    """A stored file; its bytes lie under the same id in the state directory."""

    id: str
    bytes: int
    created_at: int
    filename: str
    purpose: str
    expires_at: int | None = None
    scope: str = ""

    def public(self) -> JSONObject:
        """The File object of the API."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": self.created_at,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": None,
            "expires_at": self.expires_at,
        }


def _no_stamps() -> dict[str, int]:
    return {}


def _no_errors() -> list[JSONObject]:
    return []


@dataclass(frozen=True)
class BatchRecord:
    """A batch: the public fields, plus how far its answers are written (`answered`, `out_bytes`, `err_bytes`)."""

    id: str
    seq: int
    endpoint: str
    input_file_id: str
    metadata: Mapping[str, str] | None
    created_at: float
    expires_at: float
    out_file_id: str
    err_file_id: str
    expires: bool = True
    completion_window: str = "24h"
    output_expires_sec: int | None = None
    scope: str = ""
    organization: str = ""
    status: str = "validating"
    ending: str = "completed"
    phase_since: float = 0.0
    polls_seen: int = 0
    pushed: bool = False
    stamps: Mapping[str, int] = field(default_factory=_no_stamps)
    total: int = 0
    model: str | None = None
    enqueued_tokens: int = 0
    answered: int = 0
    completed: int = 0
    failed: int = 0
    out_lines: int = 0
    err_lines: int = 0
    out_bytes: int = 0
    err_bytes: int = 0
    usage: Usage = NO_USAGE
    errors: list[JSONObject] = field(default_factory=_no_errors)
    output_file_id: str | None = None
    error_file_id: str | None = None
    faults: tuple[JSONObject, ...] = ()

    @property
    def live(self) -> bool:
        """True until the batch has ended."""
        return self.status in LIVE_STATUSES

    def public(self) -> JSONObject:
        """The Batch object of the API."""
        names = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
        stamps = {f"{name}_at": self.stamps.get(name) for name in names}
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "model": self.model,
            "errors": {"object": "list", "data": self.errors} if self.errors else None,
            "input_file_id": self.input_file_id,
            "completion_window": self.completion_window,
            "status": self.status,
            "output_file_id": self.output_file_id,
            "error_file_id": self.error_file_id,
            "created_at": int(self.created_at),
            "expires_at": int(self.expires_at),
            **stamps,
            "request_counts": {"total": self.total, "completed": self.completed, "failed": self.failed},
            "usage": self.usage.as_responses(),
            "metadata": dict(self.metadata) if self.metadata is not None else None,
        }
