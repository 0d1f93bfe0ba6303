"""The values that cross the seam between the runtime and a state store.

Law: times are epoch seconds (UTC), sizes are bytes, indexes are 0-based positions of items in their run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from batchor_engine.core.segment import SegmentTotals
from batchor_engine.models import JSONObject, JSONValue
from batchor_engine.states import BATCH_LIVE, BatchState, ItemStatus, RunControlState, RunLifecycleStatus, run_status

# The control reason of a run whose deletion has begun and not ended.
DELETING = "deleting"
# In the run's stored config, and thus in every copy of the database; it has no part in comparing configs.
SIGNATURE = "signature"

RunLife = tuple[float, int, str]


@dataclass(frozen=True)
class IngestPosition:
    """How far a source has been read; `finished` also holds when a cancel gave up the rest."""

    source_kind: str
    source_ref: str
    source_fingerprint: str
    checkpoint: JSONValue
    next_index: int = 0
    finished: bool = False


@dataclass(frozen=True)
class Backoff:
    """Why and until when a run holds back submission; `consecutive` restarts after progress only."""

    consecutive: int = 0
    total: int = 0
    until: float = 0.0
    error_class: str | None = None


@dataclass(frozen=True)
class RunRecord:
    """A run as stored; `counts` has every status, so that a summary never scans items.

    `live_batches` are those that keep the run going; `unsent_batches` of them have no word from the provider yet.
    """

    pk: int
    run_id: str
    config: JSONObject
    artifact_root: str
    control: RunControlState
    control_reason: str | None
    drain: bool
    ingest: IngestPosition
    counts: dict[ItemStatus, int]
    live_batches: int
    last_sequence: int
    backoff: Backoff
    revision: int
    created_at: float
    superseded: int = 0
    tidied: bool = False
    exported_at: float | None = None
    export_root: str | None = None
    unsent_batches: int = 0

    @property
    def signature(self) -> str | None:
        """What its folder is signed with, new with every run that takes no other's place; None for a very old run."""
        found = self.config.get(SIGNATURE)
        return found if isinstance(found, str) else None

    @property
    def life(self) -> RunLife:
        """Which of the runs that had this id it is, later ones last: a store may give a number to another again."""
        return self.created_at, self.pk, self.signature or ""

    @property
    def gives_way(self) -> bool:
        """Whether a start may put a new run in its place: it has no rows, and nobody has paused or cancelled it."""
        return self.is_empty and self.control is RunControlState.RUNNING

    @property
    def is_empty(self) -> bool:
        """Whether it has no rows and may still get some; it protects nothing yet."""
        return not self.total_items and not self.ingest.finished

    @property
    def total_items(self) -> int:
        return sum(self.counts.values())

    @property
    def open_items(self) -> int:
        done = self.counts[ItemStatus.COMPLETED] + self.counts[ItemStatus.FAILED_PERMANENT]
        return self.total_items - done

    @property
    def status(self) -> RunLifecycleStatus:
        return run_status(
            ingest_finished=self.ingest.finished,
            open_items=self.open_items,
            live_batches=self.live_batches,
            failed_items=self.counts[ItemStatus.FAILED_PERMANENT],
        )

    @property
    def is_finished(self) -> bool:
        return self.status is not RunLifecycleStatus.RUNNING


@dataclass(frozen=True)
class NewRun:
    """What is stored when a run begins: its config and the position before its first row, in one transaction."""

    run_id: str
    config: JSONObject
    artifact_root: str
    ingest: IngestPosition
    labels: dict[str, str] = field(default_factory=dict[str, str])


class NewItem(NamedTuple):
    """A row at ingest: where its request line stands in the part, or `failed` when it can never be sent."""

    item_index: int
    item_id: str
    offset: int
    length: int
    tokens: int
    group: int
    failed: bool


@dataclass(frozen=True)
class NewPart:
    """A sealed request file and the file of ids and metadata beside it."""

    key: str
    sidecar_key: str
    first_index: int
    last_index: int
    items: int
    bytes: int
    tokens: int


@dataclass(frozen=True)
class PartRecord:
    """A part and what is left in it that was never claimed; its files are gone for good once `pruned_at` is set."""

    pk: int
    key: str
    sidecar_key: str
    first_index: int
    last_index: int
    bytes: int
    next_index: int
    next_offset: int
    left_items: int
    left_tokens: int
    pruned_at: float | None = None

    @property
    def left_bytes(self) -> int:
        return self.bytes - self.next_offset


class ItemRow(NamedTuple):
    """An item as stored, as far as planning and collection need it."""

    item_index: int
    item_id: str
    status: ItemStatus
    attempts: int
    uncounted: int
    granted: int
    part: int | None
    offset: int
    length: int
    tokens: int
    group: int


