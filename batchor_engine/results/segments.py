"""Result segments: Parquet files of collected rows, written once, read row group by row group.

Law: rows stand in item order, a row group is at most about 4 MB, and a reader holds one row group and no open file
between two of them.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import chain, compress, islice
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeAlias

from batchor_engine.core.segment import SegmentRow, SegmentTotals
from batchor_engine.models import RunUsage
from batchor_engine.results.arrow import ArrowBatch, ArrowTable, compute, parquet
from batchor_engine.results.columns import (
    DICTIONARY_COLUMNS,
    USAGE_COLUMNS,
    check_version,
    columns_of,
    segment_schema,
    to_rows,
    to_table,
)
from batchor_engine.states import ItemStatus

# A path, or how to open a file that is elsewhere.
SegmentFile: TypeAlias = str | Path | Callable[[], AbstractContextManager[BinaryIO]]

MAX_GROUP_BYTES = 4 * 1024 * 1024
_FIXED_ROW_BYTES = 120
_MAX_GROUP_ROWS = 16_384
_SLICE_ROWS = 1024
_FINAL_ROWS_KEY = "batchor.segment.final_rows"


class SegmentWriter:
    """Writes one segment file; `totals` is there once the context has ended.

    While a row group is compressed, which needs no interpreter, a thread beside lets the caller read the next rows.
    """

    def __init__(self, path: str | Path) -> None:
        # pyarrow takes some relative paths for URLs.
        self._path = os.path.abspath(path)
        self._file: Any = None
        # Its thread begins with the first group that is followed by another one.
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="batchor-segment")
        self._under_way: Future[None] | None = None
        self._rows: list[SegmentRow] = []
        self._bytes = 0
        self._last_index = -1
        self._final_rows: list[int] = []
        self._tally = _Tally()
        self._totals: SegmentTotals | None = None

    def __enter__(self) -> Self:
        self._file = parquet().ParquetWriter(
            self._path,
            segment_schema(),
            compression="zstd",
            compression_level=1,
            use_dictionary=list(DICTIONARY_COLUMNS),
            write_statistics=["item_index", "final"],
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            self._beside.shutdown()
            if self._file is not None:
                self._file.close()

    def append(self, row: SegmentRow) -> None:
        """Add a row; ValueError where it stands before the last one in item order."""
        if row.item_index < self._last_index:
            raise ValueError(f"Item {row.item_index} comes after item {self._last_index} in a segment.")
        size = _size(row)
        if self._rows and (self._bytes + size > MAX_GROUP_BYTES or len(self._rows) >= _MAX_GROUP_ROWS):
            self._begin_group()
        self._rows.append(row)
        self._last_index = row.item_index
        self._bytes += size

    def extend(self, rows: Iterable[SegmentRow]) -> None:
        for row in rows:
            self.append(row)

    def close(self) -> SegmentTotals:
        """Write what is left and the footer; a second call only returns the totals."""
        if self._totals is None:
            self._wait()
            if self._rows:
                self._write(self._table())
            self._file.add_key_value_metadata({_FINAL_ROWS_KEY: json.dumps(self._final_rows)})
            self._file.close()
            self._totals = self._tally.totals()
        return self._totals

    @property
    def totals(self) -> SegmentTotals:
        """What the segment adds up to; RuntimeError before it is closed."""
        if self._totals is None:
            raise RuntimeError("A segment has totals only once it is closed.")
        return self._totals

    def _begin_group(self) -> None:
        table = self._table()
        self._wait()
        try:
            self._under_way = self._beside.submit(self._write, table)
        except RuntimeError:
            # The main thread has ended, and no pool takes work any more; this thread may go on.
            self._write(table)

    def _wait(self) -> None:
        """Until no group is being written; raises what writing the last one raised."""
        if self._under_way is not None:
            self._under_way.result()

    def _table(self) -> ArrowTable:
        """The rows since the last group, counted."""
        columns = columns_of(self._rows)
        self._rows, self._bytes = [], 0
        self._tally.add(columns)
        self._final_rows.append(sum(columns["final"]))
        return to_table(columns)

    def _write(self, table: ArrowTable) -> None:
        self._file.write_table(table, row_group_size=table.num_rows)


class _Tally:
    """Running totals of a segment."""

    def __init__(self) -> None:
        self._first_index, self._last_index = 0, -1
        self._rows = 0
        self._ends: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._usage = RunUsage()

    def add(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Count the rows of one group, of which there is at least one."""
        indexes, final = columns["item_index"], columns["final"]
        if not self._rows:
            self._first_index = indexes[0]
        self._last_index = indexes[-1]
        self._rows += len(indexes)
        self._usage += RunUsage(*(sum(filter(None, columns[name])) for name in USAGE_COLUMNS))
        ends = list(compress(columns["status"], final))
        self._ends.update(ends)
        errors = compress(columns["error_class"], final)
        failed = (error for error, end in zip(errors, ends, strict=True) if end == ItemStatus.FAILED_PERMANENT)
        self._failures.update(error or "" for error in failed)

    def totals(self) -> SegmentTotals:
        return SegmentTotals(
            rows=self._rows,
            completed=self._ends[ItemStatus.COMPLETED],
            failed=self._ends[ItemStatus.FAILED_PERMANENT],
            first_index=self._first_index,
            last_index=self._last_index,
            usage=self._usage,
            failures=dict(self._failures),
        )


