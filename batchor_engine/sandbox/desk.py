"""The sandbox behind HTTP: takes in files and batches, answers polls, and moves batches on by their clock."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

from .config import SandboxConfig
from .errors import ApiError
from .faults import Fault, FaultBoard, FaultKind
from .journal import Journal
from .life import carried
from .lines import LineMaker
from .orders import BatchOrder, FileOrder
from .responder import load_responder
from .store import StateDir
from .values import BatchRecord, FileRecord, JSONObject
from .worker import Worker, move

TICK_SEC = 0.03
DEFAULT_INPUT_EXPIRY_SEC = 30 * 86_400


class Desk:
    """One sandbox's files, batches and clock; every method may be called by any thread."""

    def __init__(self, config: SandboxConfig) -> None:
        responder = load_responder(config.responder)
        self.config = config
        self.state = StateDir(config.state_dir)
        self.faults = FaultBoard(self.state)
        self.journal = Journal(self.state)
        maker = LineMaker(
            responder, config.seed, config.chars_per_token, config.embedding_dimensions, config.answer_chars
        )
        self.worker = Worker(config, self.state, self.faults, maker)
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="sandbox-worker")
        self._busy: dict[str, Future[None]] = {}
        self._lock = threading.RLock()  # a finished job calls back at once, in the thread that holds the lock
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._clock = threading.Thread(target=self._tick, name="sandbox-clock", daemon=True)
        self._wake.set()
        if config.clock == "real":
            self._clock.start()

    def close(self) -> None:
        """Stop the clock and the workers, and close the state directory."""
        self._closing.set()
        self._wake.set()
        if self._clock.is_alive():
            self._clock.join()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self.journal.close()
        self.state.close()

    # files

    def new_file_path(self) -> tuple[str, Path]:
        """A fresh file id and where its bytes are to be written."""
        file_id = f"file-{secrets.token_hex(12)}"
        return file_id, self.state.content_path(file_id)

    def add_file(self, file_id: str, order: FileOrder, size: int, scope: str) -> FileRecord:
        """Make an uploaded file known."""
        now = int(time.time())
        lifetime = order.expires_sec
        if lifetime is None and self.config.azure:
            self._check_room()
        elif lifetime is None and order.purpose == "batch":
            lifetime = DEFAULT_INPUT_EXPIRY_SEC
        expires = None if lifetime is None else now + lifetime
        record = FileRecord(file_id, size, now, order.filename, order.purpose, expires, scope)
        self.state.put_file(record)
        return record

    def _check_room(self) -> None:
        kept = [one for one in self.state.all_files("asc") if one.purpose == "batch" and one.expires_at is None]
        if len(kept) >= self.config.max_unexpiring_files:
            message = f"The resource holds {len(kept)} batch files that do not expire."
            raise ApiError(400, message, code="file_limit_reached")

    def file(self, file_id: str, scope: str) -> FileRecord:
        """A file that exists, is not expired and belongs to the caller; else a 404."""
        record = self.state.get_file(file_id)
        if record is not None and record.expires_at is not None and record.expires_at <= time.time():
            self.state.drop_file(file_id)
            record = None
        if record is None or record.scope != scope:
            raise no_such_file(file_id)
        return record

    def delete_file(self, file_id: str, scope: str) -> None:
        """Remove a file; a batch that runs on it keeps its own link."""
        self.state.drop_file(self.file(file_id, scope).id)

    def files(self, scope: str, order: str, purpose: str | None) -> list[FileRecord]:
        """The caller's files."""
        return [
            one
            for one in self.state.all_files(order)
            if one.scope == scope and purpose in (None, one.purpose) and (one.expires_at or 2**62) > time.time()
        ]

    # batches

    def create_batch(self, order: BatchOrder, scope: str, organization: str) -> BatchRecord:
        """Take in a batch; its input file is read later, in `validating`."""
        file = self.file(order.input_file_id, scope)
        if file.purpose != "batch":
            message = f"The file '{file.id}' has purpose '{file.purpose}'; a batch needs a file with purpose 'batch'."
            raise ApiError(400, message, param="input_file_id", code="invalid_file_purpose")
        batch_id, now = f"batch_{secrets.token_hex(12)}", time.time()
        carried_faults = self.faults.for_batch(batch_id, order.metadata)
        self.state.keep_input(file.id, batch_id)
        record = BatchRecord(
            id=batch_id,
            seq=self.state.count("seq"),
            endpoint=order.endpoint,
            input_file_id=file.id,
            metadata=order.metadata,
            created_at=now,
            expires_at=now + self.config.window_sec,
            expires=not self.config.azure,
            out_file_id=f"file-{secrets.token_hex(12)}",
            err_file_id=f"file-{secrets.token_hex(12)}",
            output_expires_sec=order.output_expires_sec,
            scope=scope,
            organization=organization,
            phase_since=now,
            faults=tuple(one.to_json() for one in carried_faults),
        )
        self.state.put_batch(record)
        self._wake.set()
        return record

    def batch(self, batch_id: str, scope: str) -> BatchRecord:
        """A batch of the caller; else a 404."""
        record = self.state.get_batch(batch_id)
        if record is None or record.scope != scope:
            raise ApiError(404, f"No batch found with id '{batch_id}'.")
        return record

    def batches(self, after: str | None, limit: int, scope: str) -> tuple[list[BatchRecord], bool]:
        """A page of the caller's batches, newest first, and whether there are more."""
        seq = None if after is None else self.batch(after, scope).seq
        page: list[BatchRecord] = []
        while len(page) <= limit:
            found = self.state.batches_before(seq, limit + 1)
            page += [one for one in found if one.scope == scope]
            if len(found) <= limit:
                break
            seq = found[-1].seq
        return page[:limit], len(page) > limit

    def cancel(self, batch_id: str, scope: str) -> BatchRecord:
        """Begin to cancel; answers already made are kept."""
        self.batch(batch_id, scope)

        def change(record: BatchRecord) -> BatchRecord:
            if record.status == "cancelling":
                return record
            if not record.live:
                raise ApiError(409, f"Cannot cancel a batch with status '{record.status}'.")
            return move(record, "cancelling", time.time(), ending="cancelled")

        record = self.state.change_batch(batch_id, change)
        self._wake.set()
        return record

    def seen(self, batch_ids: Iterable[str]) -> None:
        """A poll has seen these batches: on the polls clock they move on, and the poll waits a little for the work."""
        if self.config.clock != "polls":
            return
        started = {one: self._start(one, polled=True) for one in batch_ids}
        wait(started.values(), timeout=self.config.work_wait_sec)
        for batch_id, work in started.items():
            if work.done():
                work.result()
                self.state.change_batch(batch_id, _polled)

    def advance(self, batch_id: str | None = None, steps: int = 1) -> None:
        """End the current phase of one batch or all live ones, so many times, on any clock."""
        for _ in range(steps):
            chosen = [one.id for one in self.state.live_batches() if batch_id in (None, one.id)]
            for one in chosen:
                self.state.change_batch(one, lambda record: replace(record, pushed=record.live))
            for work in [self._start(one, polled=False) for one in chosen]:
                work.result()

    def finish(self, batch_id: str | None = None) -> None:
        """Take one batch or all live ones to their end."""
        while any(batch_id in (None, one.id) for one in self.state.live_batches()):
            self.advance(batch_id)

    def view(self, record: BatchRecord) -> JSONObject:
        """The public batch object, as the batch's faults show it."""
        return disguise(record.public(), record.status, carried(record))

    def _start(self, batch_id: str, polled: bool) -> Future[None]:
        with self._lock:
            work = self._busy.get(batch_id)
            if work is None or work.done():
                work = self._busy[batch_id] = self._pool.submit(self.worker.run, batch_id, polled)
                work.add_done_callback(lambda _: self._done(batch_id))
            return work

    def _done(self, batch_id: str) -> None:
        with self._lock:
            work = self._busy.get(batch_id)
            if work is not None and work.done():
                del self._busy[batch_id]

    def _tick(self) -> None:
        while not self._closing.is_set():
            began = time.monotonic()
            live = self.state.live_batches()
            for record in live:
                if record.id not in self._busy and self.worker.due(record) is not None:
                    self._start(record.id, polled=False)
            if not live:
                self._wake.clear()
                # A batch or the end may have come between the look and the clear.
                if not self._closing.is_set() and not self.state.live_batches():
                    self._wake.wait()
            # With very many batches a look costs something; it may then take a tenth of the time, not all of it.
            self._closing.wait(max(TICK_SEC, 10 * (time.monotonic() - began)) if live else 0)


