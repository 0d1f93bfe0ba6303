"""One store for every database: a method is one transaction around functions that speak SQL.

Law: nothing here decides. A write takes the write lock first; a write under a lease checks the fence in its own
transaction; a read takes no lock and changes nothing.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from sqlalchemy import Connection
from sqlalchemy.exc import DatabaseError, OperationalError

from batchor_engine.core.records import (
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
from batchor_engine.errors import ForeignStoreError, StoreBusyError, StoreError, UnknownRunError
from batchor_engine.models import JSONValue, RunTally
from batchor_engine.ports.state import StateStore
from batchor_engine.states import BatchState, RunControlState
from batchor_engine.storage import batch_writes, leases, reads, repairs, run_writes, scopes


class SqlStateStore(StateStore):
    """A state store on SQLAlchemy; subclasses say how to open a connection."""

    def __init__(self, now: Callable[[], datetime] | None) -> None:
        self._now = now or (lambda: datetime.now(UTC))

    @abstractmethod
    def _open_writer(self) -> Generator[Connection]:
        """A connection in a write transaction that commits at the end; creates what is missing."""

    @abstractmethod
    def _open_reader(self) -> Generator[Connection | None]:
        """A connection in a read transaction, or None where there is no database yet."""

    @contextmanager
    def _write(self, lease: Lease | None = None) -> Generator[Connection]:
        with self._told_clearly(), contextmanager(self._open_writer)() as connection:
            if lease is not None:
                leases.check(connection, lease)
            yield connection

    @contextmanager
    def _read(self) -> Generator[Connection | None]:
        with self._told_clearly(), contextmanager(self._open_reader)() as connection:
            yield connection

    @contextmanager
    def _told_clearly(self) -> Generator[None]:
        try:
            yield
        except OperationalError as error:
            text = str(error.orig)
            if "locked" in text:
                raise StoreBusyError(f"{self.location} stayed locked by another process: try again.") from None
            raise StoreError(f"{self.location} cannot be used: {text}") from None
        except DatabaseError as error:
            if "not a database" not in str(error.orig):
                raise
            raise ForeignStoreError(
                f"{self.location} is not a database; it was left as it is. Name another file for the store."
            ) from None

    def now(self) -> datetime:
        return self._now()

    @property
    def _clock(self) -> float:
        return self._now().timestamp()

    # --- runs

    def create_run(self, new: NewRun) -> bool:
        with self._write() as connection:
            return run_writes.create(connection, new, self._clock)

    def discard_empty_run(self, run_id: str, lease: Lease) -> bool:
        with self._write(lease) as connection:
            return run_writes.delete_run(connection, run_id, only_empty=True)

    def delete_run(self, run_id: str, lease: Lease) -> bool:
        with self._write(lease) as connection:
            return run_writes.delete_run(connection, run_id, only_empty=False)

    def run(self, run_id: str) -> RunRecord | None:
        with self._read() as connection:
            return run_writes.find(connection, run_id) if connection else None

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
        with self._read() as connection:
            return reads.runs_where(connection, chosen, limit) if connection else []

    def fingerprint(
        self, labels: Mapping[str, str], created_before: float | None, *, finished: bool = False
    ) -> tuple[int, int]:
        chosen = reads.chosen(labels, created_before=created_before, finished=finished)
        with self._read() as connection:
            return reads.fingerprint(connection, chosen) if connection else (0, 0)

    def labels(self, run_pks: Collection[int]) -> dict[int, dict[str, str]]:
        with self._read() as connection:
            return reads.labels_of(connection, run_pks) if connection else {}

    def set_control(self, run_id: str, wish: RunControlState, *, reason: str | None, drain: bool = False) -> RunRecord:
        if self.run(run_id) is None:
            raise UnknownRunError(run_id, self.location)
        with self._write() as connection:
            run = run_writes.set_control(connection, run_id, wish, reason, drain)
        if run is None:
            raise UnknownRunError(run_id, self.location)
        return run

    def set_backoff(self, run_pk: int, lease: Lease, backoff: Backoff) -> None:
        with self._write(lease) as connection:
            run_writes.bump(connection, run_pk, **run_writes.backoff_values(backoff))

    def mark_tidied(self, run_pk: int, lease: Lease) -> None:
        with self._write(lease) as connection:
            run_writes.bump(connection, run_pk, tidied=True)

    # --- leases

    def acquire(self, resource: str, owner: str, ttl_sec: float, *, dead_owner: str | None = None) -> Lease | str:
        with self._write() as connection:
            return leases.acquire(connection, resource, owner, self._clock, ttl_sec, dead_owner)

    def renew(self, lease: Lease, ttl_sec: float) -> Lease:
        with self._write() as connection:
            return leases.renew(connection, lease, self._clock, ttl_sec)

    def release(self, lease: Lease) -> None:
        with self._write() as connection:
            leases.release(connection, lease)

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
        with self._write(lease) as connection:
            run_writes.append_part(connection, run_pk, part, items, position, failures)

    def finish_ingest(self, run_pk: int, lease: Lease) -> None:
        with self._write(lease) as connection:
            run_writes.bump(connection, run_pk, ingest_finished=True)

    # --- planning and submission

    def reopen_due(self, run_pk: int, lease: Lease) -> int:
        with self._write(lease) as connection:
            return run_writes.reopen_due(connection, run_pk, self._clock)

    def next_retry_at(self, run_pk: int) -> float | None:
        with self._read() as connection:
            return reads.next_retry_at(connection, run_pk) if connection else None

    def fresh_parts(self, run_pk: int, *, limit: int) -> list[PartRecord]:
        with self._read() as connection:
            return reads.fresh_parts(connection, run_pk, limit) if connection else []

    def reopened_items(self, run_pk: int, *, limit: int) -> list[ItemRow]:
        with self._read() as connection:
            return reads.reopened_items(connection, run_pk, limit) if connection else []

    def items_between(self, run_pk: int, first: int, last: int, *, batch: int | None = None) -> list[ItemRow]:
        with self._read() as connection:
            return reads.items_between(connection, run_pk, first, last, batch) if connection else []

    def parts(self, run_pk: int, pks: Collection[int] | None = None) -> list[PartRecord]:
        with self._read() as connection:
            return reads.parts_of(connection, run_pk, pks) if connection else []

    def claim(self, run_pk: int, lease: Lease, batch: NewBatch) -> BatchRecord | None:
        with self._write(lease) as connection:
            return batch_writes.claim(connection, run_pk, batch, self._clock)

    def move_batch(self, batch: BatchRecord, lease: Lease, target: BatchState, **facts: JSONValue) -> bool:
        with self._write(lease) as connection:
            return batch_writes.move_batch(connection, batch, target, facts)

    def note_batch(self, batch: BatchRecord, lease: Lease, **facts: JSONValue) -> None:
        with self._write(lease) as connection:
            batch_writes.note_batch(connection, batch, facts)

    def confirm_submitted(self, batch: BatchRecord, lease: Lease, *, provider_batch_id: str, status: str) -> bool:
        with self._write(lease) as connection:
            return batch_writes.confirm_submitted(connection, batch, provider_batch_id, status, self._clock)

    def release_batch(self, batch: BatchRecord, lease: Lease, target: BatchState, *, backoff: Backoff | None) -> bool:
        with self._write(lease) as connection:
            return batch_writes.release_batch(connection, batch, target, backoff)

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
        with self._read() as connection:
            return reads.batches_of(connection, wanted, states, intents) if connection else []

    def ranges(self, batch_pk: int) -> list[BatchRange]:
        with self._read() as connection:
            return reads.ranges(connection, batch_pk) if connection else []

    def observe(self, seen: Sequence[Observation]) -> list[int]:
        if not seen:
            return []
        with self._write() as connection:
            return batch_writes.observe(connection, seen, self._clock)

    def settle(self, run_pk: int, lease: Lease, settlement: Settlement) -> None:
        with self._write(lease) as connection:
            batch_writes.settle(connection, run_pk, settlement)

    def fail_open_items(self, run_pk: int, lease: Lease, indexes: Sequence[int], segment: NewSegment) -> int:
        with self._write(lease) as connection:
            return run_writes.fail_open_items(connection, run_pk, indexes, segment)

    def retry_failed(self, run_pk: int, lease: Lease) -> int:
        with self._write(lease) as connection:
            return run_writes.retry_failed(connection, run_pk)

    def open_items(self, run_pk: int, *, after_index: int, limit: int) -> list[ItemRow]:
        with self._read() as connection:
            return reads.open_items(connection, run_pk, after_index, limit) if connection else []

    def keep_places(self) -> None:
        with self._read() as connection:
            if connection is None or not scopes.waits(connection):
                return
        with self._write() as connection:
            scopes.keep_places(connection, self._clock)

    # --- files

    def record_export(self, run_pk: int, lease: Lease, root: str) -> None:
        with self._write(lease) as connection:
            run_writes.bump(connection, run_pk, exported_at=self._clock, export_root=root)

    def record_prune(self, run_pk: int, lease: Lease, *, raw: bool) -> tuple[int, int]:
        with self._write(lease) as connection:
            return run_writes.record_prune(connection, run_pk, self._clock, raw)

    # --- reads

    def segments(self, run_pk: int, *, after_sequence: int | None = None) -> list[SegmentRecord]:
        with self._read() as connection:
            return reads.segments_of(connection, run_pk, after_sequence) if connection else []

    def superseded_indexes(self, run_pk: int, segment: SegmentRecord) -> set[int]:
        with self._read() as connection:
            return reads.superseded_indexes(connection, run_pk, segment) if connection else set()

    def tallies(self, run_pk: int) -> dict[int, RunTally]:
        with self._read() as connection:
            return reads.tallies(connection, run_pk) if connection else {}

    def scope(self, name: str) -> ScopeRecord:
        with self._read() as connection:
            return scopes.find(connection, name) if connection else ScopeRecord(name, 0, None)

    def learn(self, scope: ScopeRecord) -> None:
        with self._write() as connection:
            scopes.learn(connection, scope)

    # --- housekeeping

    def begin_delete(self, run_id: str, lease: Lease) -> None:
        with self._write(lease) as connection:
            repairs.begin_delete(connection, run_id)

    def recount(self, run_pk: int, lease: Lease) -> bool:
        with self._write(lease) as connection:
            return repairs.recount(connection, run_pk)

    def scopes(self) -> list[ScopeRecord]:
        with self._read() as connection:
            return scopes.all_scopes(connection) if connection else []

    def recount_scope(self, name: str) -> bool:
        with self._write() as connection:
            return scopes.recount(connection, name)

    def held_leases(self) -> list[Lease]:
        with self._read() as connection:
            return leases.held(connection) if connection else []