class BatchRange(NamedTuple):
    """Consecutive lines of one part at one attempt; `fresh` when they were never claimed before."""

    part: int
    first_index: int
    last_index: int
    offset: int
    length: int
    items: int
    tokens: int
    attempt: int
    fresh: bool

    def joins(self, other: BatchRange) -> bool:
        """Whether `other` is the very next stretch of the same kind, so that both are one range."""
        same = (self.part, self.attempt, self.fresh) == (other.part, other.attempt, other.fresh)
        return same and self.offset + self.length == other.offset and self.last_index + 1 == other.first_index

    def join(self, other: BatchRange) -> BatchRange:
        return self._replace(
            last_index=other.last_index,
            length=self.length + other.length,
            items=self.items + other.items,
            tokens=self.tokens + other.tokens,
        )


@dataclass(frozen=True)
class NewBatch:
    """A batch to claim: its rows, its intent id, and the budget it takes."""

    intent_id: str
    account: str
    scope: str
    ranges: tuple[BatchRange, ...]
    reserve_until: float
    budget: int | None

    @property
    def items(self) -> int:
        return sum(part.items for part in self.ranges)

    @property
    def bytes(self) -> int:
        return sum(part.length for part in self.ranges)

    @property
    def tokens(self) -> int:
        return sum(part.tokens for part in self.ranges)


@dataclass(frozen=True)
class BatchRecord:
    """A batch as stored; `create_at` is when a create call was last begun, None when none can be on its way.

    `reserves` tells whether its tokens still count against the scope's budget.
    """

    pk: int
    run_pk: int
    run_id: str
    state: BatchState
    intent_id: str
    account: str
    scope: str
    items: int
    bytes: int
    tokens: int
    reserves: bool
    provider_batch_id: str | None = None
    input_file_id: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    remote_status: str | None = None
    remote_completed: int = 0
    remote_failed: int = 0
    errors: JSONValue = None
    created_at: float = 0.0
    create_at: float | None = None
    submitted_at: float | None = None
    ended_at: float | None = None
    polled_at: float | None = None
    cancel_asked_at: float | None = None
    collect_failures: int = 0
    collect_after: float = 0.0
    output_key: str | None = None
    error_key: str | None = None

    @property
    def is_live(self) -> bool:
        return self.state in BATCH_LIVE


class AwayBatch(NamedTuple):
    """What a poll needs of a submitted batch; the fields are those of BatchRecord."""

    pk: int
    run_pk: int
    run_id: str
    intent_id: str
    account: str
    scope: str
    provider_batch_id: str | None
    remote_status: str | None
    remote_completed: int
    remote_failed: int
    created_at: float


class Observation(NamedTuple):
    """What a poll saw of one batch; `ended` once the provider has said its last word."""

    batch: int
    remote_status: str
    ended: bool
    completed: int = 0
    failed: int = 0
    output_file_id: str | None = None
    error_file_id: str | None = None
    input_file_id: str | None = None
    errors: JSONValue = None


@dataclass(frozen=True)
class ItemMove:
    """What becomes of one row that did not simply complete."""

    item_index: int
    to: ItemStatus
    attempts: int
    uncounted: int
    retry_at: float | None = None


@dataclass(frozen=True)
class NewSegment:
    """A written result file and what it adds up to."""

    key: str
    bytes: int
    totals: SegmentTotals


@dataclass(frozen=True)
class SegmentRecord:
    """A stored segment; it owns the terminal sequences first_sequence … first_sequence + final_rows - 1."""

    pk: int
    batch: int | None
    key: str
    first_sequence: int
    superseded: int
    totals: SegmentTotals

    @property
    def last_sequence(self) -> int:
        return self.first_sequence + self.totals.final_rows - 1


@dataclass(frozen=True)
class Settlement:
    """Everything one collection changes, applied in one transaction or not at all."""

    batch: int
    target: BatchState
    segment: NewSegment | None
    completed: int
    moves: tuple[ItemMove, ...]
    backoff: Backoff | None
    output_key: str | None = None
    error_key: str | None = None
    pause_reason: str | None = None


@dataclass(frozen=True)
class Lease:
    """The right to advance a resource until `expires_at`; every write names the fence."""

    resource: str
    owner: str
    fence: int
    expires_at: float


@dataclass(frozen=True)
class ScopeRecord:
    """Tokens enqueued by all runs of one provider, account and model, and the limit the provider taught us.

    `scale` (0 to 1) is how far the limits are lowered because our token counts turned out too low. `lapsed` is what of
    `reserved` has run out and is given back by the next claim.
    """

    name: str
    reserved: int
    learned_limit: int | None
    scale: float = 1.0
    lapsed: int = 0

    @property
    def in_use(self) -> int:
        """The tokens that a claim made now would find taken."""
        return self.reserved - self.lapsed
