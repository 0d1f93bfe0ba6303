"""The frozen values a user hands in and gets back: items, prompts, policies, results, summaries, pages.

Law: nothing here changes after it is made, and nothing here does anything.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import Any, Generic, TypeAlias, TypeVar

from pydantic import BaseModel

from batchor_engine.states import ItemStatus, RunControlState, RunLifecycleStatus

JSONScalar: TypeAlias = str | int | float | bool | None
JSONValue: TypeAlias = "JSONScalar | list[JSONValue] | dict[str, JSONValue]"
JSONObject: TypeAlias = dict[str, JSONValue]

PayloadT = TypeVar("PayloadT")
ModelT = TypeVar("ModelT", bound=BaseModel)

LINEAGE_KEY = "batchor_lineage"
GROUP_KEY = "batchor_group"


def _no_metadata() -> JSONObject:
    return {}


@dataclass(frozen=True)
class BatchItem(Generic[PayloadT]):
    """One row of work; `item_id` is unique in its run and comes back on the result, `metadata` too."""

    item_id: str
    payload: PayloadT
    metadata: JSONObject = field(default_factory=_no_metadata)


@dataclass(frozen=True)
class PromptParts:
    """What is asked of the model for one item.

    `system_prompt` goes to `instructions` (Responses) or a leading system message (Chat Completions). `messages`
    replaces `prompt` by a full conversation in the endpoint's own form; `request_options` are merged into the body.
    """

    prompt: str
    system_prompt: str | None = None
    messages: list[JSONObject] | None = None
    request_options: JSONObject = field(default_factory=_no_metadata)

    def __post_init__(self) -> None:
        values = _PROMPT_FIELDS(self)
        if not all(map(isinstance, values, _PROMPT_KINDS.values())):
            wrong = zip(_PROMPT_KINDS.items(), values, strict=True)
            name, value = next((name, value) for (name, kind), value in wrong if not isinstance(value, kind))
            raise TypeError(f"PromptParts.{name} must not be of type {type(value).__name__}")


_PROMPT_KINDS: dict[str, type | tuple[type, ...]] = {
    "prompt": str,
    "system_prompt": (str, type(None)),
    "messages": (list, type(None)),
    "request_options": dict,
}
_PROMPT_FIELDS = attrgetter(*_PROMPT_KINDS)

PromptBuilder: TypeAlias = Callable[[BatchItem[Any]], PromptParts | str]


def _require_number(policy: object, name: str, kind: Any) -> None:
    """TypeError for a value that would only fail, or be ignored, when it is used."""
    value: object = getattr(policy, name)
    if isinstance(value, bool) or not isinstance(value, kind):
        raise TypeError(
            f"{type(policy).__name__}.{name} must be a {'whole ' if kind is int else ''}number, not {value!r}"
        )


@dataclass(frozen=True)
class ChunkPolicy:
    """Limits of one request file: lines, bytes (newlines included), and the ratio used without a tokenizer."""

    max_requests: int = 50_000
    max_file_bytes: int = 150 * 1024 * 1024
    chars_per_token: int = 4

    def __post_init__(self) -> None:
        for name in ("max_requests", "max_file_bytes", "chars_per_token"):
            _require_number(self, name, int)
            if getattr(self, name) <= 0:
                raise ValueError(f"ChunkPolicy.{name} must be greater than 0, not {getattr(self, name)}")


@dataclass(frozen=True)
class RetryPolicy:
    """How often an item may be tried in all, and how long a failure waits (seconds, doubling up to the maximum)."""

    max_attempts: int = 3
    base_backoff_sec: float = 1.0
    max_backoff_sec: float = 300.0

    def __post_init__(self) -> None:
        _require_number(self, "max_attempts", int)
        if self.max_attempts <= 0:
            raise ValueError(f"RetryPolicy.max_attempts must be greater than 0, not {self.max_attempts}")
        for name in ("base_backoff_sec", "max_backoff_sec"):
            _require_number(self, name, int | float)
            if getattr(self, name) < 0:
                raise ValueError(f"RetryPolicy.{name} must not be negative, but is {getattr(self, name)}")


@dataclass(frozen=True)
class ArtifactPolicy:
    """Whether the provider's raw output and error files are kept after collection. Request files always are."""

    persist_raw_output_artifacts: bool = True

    def to_payload(self) -> JSONObject:
        return {"persist_raw_output_artifacts": self.persist_raw_output_artifacts}

    @classmethod
    def from_payload(cls, payload: Mapping[str, JSONValue]) -> ArtifactPolicy:
        """Read a stored policy; a missing key takes its default, a value that is not a bool is a TypeError."""
        keep = payload.get("persist_raw_output_artifacts", True)
        if not isinstance(keep, bool):
            raise TypeError(f"persist_raw_output_artifacts must be true or false, not {keep!r}")
        return cls(persist_raw_output_artifacts=keep)


@dataclass(frozen=True)
class ItemFailure:
    """Why an item failed; `retryable` says whether another attempt is allowed, `raw_error` is the provider's word."""

    error_class: str
    message: str
    retryable: bool
    raw_error: JSONValue | None = None


@dataclass(frozen=True)
class TextItemResult:
    """The final outcome of one item of a text job."""

    item_id: str
    status: ItemStatus
    attempt_count: int
    output_text: str | None = None
    raw_response: JSONObject | None = None
    error: ItemFailure | None = None
    metadata: JSONObject = field(default_factory=_no_metadata)


@dataclass(frozen=True)
class StructuredItemResult(Generic[ModelT]):
    """The final outcome of one item of a structured job; `output_text` is the answer before parsing."""

    item_id: str
    status: ItemStatus
    attempt_count: int
    output: ModelT | None = None
    output_text: str | None = None
    raw_response: JSONObject | None = None
    error: ItemFailure | None = None
    metadata: JSONObject = field(default_factory=_no_metadata)


