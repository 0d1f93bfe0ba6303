"""One store for every database: a method is one transaction around functions that speak SQL.

Law: nothing here decides. A read takes no lock, changes nothing and sees one moment. A write locks rows in one order:
its lease, runs by key, scopes by name, batches by key, then whatever belongs to a locked run, and last a receipt of its
own. Whoever changes a run's rows or counters holds the run's row, whoever changes a reservation the scope's. So READ
COMMITTED is enough: what a write has read stays true until it commits, and no two writes wait for each other.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

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
from batchor_engine.errors import ForeignStoreError, LeaseLostError, StoreBusyError, StoreError, UnknownRunError
from batchor_engine.models import JSONValue, RunTally
from batchor_engine.ports.state import StateStore
from batchor_engine.states import BatchState, RunControlState
from batchor_engine.storage import batch_writes, dialect, leases, reads, repairs, run_writes, scopes
from batchor_engine.storage.dialect import Trouble
from batchor_engine.storage.locks import lock_runs

T = TypeVar("T")


class SqlStateStore(StateStore):
    """A state store on SQLAlchemy; subclasses say how to open a connection."""

    def __init__(self, now: Callable[[], datetime] | None) -> None:
        self._now = now or (lambda: datetime.now(UTC))

    @abstractmethod
    def _writing(self, act: Callable[[Connection], T]) -> T:
        """Run `act` in a write transaction that commits at the end; creates what is missing.

        A transaction that was rolled back may be run again, so `act` does nothing but speak to its connection.
        """

    @abstractmethod
    def _reading(self, act: Callable[[Connection], T], nothing: T) -> T:
        """Run `act` in a read transaction; `nothing` where there is no database yet."""

    def _write(self, act: Callable[[Connection], T], lease: Lease | None = None, run_pk: int | None = None) -> T:
        """Do `act` under a lease and the lock of the run that it changes; LeaseLostError where either is gone."""

        def under_locks(connection: Connection) -> T:
            if lease is not None:
                leases.check(connection, lease)
                if run_pk is not None and not lock_runs(connection, [run_pk]):
                    raise LeaseLostError(lease.resource)
            return act(connection)

        with self._told_clearly():
            return self._writing(under_locks)

    def _read(self, act: Callable[[Connection], T], nothing: T) -> T:
        with self._told_clearly():
            return self._reading(act, nothing)

    @contextmanager
    def _told_clearly(self) -> Generator[None]:
        try:
            yield
        except DBAPIError as error:
            clear = self._clear(error)
            if clear is None:
                raise
            raise clear from None
        except UnicodeDecodeError:
            # The driver's, of bytes that it takes for text: of a name in the schema, even in its own message of it.
            raise self._damaged() from None
        except PoolTimeoutError:
            raise StoreBusyError(f"Every connection to {self.location} is in use: allow more of them.") from None

    def _clear(self, error: DBAPIError) -> StoreError | None:
        """The error in words that quote no row; None where the driver's own do not either and say more."""
        match dialect.trouble_of(error):
            case Trouble.BUSY | Trouble.CONFLICT:
                return StoreBusyError(f"{self.location} stayed locked by another process: try again.")
            case Trouble.FOREIGN:
                return ForeignStoreError(
                    f"{self.location} is not a database; it was left as it is. Name another file for the store, "
                    "or restore a backup where it was one (docs/storage.md)."
                )
            case Trouble.DAMAGED:
                return self._damaged()
            case Trouble.LOST:
                return StoreError(f"{self.location} cannot be reached: {dialect.said_by(error)}")
            case Trouble.DEFECT if not dialect.quotes_rows(error):
                return None
            case _:
                return StoreError(f"{self.location} cannot be used: {dialect.said_by(error)}")

    def _damaged(self) -> StoreError:
        # Without the driver's words: they may quote what it could not read.
        return StoreError(
            f"{self.location} is damaged; nothing was changed. Put it aside and restore a backup (docs/storage.md)."
        )

    def now(self) -> datetime:
        return self._now()

    @property
    def _clock(self) -> float:
        return self._now().timestamp()

    # --- runs

    def create_run(self, new: NewRun) -> bool:
        return self._write(lambda it: run_writes.create(it, new, self._clock))

    def discard_empty_run(self, run_id: str, lease: Lease) -> bool:
        return self._write(lambda it: run_writes.delete_run(it, run_id, only_empty=True), lease)

    def delete_run(self, run_id: str, lease: Lease) -> bool:
        return self._write(lambda it: run_writes.delete_run(it, run_id, only_empty=False), lease)

    def run(self, run_id: str) -> RunRecord | None:
        return self._read(lambda it: reads.run(it, run_id), None)

    def runs(
        self,
        *,
        labels: Mapping[str, str] | None = None,
        before: int | None = None,
        limit: int = 100,
        unfinished: bool = False,
        created_after: float | None = None,
    ) -> list[RunRecord]:
        chosen = reads.chosen(labels or {}, before=before, unfinished=unfinished, created_after=created_after)
        return self._read(lambda it: reads.runs_where(it, chosen, limit), [])

    def fingerprint(
        self, labels: Mapping[str, str], created_before: float | None, *, finished: bool = False
    ) -> tuple[int, int]:
        chosen = reads.chosen(labels, created_before=created_before, finished=finished)
        return self._read(lambda it: reads.fingerprint(it, chosen), (0, 0))

    def labels(self, run_pks: Collection[int]) -> dict[int, dict[str, str]]:
        return self._read(lambda it: reads.labels_of(it, run_pks), {})

    def set_control(self, run_id: str, wish: RunControlState, *, reason: str | None, drain: bool = False) -> RunRecord:
        if self.run(run_id) is None:
            raise UnknownRunError(run_id, self.location)
        run = self._write(lambda it: run_writes.set_control(it, run_id, wish, reason, drain))
        if run is None:
            raise UnknownRunError(run_id, self.location)
        return run

    def set_backoff(self, run_pk: int, lease: Lease, backoff: Backoff) -> None:
        self._write(lambda it: run_writes.bump(it, run_pk, **run_writes.backoff_values(backoff)), lease, run_pk)

    def mark_tidied(self, run_pk: int, lease: Lease) -> None:
        self._write(lambda it: run_writes.bump(it, run_pk, tidied=True), lease, run_pk)

    # --- leases

    def acquire(self, resource: str, owner: str, ttl_sec: float, *, dead_owner: str | None = None) -> Lease | str:
        return self._write(lambda it: leases.acquire(it, resource, owner, self._clock, ttl_sec, dead_owner))

    def renew(self, lease: Lease, ttl_sec: float) -> Lease:
        return self._write(lambda it: leases.renew(it, lease, self._clock, ttl_sec))

    def release(self, lease: Lease) -> None:
        self._write(lambda it: leases.release(it, lease))

    # --- ingest

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
        self._write(lambda it: run_writes.append_part(it, run_pk, part, items, position, failures), lease, run_pk)

    def finish_ingest(self, run_pk: int, lease: Lease) -> None:
        self._write(lambda it: run_writes.bump(it, run_pk, ingest_finished=True), lease, run_pk)

    # --- planning and submission

    def reopen_due(self, run_pk: int, lease: Lease) -> int:
        return self._write(lambda it: run_writes.reopen_due(it, run_pk, self._clock), lease, run_pk)

    def next_retry_at(self, run_pk: int) -> float | None:
        return self._read(lambda it: reads.next_retry_at(it, run_pk), None)

    def fresh_parts(self, run_pk: int, *, limit: int) -> list[PartRecord]:
        return self._read(lambda it: reads.fresh_parts(it, run_pk, limit), [])

    def reopened_items(self, run_pk: int, *, limit: int) -> list[ItemRow]:
        return self._read(lambda it: reads.reopened_items(it, run_pk, limit), [])

    def items_between(self, run_pk: int, first: int, last: int, *, batch: int | None = None) -> list[ItemRow]:
        return self._read(lambda it: reads.items_between(it, run_pk, first, last, batch), [])

    def parts(self, run_pk: int, pks: Collection[int] | None = None) -> list[PartRecord]:
        return self._read(lambda it: reads.parts_of(it, run_pk, pks), [])

    def claim(self, run_pk: int, lease: Lease, batch: NewBatch) -> BatchRecord | None:
        return self._write(lambda it: batch_writes.claim(it, run_pk, batch, self._clock), lease, run_pk)

    def move_batch(self, batch: BatchRecord, lease: Lease, target: BatchState, **facts: JSONValue) -> bool:
        return self._write(lambda it: batch_writes.move_batch(it, batch, target, facts), lease, batch.run_pk)

    def note_batch(self, batch: BatchRecord, lease: Lease, **facts: JSONValue) -> None:
        self._write(lambda it: batch_writes.note_batch(it, batch, facts), lease, batch.run_pk)

    def confirm_submitted(self, batch: BatchRecord, lease: Lease, *, provider_batch_id: str, status: str) -> bool:
        return self._write(
            lambda it: batch_writes.confirm_submitted(it, batch, provider_batch_id, status, self._clock),
            lease,
            batch.run_pk,
        )

    def release_batch(self, batch: BatchRecord, lease: Lease, target: BatchState, *, backoff: Backoff | None) -> bool:
        return self._write(lambda it: batch_writes.release_batch(it, batch, target, backoff), lease, batch.run_pk)

    # --- polling and collection

    def batches(
        self,
        *,
        run_pk: int | None = None,
        run_pks: Collection[int] | None = None,
        states: Collection[BatchState] | None = None,
        intents: Collection[str] | None = None,
    ) -> list[BatchRecord]:
        wanted = run_pks if run_pk is None else [run_pk]
        return self._read(lambda it: reads.batches_of(it, wanted, states, intents), [])

    def away(self, run_pk: int | None = None) -> list[AwayBatch]:
        return self._read(lambda it: reads.away(it, run_pk), [])

    def ranges(self, batch_pk: int) -> list[BatchRange]:
        return self._read(lambda it: reads.ranges(it, batch_pk), [])

    def observe(self, seen: Sequence[Observation]) -> list[int]:
        if not seen:
            return []
        return self._write(lambda it: batch_writes.observe(it, seen, self._clock))

    def settle(self, run_pk: int, lease: Lease, settlement: Settlement) -> None:
        self._write(lambda it: batch_writes.settle(it, run_pk, settlement), lease, run_pk)

    def fail_open_items(self, run_pk: int, lease: Lease, indexes: Sequence[int], segment: NewSegment) -> int:
        return self._write(lambda it: run_writes.fail_open_items(it, run_pk, indexes, segment), lease, run_pk)

    def retry_failed(self, run_pk: int, lease: Lease) -> int:
        return self._write(lambda it: run_writes.retry_failed(it, run_pk), lease, run_pk)

    def open_items(self, run_pk: int, *, after_index: int, limit: int) -> list[ItemRow]:
        return self._read(lambda it: reads.open_items(it, run_pk, after_index, limit), [])

    def waiting_runs(self) -> list[RunRecord]:
        return self._read(lambda it: scopes.waiting_runs(it, self._clock), [])

    def keep_places(self, run_pks: Collection[int]) -> None:
        self._write(lambda it: scopes.keep_places(it, run_pks, self._clock))

    # --- files

    def record_export(self, run_pk: int, lease: Lease, root: str) -> None:
        self._write(lambda it: run_writes.bump(it, run_pk, exported_at=self._clock, export_root=root), lease, run_pk)

    def record_prune(self, run_pk: int, lease: Lease, *, raw: bool) -> tuple[int, int]:
        return self._write(lambda it: run_writes.record_prune(it, run_pk, self._clock, raw), lease, run_pk)

    # --- reads

    def segments(self, run_pk: int, *, after_sequence: int | None = None) -> list[SegmentRecord]:
        return self._read(lambda it: reads.segments_of(it, run_pk, after_sequence), [])

    def superseded_indexes(self, run_pk: int, segment: SegmentRecord) -> set[int]:
        return self._read(lambda it: reads.superseded_indexes(it, run_pk, segment), set())

    def tallies(self, run_pk: int) -> dict[int, RunTally]:
        return self._read(lambda it: reads.tallies(it, run_pk), {})

    def scope(self, name: str) -> ScopeRecord:
        return self._read(lambda it: scopes.find(it, name, self._clock), ScopeRecord(name, 0, None))

    def learn(self, scope: ScopeRecord, *, known: ScopeRecord | None = None) -> bool:
        return self._write(lambda it: scopes.learn(it, scope, known))

    # --- housekeeping

    def begin_delete(self, run_id: str, lease: Lease) -> None:
        self._write(lambda it: repairs.begin_delete(it, run_id), lease)

    def recount(self, run_pk: int, lease: Lease) -> bool:
        return self._write(lambda it: repairs.recount(it, run_pk), lease, run_pk)

    def scopes(self) -> list[ScopeRecord]:
        return self._read(scopes.all_scopes, [])

    def recount_scope(self, name: str) -> bool:
        return self._write(lambda it: scopes.recount(it, name))

    def held_leases(self) -> list[Lease]:
        return self._read(leases.held, [])
