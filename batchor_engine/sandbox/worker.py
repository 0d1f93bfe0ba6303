"""Carries out the steps of a batch: validate, answer, publish. Runs in threads, one step of a batch at a time.

Law: bytes are written first and counted after, so a killed step is cut off and done again.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic_core import from_json

from .config import SandboxConfig
from .faults import Fault, FaultBoard, FaultKind, first
from .life import AnswerTo, Close, Enter, Step, Validate, carried, next_step, pace
from .lines import LineMaker, MadeLine, unanswered_line
from .store import StateDir
from .validate import Report, read_order, validate, write_order
from .values import BatchRecord, FileRecord, JSONObject

CHUNK_LINES = 200


@dataclass(frozen=True)
class Worker:
    """Performs steps on stored batches; `now` gives the time in seconds."""

    config: SandboxConfig
    state: StateDir
    board: FaultBoard
    maker: LineMaker
    now: Callable[[], float] = time.time

    def run(self, batch_id: str, polled: bool = False) -> None:
        """Take a batch as far as its clock allows; a failure of the sandbox itself ends the batch, visibly."""
        record = self.state.get_batch(batch_id)
        try:
            while record is not None and (step := self.due(record, polled)) is not None:
                self.perform(record, step)
                record = self.state.get_batch(batch_id)
        except Exception as error:  # noqa: BLE001 - a disk or a bug: silence would look like a slow batch
            traceback.print_exc(file=sys.stderr)
            self._give_up(batch_id, f"The sandbox itself failed: {type(error).__name__}: {error}")

    def _give_up(self, batch_id: str, message: str) -> None:
        errors = [{"code": "sandbox_error", "message": message, "param": None, "line": None}]
        self.state.change_batch(batch_id, lambda record: move(record, "failed", self.now(), errors=errors))

    def due(self, record: BatchRecord, polled: bool = False) -> Step | None:
        """The step that the clock allows now."""
        now = self.now()
        return next_step(record, pace(record, self.config, now, polled), now)

    def perform(self, record: BatchRecord, step: Step) -> None:
        """Carry out one step (a part of it, when there is much to answer)."""
        match step:
            case Validate():
                self._validate(record)
            case AnswerTo(count):
                self._answer(record, min(count, record.answered + CHUNK_LINES))
            case Enter(status, ending):
                self._enter(record, status, ending=ending)
            case Close():
                self._close(record)

    def _enter(self, record: BatchRecord, status: str, **changes: object) -> None:
        def change(stored: BatchRecord) -> BatchRecord:
            # A cancel may have come in between; it wins.
            return move(stored, status, self.now(), **changes) if stored.status == record.status else stored

        self.state.change_batch(record.id, change)

    def _validate(self, record: BatchRecord) -> None:
        candidates = self.board.line_candidates(record.id, record.metadata)
        report = validate(self.state.input_path(record.id), record.endpoint, self.config, candidates)
        self._batch_faults(record, report)
        with self.state.write():
            if not report.errors:
                self._reserve(record, report)
            if report.errors:
                self._enter(record, "failed", errors=report.errors, ending="failed")
            else:
                key = f"{self.config.seed}:{record.seq}" if self.config.shuffle else None
                write_order(self.state.index_path(record.id), report.offsets, key)
                struck = tuple(one.to_json() for one in self.board.strike_lines(report.struck))
                self._enter(
                    record,
                    "in_progress",
                    endpoint=report.endpoint or record.endpoint,
                    total=len(report.offsets),
                    model=report.model,
                    enqueued_tokens=report.tokens,
                    faults=record.faults + struck,
                )
        if report.errors:
            self._sweep(record)

    def _batch_faults(self, record: BatchRecord, report: Report) -> None:
        faults = carried(record)
        found = first(faults, FaultKind.VALIDATION_FAILED)
        if found is not None:
            code = found.code or "invalid_json_line"
            message = found.message or "This line is not parseable as valid JSON."
            for line in found.lines or (None,):
                report.complain(code, message, line)
        found = first(faults, FaultKind.BATCH_FAILED)
        if found is not None:
            message = found.message or "You exceeded your current quota, please check your plan and billing details."
            report.complain(found.code or "insufficient_quota", message)
        found = first(faults, FaultKind.TOKEN_LIMIT_EXCEEDED)
        if found is not None:
            report.complain("token_limit_exceeded", found.message or limit_message(record, report.model, found.limit))

    def _reserve(self, record: BatchRecord, report: Report) -> None:
        limit = self.config.token_limit(report.model or "")
        if limit is None:
            return
        others = [one for one in self.state.live_batches() if one.model == report.model and one.scope == record.scope]
        if sum(one.enqueued_tokens for one in others) + report.tokens > limit:
            report.complain("token_limit_exceeded", limit_message(record, report.model, limit))

    def _answer(self, record: BatchRecord, stop: int) -> None:
        faults = [one for one in carried(record) if one.on == "line"]
        made: list[tuple[str, str | None]] = []
        after = record
        with (
            self.state.input_path(record.id).open("rb") as source,
            _Aside(self.state.content_path(record.out_file_id), record.out_bytes) as out,
            _Aside(self.state.content_path(record.err_file_id), record.err_bytes) as err,
        ):
            for number, offset in read_order(self.state.index_path(record.id), record.answered, stop):
                source.seek(offset)
                key = f"{record.id[-12:]}{number:06d}"
                raw = source.readline()
                line = self.maker.make(raw, record.endpoint, faults, key, int(self.now()), number)
                (err if line.to_error_file else out).write(line.data)
                after = _counted(after, line)
                if line.paid:
                    made.append((line.custom_id, line.dropped))
        self._commit(record.id, after, made)

    def _commit(self, batch_id: str, after: BatchRecord, made: list[tuple[str, str | None]]) -> None:
        names = ("answered", "completed", "failed", "out_lines", "err_lines", "out_bytes", "err_bytes", "usage")
        progress: JSONObject = {name: getattr(after, name) for name in names}
        with self.state.write():
            self.state.add_paid(batch_id, made)
            self.state.change_batch(batch_id, lambda stored: replace(stored, **progress))

    def _close(self, record: BatchRecord) -> None:
        cut = record
        if record.ending in ("expired", "cancelled"):
            cut = self._write_unanswered(record, f"batch_{record.ending}")
        faults = carried(record)
        if first(faults, FaultKind.TRUNCATED_LAST_LINE) is not None:
            cut = self._cut_last_line(cut)
        with self.state.write():
            output = self._publish(cut, cut.out_file_id, cut.out_bytes, "output", first(faults, FaultKind.OUTPUT_GONE))
            empty = self.config.azure or first(faults, FaultKind.EMPTY_ERROR_FILE) is not None
            error = self._publish(cut, cut.err_file_id, cut.err_bytes, "error", None, even_empty=empty)
            self._enter(
                record,
                record.ending,
                output_file_id=output,
                error_file_id=error,
                failed=cut.failed,
                out_bytes=cut.out_bytes,
                err_bytes=cut.err_bytes,
                err_lines=cut.err_lines,
            )
        self._sweep(record)

    def _write_unanswered(self, record: BatchRecord, code: str) -> BatchRecord:
        if record.total == 0:
            return record
        after = record
        with (
            self.state.input_path(record.id).open("rb") as source,
            _Aside(self.state.content_path(record.err_file_id), record.err_bytes) as err,
        ):
            for number, offset in read_order(self.state.index_path(record.id), record.answered, record.total):
                source.seek(offset)
                custom_id = from_json(source.readline())["custom_id"]
                data = unanswered_line(custom_id, f"{record.id[-12:]}{number:06d}", code)
                err.write(data)
                grown = after.err_bytes + len(data)
                after = replace(after, err_bytes=grown, err_lines=after.err_lines + 1, failed=after.failed + 1)
        return after

    def _cut_last_line(self, record: BatchRecord) -> BatchRecord:
        path = self.state.content_path(record.out_file_id)
        if record.out_bytes == 0:
            return record
        with path.open("r+b") as file:
            file.seek(0)
            start, last = 0, b""
            for raw in file:
                start, last = start + len(last), raw
            with suppress(ValueError, KeyError, TypeError):
                self.state.mark_dropped(record.id, from_json(last)["custom_id"], "truncated_last_line")
            file.truncate(start + len(last) // 2)
        return replace(record, out_bytes=start + len(last) // 2)

    def _publish(
        self, record: BatchRecord, file_id: str, size: int, kind: str, gone: Fault | None, even_empty: bool = False
    ) -> str | None:
        path = self.state.content_path(file_id)
        if size == 0 and not even_empty:
            path.unlink(missing_ok=True)
            return None
        with _Aside(path, size):
            pass
        now = int(self.now())
        expires = None if record.output_expires_sec is None else now + record.output_expires_sec
        if gone is None or gone.which not in (kind, "both"):
            name = f"{record.id}_{kind}.jsonl"
            self.state.put_file(FileRecord(file_id, size, now, name, "batch_output", expires, record.scope))
        return file_id

    def _sweep(self, record: BatchRecord) -> None:
        self.state.input_path(record.id).unlink(missing_ok=True)
        self.state.index_path(record.id).unlink(missing_ok=True)


class _Aside:
    """An output file opened at a known good length; what lies beyond it was never counted and is cut off."""

    def __init__(self, path: Path, size: int) -> None:
        self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
        self._file.truncate(size)
        self._file.seek(size)

    def __enter__(self) -> _Aside:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self._file.write(data)


def move(record: BatchRecord, status: str, now: float, **changes: object) -> BatchRecord:
    """The batch in its next phase, with that phase's timestamp."""
    stamps = {**record.stamps, status: int(now)}
    plain: JSONObject = {"status": status, "phase_since": now, "polls_seen": 0, "pushed": False, "stamps": stamps}
    return replace(record, **(plain | changes))


def limit_message(record: BatchRecord, model: str | None, limit: int) -> str:
    """The provider's words for a full queue; they carry the limit."""
    return (
        f"Enqueued token limit reached for {model} in organization {record.organization}. "
        f"Limit: {limit:,} enqueued tokens. Please try again once some in_progress batches have been completed."
    )


def _counted(record: BatchRecord, line: MadeLine) -> BatchRecord:
    size = len(line.data)
    if line.to_error_file:
        placed = {"err_bytes": record.err_bytes + size, "err_lines": record.err_lines + line.count}
        counted = {"failed": record.failed + 1}
    else:
        placed = {"out_bytes": record.out_bytes + size, "out_lines": record.out_lines + line.count}
        counted = {"completed": record.completed + 1}
    return replace(record, answered=record.answered + 1, usage=record.usage.plus(line.usage), **placed, **counted)