def _polled(record: BatchRecord) -> BatchRecord:
    return replace(record, polls_seen=record.polls_seen + 1) if record.live else record


def no_such_file(file_id: str) -> ApiError:
    """The provider's 404 for a file."""
    return ApiError(404, f"No such File object: {file_id}", param="id")


def disguise(shown: JSONObject, status: str, faults: Iterable[Fault]) -> JSONObject:
    """A batch object with the lies that its faults tell."""
    for fault in faults:
        match fault.kind:
            case FaultKind.ODD_STATUS if fault.phase == status:
                shown = shown | {"status": fault.word}
            case FaultKind.COUNTS_LIE:
                shown = shown | {"request_counts": {"total": 0, "completed": 0, "failed": 0}}
            case FaultKind.NO_USAGE:
                shown = {key: value for key, value in shown.items() if key != "usage"}
            case FaultKind.NULL_FILE_ID | FaultKind.EMPTY_FILE_ID:
                shown = shown | _hidden_ids(fault)
            case _:
                pass
    return shown


def _hidden_ids(fault: Fault) -> JSONObject:
    value = None if fault.kind == FaultKind.NULL_FILE_ID else ""
    names = ("output", "error") if fault.which == "both" else (fault.which,)
    return {f"{name}_file_id": value for name in names}
