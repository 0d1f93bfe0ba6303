"""What a state store must be able to do: set-based, on core values, each method one transaction.

Law: a method that takes a lease changes nothing when the lease's fence is not the newest (LeaseLostError). A method
that moves rows moves all that it names or none.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime

from batchor_engine.core.packing import spans
from batchor_engine.core.records import (
    AwayBatch,
    Backoff,
    BatchRange,
    BatchRecord,
    IngestPosition,
    ItemRow,
    Lease,
    NewBatch,
    NewItem,
    NewPart,
    NewRun,
    NewSegment,
    Observation,
    PartRecord,
    RunRecord,
    ScopeRecord,
    SegmentRecord,
    Settlement,
)
from batchor_engine.models import JSONValue, RunTally
from batchor_engine.states import BatchState, RunControlState


class StateStore(ABC):
    """The control plane of runs. Safe to use from several threads and processes."""

    @abstractmethod
    def now(self) -> datetime:
        """The store's clock, aware UTC."""

    @property
    @abstractmethod
    def location(self) -> str:
        """Where the state is, for messages; holds no credential."""

    @property
    @abstractmethod
    def default_artifact_root(self) -> str | None:
        """Directory in which a run's files go when the user names none; None asks for a private temporary one."""

    @property
    def folder(self) -> str | None:
        """The folder that the state is in and may be moved with; None where it is in no folder of its own."""
        return None

    # --- runs

    @abstractmethod
    def create_run(self, new: NewRun) -> bool:
        """Store a run that is not there, or that has no rows yet; False when a run of this id has rows."""

    @abstractmethod
    def discard_empty_run(self, run_id: str, lease: Lease) -> bool:
        """Forget a run that has no rows; False when it has some."""

    @abstractmethod
    def run(self, run_id: str) -> RunRecord | None:
        """The run, or None."""

    @abstractmethod
    def runs(
        self,
        *,
        labels: Mapping[str, str] | None = None,
        before: int | None = None,
        limit: int = 100,
        unfinished: bool = False,
        created_after: float | None = None,
    ) -> list[RunRecord]:
        """Runs that carry all these labels, newest first, older than the run with primary key `before`.

        With `unfinished` only those that are not over; with `created_after` only those made then or later.
        """

    @abstractmethod
    def fingerprint(
        self, labels: Mapping[str, str], created_before: float | None, *, finished: bool = False
    ) -> tuple[int, int]:
        """How many runs carry all these labels and are older, and the sum of their revisions."""

    @abstractmethod
    def labels(self, run_pks: Collection[int]) -> dict[int, dict[str, str]]:
        """Labels by run."""

    @abstractmethod
    def set_control(self, run_id: str, wish: RunControlState, *, reason: str | None, drain: bool = False) -> RunRecord:
        """Record a wish unless the run is over or cancelled; needs no lease. Returns the run as it now is."""

    @abstractmethod
    def set_backoff(self, run_pk: int, lease: Lease, backoff: Backoff) -> None:
        """Record why and until when submission waits."""

    @abstractmethod
    def mark_tidied(self, run_pk: int, lease: Lease) -> None:
        """The run is over and its orphans are swept; nobody has to do it again."""

    # --- leases

    @abstractmethod
    def acquire(self, resource: str, owner: str, ttl_sec: float, *, dead_owner: str | None = None) -> Lease | str:
        """Take a free or expired lease, or that of `dead_owner`; else the name of the owner who has it."""

    @abstractmethod
    def renew(self, lease: Lease, ttl_sec: float) -> Lease:
        """Prolong a lease; LeaseLostError when another took over."""

    @abstractmethod
    def release(self, lease: Lease) -> None:
        """Give a lease back; nothing happens when it is already another's."""

    # --- ingest

    @abstractmethod
    def append_part(
        self,
        run_pk: int,
        lease: Lease,
        *,
        part: NewPart | None,
        items: Sequence[NewItem],
        position: IngestPosition,
        failures: NewSegment | None,
    ) -> None:
        """Store rows, their part and the checkpoint after them; DuplicateItemError names an id that is there."""

    # --- planning and submission

    @abstractmethod
    def reopen_due(self, run_pk: int, lease: Lease) -> int:
        """Move failed rows whose delay has passed back to pending; how many."""

    @abstractmethod
    def next_retry_at(self, run_pk: int) -> float | None:
        """When the first failed row's delay passes; None when no row waits."""

    @abstractmethod
    def fresh_parts(self, run_pk: int, *, limit: int) -> list[PartRecord]:
        """Parts with lines never claimed, in order."""

    @abstractmethod
    def reopened_items(self, run_pk: int, *, limit: int) -> list[ItemRow]:
        """Pending rows that were in a batch before, in order."""

    @abstractmethod
    def items_between(self, run_pk: int, first: int, last: int, *, batch: int | None = None) -> list[ItemRow]:
        """Rows by index, both ends included, in order; of one batch only where named."""

    @abstractmethod
    def parts(self, run_pk: int, pks: Collection[int] | None = None) -> list[PartRecord]:
        """Parts by primary key, or all of a run."""

    @abstractmethod
    def claim(self, run_pk: int, lease: Lease, batch: NewBatch) -> BatchRecord | None:
        """Reserve budget, queue the rows and record the batch as planned; None when budget or control forbid it."""

    @abstractmethod
    def move_batch(self, batch: BatchRecord, lease: Lease, target: BatchState, **facts: JSONValue) -> bool:
        """Move a batch that has not reached the provider, with facts; False when it was not where it seemed."""

    @abstractmethod
    def note_batch(self, batch: BatchRecord, lease: Lease, **facts: JSONValue) -> None:
        """Record facts about a batch without moving it."""

    @abstractmethod
    def confirm_submitted(self, batch: BatchRecord, lease: Lease, *, provider_batch_id: str, status: str) -> bool:
        """The provider has the batch: it and its rows are submitted; False when it was settled otherwise."""

    @abstractmethod
    def release_batch(self, batch: BatchRecord, lease: Lease, target: BatchState, *, backoff: Backoff | None) -> bool:
        """The provider does not have the batch: its rows are pending again and its budget is given back."""

    # --- polling and collection

    @abstractmethod
    def batches(
        self,
        *,
        run_pk: int | None = None,
        run_pks: Collection[int] | None = None,
        states: Collection[BatchState] | None = None,
        intents: Collection[str] | None = None,
    ) -> list[BatchRecord]:
        """Batches, oldest first; of one or some runs, in some states, or of some intents only, where given."""

    def away(self, run_pk: int | None = None) -> list[AwayBatch]:
        """Submitted batches, oldest first; of one run where given. Every poll reads them all, so brevity pays."""
        found = self.batches(run_pk=run_pk, states={BatchState.SUBMITTED})
        return [AwayBatch(*(getattr(batch, name) for name in AwayBatch._fields)) for batch in found]

    @abstractmethod
    def ranges(self, batch_pk: int) -> list[BatchRange]:
        """The ranges of a batch, in the order of its lines."""

    @abstractmethod
    def observe(self, seen: Sequence[Observation]) -> list[int]:
        """Record what a poll saw, without a lease and never backwards; primary keys of batches that ended now."""

    @abstractmethod
    def settle(self, run_pk: int, lease: Lease, settlement: Settlement) -> None:
        """Apply a collection: segment, rows, counters, batch."""

    @abstractmethod
    def fail_open_items(self, run_pk: int, lease: Lease, indexes: Sequence[int], segment: NewSegment) -> int:
        """Fail rows that are not with the provider (cancelled, or never sendable); how many."""

    @abstractmethod
    def retry_failed(self, run_pk: int, lease: Lease) -> int:
        """Permanently failed rows that were once in a batch are pending with a new allowance; how many."""

    @abstractmethod
    def open_items(self, run_pk: int, *, after_index: int, limit: int) -> list[ItemRow]:
        """Rows that are not terminal and not with the provider, in order."""

    @abstractmethod
    def finish_ingest(self, run_pk: int, lease: Lease) -> None:
        """Give up the rest of the source."""

    @abstractmethod
    def waiting_runs(self) -> list[RunRecord]:
        """Runs that could send rows now and were refused budget when they last asked, however long ago."""

    @abstractmethod
    def keep_places(self, run_pks: Collection[int]) -> None:
        """These runs wait for budget and are looked after: they keep their place in the queue."""

    # --- reads

    @abstractmethod
    def segments(self, run_pk: int, *, after_sequence: int | None = None) -> list[SegmentRecord]:
        """Segments in sequence order; those that end after `after_sequence` only, where given."""

    @abstractmethod
    def superseded_indexes(self, run_pk: int, segment: SegmentRecord) -> set[int]:
        """Rows of a segment whose result was replaced by a later one."""

    @abstractmethod
    def tallies(self, run_pk: int) -> dict[int, RunTally]:
        """What the rows of each group come to, by the group's number; rows without a group are in group 0."""

    @abstractmethod
    def scope(self, name: str) -> ScopeRecord:
        """Budget in use and the learned limit of a scope."""

    @abstractmethod
    def learn(self, scope: ScopeRecord, *, known: ScopeRecord | None = None) -> bool:
        """Record the limit that the provider named, and how far our counting was off.

        False, and nothing is changed, where another worker has learned something since `known` was read.
        """

    # --- files

    @abstractmethod
    def record_export(self, run_pk: int, lease: Lease, root: str) -> None:
        """A whole export of the run's files is at `root`, an absolute path, as of now."""

    @abstractmethod
    def record_prune(self, run_pk: int, lease: Lease, *, raw: bool) -> tuple[int, int]:
        """The request files are gone, and with `raw` the raw files too; how many items and batches pointed to them."""

    @abstractmethod
    def delete_run(self, run_id: str, lease: Lease) -> bool:
        """Forget a run and all its rows."""

    # --- housekeeping; a store that has nothing to count wrong leaves these as they are

    def begin_delete(self, run_id: str, lease: Lease) -> None:  # noqa: B027 - the mark only makes a crash visible
        """Mark a run, finished ones too, as being deleted: it is cancelled for good, with the reason "deleting"."""

    def recount(self, run_pk: int, lease: Lease) -> bool:
        """Set a run's counters to what its rows say; True if one was wrong."""
        del run_pk, lease
        return False

    def scopes(self) -> list[ScopeRecord]:
        """Every scope that ever held budget, by name."""
        return []

    def recount_scope(self, name: str) -> bool:
        """Set what a scope has reserved to what its live batches hold; True if it was wrong."""
        del name
        return False

    def held_leases(self) -> list[Lease]:
        """Leases that were taken and not given back, expired ones too."""
        return []

    def close(self) -> None:  # noqa: B027 - a store without connections has nothing to do here
        """Let go of connections."""


def iter_items(store: StateStore, run_pk: int, ranges: Sequence[BatchRange], batch: int) -> Iterator[ItemRow]:
    """Rows of a batch in the order of its lines, one span at a time."""
    for first, last in spans(ranges):
        yield from store.items_between(run_pk, first, last, batch=batch)
