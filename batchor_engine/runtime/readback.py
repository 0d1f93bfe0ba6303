"""Reading results back: by item order, by terminal sequence, with the raw record where it is still kept.

Law: reading needs no key, no provider and no lease, and holds a few rows at a time. Only a structured output needs the
model's class.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from typing import BinaryIO

from batchor_engine.core.groups import own_row
from batchor_engine.core.outcomes import LineRef
from batchor_engine.core.records import BatchRecord, RunRecord, SegmentRecord
from batchor_engine.core.segment import SegmentRow
from batchor_engine.models import BatchResultItem, Form, JSONObject, TerminalResultsPage, TextItemResult
from batchor_engine.ports.artifacts import ArtifactStore
from batchor_engine.providers.wire import read_object
from batchor_engine.results.columns import ANSWER_COLUMNS
from batchor_engine.results.items import result_of, text_result
from batchor_engine.results.merge import MergeInput, merge_by_index
from batchor_engine.results.segments import read_group, read_rows
from batchor_engine.runtime.host import Host

# A run may have more raw files than a process may have open, or than a disk has room for copies of.
_OPEN_RAW_FILES = 16
# So many records of a file are read one by one, which suits a page; after that the whole file is worth having here.
_SINGLE_READS = 32


def iter_results(
    host: Host, run: RunRecord, form: Form, *, raw: bool, group: int | None = None
) -> Iterator[BatchResultItem]:
    """Final results in item order; with `raw`, each with the provider's record where it is kept.

    With `group`, those of its rows, under their own ids.
    """
    segments = [segment for segment in host.store.segments(run.pk) if segment.totals.final_rows]
    if not raw:
        bare = [
            MergeInput(segment.totals.first_index, lambda one=segment: _rows(host, run, one, group, ANSWER_COLUMNS))
            for segment in segments
        ]
        yield from (result_of(row, form) for row in merge_by_index(bare))
        return
    with _RawFiles(host, run, raw) as files:

        def rows_of(segment: SegmentRecord) -> Iterator[tuple[SegmentRow, BatchResultItem]]:
            reader = files.reader(segment)
            return ((row, result_of(row, form, reader)) for row in _rows(host, run, segment, group))

        # The merge orders rows; a result needs its segment's raw file, so it is made before rows are mixed.
        made: dict[int, BatchResultItem] = {}

        def open_segment(segment: SegmentRecord) -> Iterator[SegmentRow]:
            for row, result in rows_of(segment):
                made[row.item_index] = result
                yield row

        inputs = [MergeInput(segment.totals.first_index, lambda one=segment: open_segment(one)) for segment in segments]
        for row in merge_by_index(inputs):
            yield made.pop(row.item_index)


def read_page(
    host: Host, run: RunRecord, form: Form, *, after_sequence: int, limit: int | None, group: int | None = None
) -> TerminalResultsPage:
    """Results after a cursor in the order in which they became terminal."""
    pairs = list(iter_terminal(host, run, form, after_sequence=after_sequence, limit=limit, group=group))
    cursor = pairs[-1][0] if pairs else after_sequence
    return TerminalResultsPage(run.run_id, [result for _, result in pairs], cursor)


def iter_terminal(
    host: Host, run: RunRecord, form: Form, *, after_sequence: int, limit: int | None, group: int | None = None
) -> Iterator[tuple[int, BatchResultItem]]:
    """Sequence and result, after a cursor; a row that retry_failed() superseded has no sequence any more.

    With `group`, those of its rows, under their own ids; the sequences are the run's.
    """
    check_page(after_sequence, limit)
    return islice(_terminal(host, run, form, after_sequence, group), limit)


def iter_failures(host: Host, run: RunRecord, *, group: int | None = None) -> Iterator[SegmentRow]:
    """The rows that failed for good, in item order; opens only segments that hold one."""
    inputs = [
        MergeInput(segment.totals.first_index, lambda one=segment: _failed_rows(host, run, one, group))
        for segment in host.store.segments(run.pk)
        if segment.totals.failed
    ]
    return merge_by_index(inputs)


def iter_failed_results(host: Host, run: RunRecord, *, group: int | None = None) -> Iterator[TextItemResult]:
    """The rows of iter_failures() as results; none of them has an answer, so no model is needed."""
    return (text_result(row) for row in iter_failures(host, run, group=group))


def failure_counts(host: Host, run: RunRecord, *, group: int | None = None) -> dict[str, int]:
    """Items that failed for good, by class; opens segments only for a group, or where rows were superseded."""
    counts: Counter[str] = Counter()
    for segment in host.store.segments(run.pk):
        if segment.superseded or (group is not None and segment.totals.failed):
            failed = _failed_rows(host, run, segment, group)
            counts.update(row.error_class for row in failed if row.error_class)
        elif group is None:
            counts.update(segment.totals.failures)
    return dict(counts)


def check_page(after_sequence: int, limit: int | None) -> None:
    if after_sequence < 0:
        raise ValueError(f"after_sequence must not be negative, but is {after_sequence}")
    if limit is not None and limit < 0:
        raise ValueError(f"limit must not be negative, but is {limit}")


def _terminal(
    host: Host, run: RunRecord, form: Form, after_sequence: int, group: int | None
) -> Generator[tuple[int, BatchResultItem]]:
    with _RawFiles(host, run, raw=True) as files:
        for segment in host.store.segments(run.pk, after_sequence=after_sequence):
            reader = files.reader(segment)
            skip = max(0, after_sequence - segment.first_sequence + 1)
            for sequence, row in _numbered(host, run, segment, skip):
                if group is None:
                    yield sequence, result_of(row, form, reader)
                elif row.group == group:
                    yield sequence, result_of(own_row(row), form, reader)


def _failed_rows(host: Host, run: RunRecord, segment: SegmentRecord, group: int | None) -> Iterator[SegmentRow]:
    return (row for row in _rows(host, run, segment, group) if row.error_class is not None)


def _rows(
    host: Host, run: RunRecord, segment: SegmentRecord, group: int | None, columns: Sequence[str] | None = None
) -> Iterator[SegmentRow]:
    if group is None:
        return (row for _, row in _numbered(host, run, segment, 0, columns))
    return (own_row(row) for row in _of_group(host, run, segment, group))


def _of_group(host: Host, run: RunRecord, segment: SegmentRecord, group: int) -> Generator[SegmentRow]:
    gone = _gone(host, run, segment)
    with host.artifacts(run).reading(segment.key) as file:
        yield from (row for row in read_group(file, group) if row.item_index not in gone)


def _gone(host: Host, run: RunRecord, segment: SegmentRecord) -> set[int]:
    return host.store.superseded_indexes(run.pk, segment) if segment.superseded else set()


def _numbered(
    host: Host, run: RunRecord, segment: SegmentRecord, skip: int, columns: Sequence[str] | None = None
) -> Generator[tuple[int, SegmentRow]]:
    gone = _gone(host, run, segment)
    with host.artifacts(run).reading(segment.key) as file:
        rows = read_rows(file, final_only=True, skip=skip, columns=columns)
        for sequence, row in enumerate(rows, start=segment.first_sequence + skip):
            if row.item_index not in gone:
                yield sequence, row


class _RawFiles:
    """Raw files of the batches whose rows are being read; a bounded number of them is open."""

    def __init__(self, host: Host, run: RunRecord, raw: bool) -> None:
        self._host, self._run = host, run
        self._batches: dict[int, BatchRecord] = {}
        self._open: OrderedDict[str, _RawFile] = OrderedDict()
        self._wanted = raw

    def __enter__(self) -> _RawFiles:
        if self._wanted:
            self._batches = {batch.pk: batch for batch in self._host.store.batches(run_pk=self._run.pk)}
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            self._close_oldest()

    def reader(self, segment: SegmentRecord) -> Callable[[LineRef], JSONObject | None] | None:
        """How to load a raw record of this segment; None where no raw file is kept."""
        batch = self._batches.get(segment.batch or 0)
        if batch is None or not (batch.output_key or batch.error_key):
            return None

        def read(ref: LineRef) -> JSONObject | None:
            key = batch.output_key if ref.file == "output" else batch.error_key
            line = self._file(key).read(ref) if key else None
            # As the provider adapter read it: a line that is no strict JSON still has an answer.
            return None if line is None else read_object(line)

        return read

    def _file(self, key: str) -> _RawFile:
        if key not in self._open:
            if len(self._open) >= _OPEN_RAW_FILES:
                self._close_oldest()
            self._open[key] = _RawFile(self._host.artifacts(self._run), key)
        self._open.move_to_end(key)
        return self._open[key]

    def _close_oldest(self) -> None:
        _, file = self._open.popitem(last=False)
        file.close()


class _RawFile:
    """One raw file, whose first records are fetched alone and the others from a local copy."""

    def __init__(self, artifacts: ArtifactStore, key: str) -> None:
        self._artifacts, self._key = artifacts, key
        self._stack = ExitStack()
        self._stream: BinaryIO | None = None
        self._reads = 0
        self._gone = False

    def read(self, ref: LineRef) -> bytes | None:
        """The bytes of a record; None where the file was removed by hand: text and answer are in the segment."""
        if self._gone:
            return None
        self._reads += 1
        try:
            if self._reads <= _SINGLE_READS:
                return self._artifacts.read_range(self._key, ref.offset, ref.length)
            stream = self._opened()
        except FileNotFoundError:
            self._gone = True
            return None
        stream.seek(ref.offset)
        return stream.read(ref.length)

    def _opened(self) -> BinaryIO:
        if self._stream is None:
            path = self._stack.enter_context(self._artifacts.local_file(self._key))
            self._stream = self._stack.enter_context(path.open("rb"))
        return self._stream

    def close(self) -> None:
        self._stack.close()
