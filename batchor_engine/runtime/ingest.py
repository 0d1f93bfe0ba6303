"""Source → sealed request parts. A row is rendered once; from then on only its bytes travel.

Law: rows, their part and the checkpoint after them are stored in one transaction, after the part is whole on disk.
Whatever ends a slice (deadline, pause, exception), the rows before it are kept and none is skipped.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any, BinaryIO, Self, cast

from pydantic_core import from_json

from batchor_engine.artifacts import keys
from batchor_engine.core.groups import group_of
from batchor_engine.core.packing import Load, Oversize, PackLimits, too_large
from batchor_engine.core.records import IngestPosition, ItemRow, Lease, NewItem, NewPart, NewSegment, RunRecord
from batchor_engine.core.segment import SegmentRow
from batchor_engine.core.text import counted
from batchor_engine.core.tokens import ratio_tokens
from batchor_engine.core.types import BatchRequestLine
from batchor_engine.errors import RunMismatchError
from batchor_engine.job import BatchJob
from batchor_engine.models import JSONValue
from batchor_engine.ports.providers import BatchProvider
from batchor_engine.runtime.feed import FedRow, feed
from batchor_engine.runtime.host import Host, RunPolicies, policies_of
from batchor_engine.runtime.render import render_row
from batchor_engine.runtime.segments import failed_row, unless_refused, write_segment
from batchor_engine.runtime.sidecar import sidecar_line
from batchor_engine.states import ItemStatus

# Asking for the time takes as long as a tenth of a row, so quick rows ask a thousand times a second and slow ones each.
# A clock that is moved by hand is out of step with the real one; the first rows of a part ask it each, too.
_ASK_EVERY_SEC = 0.001
_ROWS_ASKED_EACH = 100


@dataclass
class _Part:
    """A part while it is filled: what is in it, and where reading stands after its last row."""

    begun_at: IngestPosition
    next_index: int
    checkpoint: JSONValue
    finished: bool = False
    items: list[NewItem] = field(default_factory=list[NewItem])
    failures: list[SegmentRow] = field(default_factory=list[SegmentRow])
    load: Load = field(default_factory=Load)
    error: BaseException | None = None

    @property
    def position(self) -> IngestPosition:
        return replace(self.begun_at, next_index=self.next_index, checkpoint=self.checkpoint, finished=self.finished)

    def passed(self, fed: FedRow) -> None:
        self.next_index += 1
        self.checkpoint = fed.next_checkpoint


class Ingestion:
    """Reads one job into one run; each call of seal_next() stores one part."""

    def __init__(self, host: Host, run: RunRecord, lease: Lease, job: BatchJob[Any, Any], provider: BatchProvider):
        self._host, self._run, self._lease, self._job, self._provider = host, run, lease, job, provider
        self._policies: RunPolicies = policies_of(run)
        self._artifacts = host.artifacts(run)
        self._position = run.ingest
        self._limits = self._pack_limits()
        self._effective_limit = job.provider_config.budget_limits().effective_limit
        self._chars_per_token = self._policies.chunk.chars_per_token
        self._rows: Iterator[FedRow] = feed(run.run_id, job.items, run.ingest)
        self._held_over: tuple[FedRow, bytes, int] | None = None
        self._is_behind_stored = True

    @classmethod
    def of(cls, host: Host, run: RunRecord, lease: Lease, job: BatchJob[Any, Any], provider: BatchProvider) -> Self:
        """A new one; or, where rows are to be had only once, that of this process which stopped in their middle."""
        reading = cls(host, run, lease, job, provider)
        kept = host.unread.get(run.run_id)
        # Where the position differs, another worker has read on, from another source.
        if not isinstance(kept, cls) or (kept._run.pk, kept._position) != (run.pk, run.ingest):
            return reading
        if kept._job.items is job.items:
            # The job may be a new one around the same rows, as where a cell is run again.
            reading._rows, reading._held_over = kept._rows, kept._held_over
            del host.unread[run.run_id]
        elif isinstance(job.items, Iterator) and run.ingest.next_index:
            kind = type(kept._job.items).__name__
            raise RunMismatchError(
                f"Run {run.run_id!r} is read from another {kind}, which stands behind the "
                f"{counted(run.ingest.next_index, 'row')} that are stored: start it with that {kind} again to go on, "
                "or start a new run_id."
            )
        return reading

    def keep(self) -> None:
        """Leave an iterator that stands right behind the last stored row to whoever reads on in this process."""
        if isinstance(self._job.items, Iterator) and self._is_behind_stored and not self.finished:
            self._host.unread[self._run.run_id] = self

    @property
    def finished(self) -> bool:
        return self._position.finished

    def step(self, stop: Callable[[], bool]) -> bool:
        """Store the next part, cut short when `stop` says so; True while there is more to read.

        What the source or build_prompt raised comes out after the rows before it are stored.
        """
        self._is_behind_stored = False
        try:
            more = self._seal_next(stop)
        except _NothingWritten as nothing:
            # A slice that held no sendable row at all has no file.
            self._store(nothing.part, None)
            more = self._after(nothing.part)
        self._is_behind_stored = True
        return more

    def _seal_next(self, stop: Callable[[], bool]) -> bool:
        with _new_part_files(self._artifacts, self._run.run_id) as (part_key, lines, sidecar):
            part = self._fill(lines, sidecar, stop)
            if not part.load.items:
                raise _NothingWritten(part)
        self._store(part, part_key)
        return self._after(part)

    def _after(self, part: _Part) -> bool:
        if part.error is not None:
            raise part.error
        return not self._position.finished

    def _fill(self, lines: BinaryIO, sidecar: BinaryIO, stop: Callable[[], bool]) -> _Part:
        part = _Part(self._position, self._position.next_index, self._position.checkpoint)
        ask_at = 0.0
        for fed, line, tokens in self._rendered(part):
            weight = Load(1, len(line), tokens)
            if (problem := too_large(weight, self._limits, self._effective_limit)) is not None:
                self._fail(part, fed, weight, problem)
            elif not (filled := part.load.plus(weight)).within(self._limits):
                self._held_over = fed, line, tokens
                return part
            else:
                self._add(part, lines, sidecar, fed, line, tokens)
                part.load = filled
            if len(part.items) <= _ROWS_ASKED_EACH or monotonic() >= ask_at:
                if stop():
                    return part
                ask_at = monotonic() + _ASK_EVERY_SEC
        part.finished = part.error is None
        return part

    def _rendered(self, part: _Part) -> Generator[tuple[FedRow, bytes, int]]:
        """The next rows; what user code raises ends them, so that the rows before it are stored.

        Whatever fails while a row is written is raised instead: a file with half a row in it is no part.
        """
        if self._held_over is not None:
            held, self._held_over = self._held_over, None
            yield held
        try:
            for fed in self._rows:
                line = render_row(self._run.run_id, self._job, fed.item, self._provider, self._policies.schema)
                yield fed, line, self._tokens(line)
        except Exception as error:  # noqa: BLE001 - a source or a prompt is user code
            part.error = error

    def _tokens(self, line: bytes) -> int:
        if self._limits.max_tokens is None:
            # Bytes, not characters: never below what a tokenizer-free estimate of characters would say.
            return ratio_tokens(len(line), self._chars_per_token)
        request = cast("BatchRequestLine", from_json(line))
        return self._provider.estimate_request_tokens(request, chars_per_token=self._chars_per_token)

    def _pack_limits(self) -> PackLimits:
        chunk = self._policies.chunk
        budget = self._job.provider_config.budget_limits()
        return PackLimits(chunk.max_requests, chunk.max_file_bytes, budget.per_batch_limit)

    def _add(self, part: _Part, lines: BinaryIO, sidecar: BinaryIO, fed: FedRow, line: bytes, tokens: int) -> None:
        index, item_id, group = part.next_index, fed.item.item_id, group_of(fed.item)
        lines.write(line)
        sidecar.write(sidecar_line(index, item_id, line, fed.metadata_json))
        part.items.append(NewItem(index, item_id, part.load.bytes, len(line), tokens, group, failed=False))
        part.passed(fed)

    def _fail(self, part: _Part, fed: FedRow, weight: Load, problem: Oversize) -> None:
        """A row above a limit is stored as failed; it is never sent, not even alone."""
        index, group = part.next_index, group_of(fed.item)
        part.items.append(NewItem(index, fed.item.item_id, 0, weight.bytes, weight.tokens, group, failed=True))
        row = ItemRow(index, fed.item.item_id, ItemStatus.FAILED_PERMANENT, 0, 0, 0, None, 0, 0, weight.tokens, group)
        failed = failed_row(
            row, error_class=problem.error_class, message=problem.message, metadata_json=fed.metadata_json
        )
        part.failures.append(failed)
        part.passed(fed)

    def _store(self, part: _Part, part_key: str | None) -> None:
        failures: NewSegment | None = None
        if part.failures:
            failures = write_segment(self._artifacts, self._run.run_id, part.failures)
        if not part.items and part.error is not None:
            return
        self._host.reached("ingest.part_written")
        written = part_key, part_key and keys.sidecar_key(part_key), failures and failures.key
        with unless_refused(self._artifacts, *written):
            self._host.store.append_part(
                self._run.pk,
                self._lease,
                part=None if part_key is None else _sealed(part, part_key),
                items=part.items,
                position=part.position,
                failures=failures,
            )
        self._host.reached("ingest.part_stored")
        self._position = part.position
        self._tell(part)

    def _tell(self, part: _Part) -> None:
        if not part.items:
            return
        self._host.emit(
            self._run,
            "items_ingested",
            chunk_item_count=len(part.items),
            last_item_index=part.items[-1].item_index,
        )
        if part.failures:
            counts: dict[str, Any] = {}
            for row in part.failures:
                counts[str(row.error_class)] = counts.get(str(row.error_class), 0) + 1
            self._host.emit(self._run, "items_failed", failed_item_count=len(part.failures), error_class_counts=counts)


class _NothingWritten(Exception):  # noqa: N818 - not an error: it makes the part's empty files vanish
    def __init__(self, part: _Part) -> None:
        self.part = part
        super().__init__()


@contextmanager
def _new_part_files(artifacts: Any, run_id: str) -> Generator[tuple[str, BinaryIO, BinaryIO]]:
    """A part and its sidecar, both whole or neither: the sidecar first, because the part is what rows point to."""
    part_key = keys.request_key(run_id, uuid.uuid4().hex)
    with artifacts.open_write(part_key) as lines, artifacts.open_write(keys.sidecar_key(part_key)) as sidecar:
        yield part_key, lines, sidecar


def _sealed(part: _Part, part_key: str) -> NewPart:
    sendable = [item for item in part.items if not item.failed] if part.failures else part.items
    return NewPart(
        key=part_key,
        sidecar_key=keys.sidecar_key(part_key),
        first_index=sendable[0].item_index,
        last_index=sendable[-1].item_index,
        items=len(sendable),
        bytes=part.load.bytes,
        tokens=part.load.tokens,
    )