def _size(row: SegmentRow) -> int:
    size = _FIXED_ROW_BYTES + 2 * _bytes_at_most(row.item_id) + _bytes_at_most(row.text or "")
    for text in (row.metadata_json, row.error_message, row.raw_error_json):
        if text is not None:
            size += _bytes_at_most(text)
    return size


def _bytes_at_most(text: str) -> int:
    # isascii() reads one flag; encoding every text only to measure it would cost more than writing it. A lone
    # surrogate takes six bytes as an escape, which this leaves out.
    return len(text) if text.isascii() else 4 * len(text)


def read_rows(
    file: SegmentFile,
    *,
    final_only: bool = True,
    skip: int = 0,
    limit: int | None = None,
    columns: Sequence[str] | None = None,
) -> Iterator[SegmentRow]:
    """Rows in item order from position `skip` on, at most `limit`; positions count final rows unless told otherwise.

    `columns` may be ANSWER_COLUMNS, which read faster; what they leave out is None in the rows.
    """
    counts = _row_counts(file, final_only=final_only)
    wanted, skip = _groups_after(counts, skip)
    rows = chain.from_iterable(_rows_of(_read_table(file, group, columns)) for group in wanted)
    kept = (row for row in rows if row.final) if final_only else rows
    return islice(kept, skip, None if limit is None else skip + limit)


def read_group(file: SegmentFile, group: int) -> Iterator[SegmentRow]:
    """The final rows of one group of rows; row groups of the file that hold none of them are not read."""
    with _open(file) as opened:
        column = opened.schema_arrow.get_field_index("group")
        groups = range(opened.metadata.num_row_groups)
        ranges = [opened.metadata.row_group(one).column(column).statistics for one in groups]
    for number, values in enumerate(ranges):
        if values is None or not values.has_min_max or values.min <= group <= values.max:
            yield from (row for row in _rows_of(_read_table(file, number)) if row.final and row.group == group)


def _groups_after(counts: Sequence[int], skip: int) -> tuple[list[int], int]:
    """The row groups that hold a row after the first `skip`, and how many rows of the first of them to skip."""
    for group, count in enumerate(counts):
        if skip < count:
            return list(range(group, len(counts))), skip
        skip -= count
    return [], 0


def _read_table(file: SegmentFile, group: int, columns: Sequence[str] | None = None) -> ArrowTable:
    with _open(file) as opened:
        return opened.read_row_group(group, columns=None if columns is None else list(columns), use_threads=False)


def _rows_of(table: ArrowTable) -> Iterator[SegmentRow]:
    # Python rows are several times larger than Arrow's, so only a slice of them exists at a time.
    return chain.from_iterable(
        to_rows(table.slice(start, _SLICE_ROWS)) for start in range(0, table.num_rows, _SLICE_ROWS)
    )


def _row_counts(file: SegmentFile, *, final_only: bool) -> list[int]:
    with _open(file) as opened:
        footer = opened.metadata
        if final_only:
            return json.loads(footer.metadata[_FINAL_ROWS_KEY.encode()])
        return [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]


def index_range(file: SegmentFile) -> tuple[int, int]:
    """First and last item index of a segment file, from its footer; (0, -1) for an empty one."""
    with _open(file) as opened:
        footer = opened.metadata
        if footer.num_row_groups == 0:
            return 0, -1
        first = footer.row_group(0).column(0).statistics.min
        return first, footer.row_group(footer.num_row_groups - 1).column(0).statistics.max


def iter_record_batches(file: SegmentFile, columns: Sequence[str] | None = None) -> Iterator[ArrowBatch]:
    """The stored columns as they lie in the file, a row group at a time; `escaped` rows hold JSON string literals."""
    with _open(file) as opened:
        groups = range(opened.metadata.num_row_groups)
    for group in groups:
        yield from _read_table(file, group, columns).to_batches()


def group_record_batches(file: SegmentFile, columns: Sequence[str], group: int) -> Iterator[ArrowBatch]:
    """These columns of the rows of one group of rows, final or not."""
    for batch in iter_record_batches(file, ("group", *columns)):
        yield batch.filter(compute().equal(batch.column("group"), group))


@contextmanager
def _open(file: SegmentFile) -> Generator[Any]:
    with ExitStack() as stack:
        is_path = isinstance(file, str | Path)
        source = os.path.abspath(file) if is_path else stack.enter_context(file())
        opened = stack.enter_context(parquet().ParquetFile(source))
        check_version(opened.metadata.metadata, str(file) if is_path else "a segment")
        yield opened