@dataclass(frozen=True)
class EmbeddingItemResult:
    """The final outcome of one item of an embeddings job; `embedding` holds 32-bit floats, one vector an item.

    It is a sequence of floats and a buffer: `list(it)` and `numpy.asarray(it)` both work. `output_text` is always None.
    """

    item_id: str
    status: ItemStatus
    attempt_count: int
    embedding: array[float] | None = None
    output_text: str | None = None
    raw_response: JSONObject | None = None
    error: ItemFailure | None = None
    metadata: JSONObject = field(default_factory=_no_metadata)


class Moderation(BaseModel):
    """The verdict of a moderations job on one item, by the provider's names of categories.

    A category that the model does not judge is None.
    """

    flagged: bool
    categories: dict[str, bool | None]
    category_scores: dict[str, float | None]


BatchResultItem: TypeAlias = TextItemResult | StructuredItemResult[Any] | EmbeddingItemResult

# What the rows of a run are read as: a model, a vector each, or (None) text.
Form: TypeAlias = type[BaseModel] | type[EmbeddingItemResult] | None


@dataclass(frozen=True)
class RunSummary:
    """Counts of a run; the same cost at ten items and at ten million."""

    run_id: str
    status: RunLifecycleStatus
    control_state: RunControlState
    total_items: int
    completed_items: int
    failed_items: int
    status_counts: dict[ItemStatus, int]
    active_batches: int
    backoff_remaining_sec: float
    control_reason: str | None = None


@dataclass(frozen=True)
class RunSnapshot:
    """A summary with every item that is terminal so far, in item order."""

    run_id: str
    status: RunLifecycleStatus
    control_state: RunControlState
    total_items: int
    completed_items: int
    failed_items: int
    status_counts: dict[ItemStatus, int]
    active_batches: int
    backoff_remaining_sec: float
    items: list[BatchResultItem]
    control_reason: str | None = None


@dataclass(frozen=True)
class TerminalResultsPage:
    """Results in the order in which they became terminal, and the cursor to go on from."""

    run_id: str
    items: list[BatchResultItem]
    next_after_sequence: int


@dataclass(frozen=True)
class TerminalResultsExportResult:
    """Where a page of results was written (absolute path), how many lines, and the cursor to go on from."""

    run_id: str
    destination_path: str
    exported_count: int
    next_after_sequence: int


@dataclass(frozen=True)
class ArtifactExportResult:
    """What an export wrote; `exported_artifact_paths` are keys below the artifact root."""

    run_id: str
    destination_dir: str
    manifest_path: str
    results_path: str
    exported_artifact_paths: list[str]


@dataclass(frozen=True)
class ArtifactPruneResult:
    """What a prune removed, what was already gone, and how many pointers it cleared."""

    run_id: str
    removed_artifact_paths: list[str]
    missing_artifact_paths: list[str]
    cleared_item_pointers: int
    cleared_batch_pointers: int = 0


@dataclass(frozen=True)
class RunUsage:
    """Tokens billed over every collected line of a run, retried ones included."""

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: RunUsage) -> RunUsage:
        return RunUsage(
            self.input_tokens + other.input_tokens,
            self.cached_tokens + other.cached_tokens,
            self.output_tokens + other.output_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )


@dataclass(frozen=True)
class RunTally:
    """What the rows of a run, or of one group of them, have come to so far; `failed` is for good.

    `estimated_tokens` are those of the request lines as counted at ingestion, each row once.
    """

    rows: int = 0
    completed: int = 0
    failed: int = 0
    attempts: int = 0
    estimated_tokens: int = 0

    def __add__(self, other: RunTally) -> RunTally:
        return RunTally(
            self.rows + other.rows,
            self.completed + other.completed,
            self.failed + other.failed,
            self.attempts + other.attempts,
            self.estimated_tokens + other.estimated_tokens,
        )


@dataclass(frozen=True)
class BatchInfo:
    """One batch of a run as last seen at the provider; times are aware UTC."""

    batch_id: int
    state: str
    provider_batch_id: str | None
    remote_status: str | None
    items: int
    remote_completed: int
    remote_failed: int
    submitted_at: datetime | None
    ended_at: datetime | None
    tokens: int = 0


@dataclass(frozen=True)
class BudgetInfo:
    """Prompt tokens that runs of one account and model may have enqueued together; `limit` None: no limit is known."""

    scope: str
    limit: int | None
    reserved: int

    @property
    def headroom(self) -> int | None:
        """Tokens that could be enqueued now; None without a limit."""
        return None if self.limit is None else max(0, self.limit - self.reserved)


@dataclass(frozen=True)
class RunInfo:
    """One run of a store, for hosts that look after many: its labels, its summary, what is due, and a revision.

    `revision` grows with every change of the run's state, so that a host can tell "already asked for" from "new".
    `due` holds "advance" when request files can go out now, and "collect" when an ended batch waits to be read.
    While `reading_finished` is False the summary counts the rows that were read so far, and only a process that has the
    job reads the rest.
    """

    run_id: str
    labels: dict[str, str]
    created_at: datetime
    revision: int
    summary: RunSummary
    due: frozenset[str]
    batches: list[BatchInfo]
    reading_finished: bool = True

    @property
    def is_finished(self) -> bool:
        return self.summary.status is not RunLifecycleStatus.RUNNING


@dataclass(frozen=True)
class PollReport:
    """What one poll did: provider calls made, batches seen, batches that it saw end, and whether it had to stop."""

    calls: int
    seen: int
    ended: int
    complete: bool
    errors: tuple[str, ...] = ()
