"""Rows of CSV and JSONL files; Parquet has a module of its own and its name here.

Law: a JSONL line ends at \\n and nowhere else, a CSV row where its quotes say; position n is the same row every time.
"""

from __future__ import annotations

import csv
import json
from abc import abstractmethod
from collections.abc import Iterator
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, TextIO

from batchor_engine.errors import SourceRowError
from batchor_engine.models import JSONValue
from batchor_engine.ports.sources import IndexedBatchItem, ResumableItemSource, SourceIdentity
from batchor_engine.sources.content import (
    FileContent,
    check_is_utf8,
    name_encoding,
    skip_byte_order_mark,
    text_encoding,
)
from batchor_engine.sources.parquet import ParquetItemSource
from batchor_engine.sources.rows import RowMapper, RowToId, RowToMetadata, RowToPayload

__all__ = ["CsvItemSource", "JsonlItemSource", "ParquetItemSource"]

_MAX_FIELD_CHARS = 2**31 - 1
_BUFFER_BYTES = 64 * 1024
# NaN and Infinity are no JSON, but Python writes them: they mean nothing here, as in a table.
_ROW = json.JSONDecoder(parse_constant=lambda _name: None)


class _TextFileSource(ResumableItemSource[Any]):
    """A text file read row by row from the top; resuming skips rows without mapping them."""

    kind: str
    newline: str

    def __init__(
        self,
        path: str | Path,
        *,
        item_id_from_row: RowToId,
        payload_from_row: RowToPayload,
        metadata_from_row: RowToMetadata | None = None,
        encoding: str = "utf-8",
    ) -> None:
        self._content = FileContent(path)
        self.path = self._content.path
        self.encoding = encoding
        self._codec = text_encoding(encoding)
        self._mapper = RowMapper(self._content.ref, item_id_from_row, payload_from_row, metadata_from_row)
        self._row_count: tuple[tuple[int, ...], int] | None = None

    def source_identity(self) -> SourceIdentity:
        return SourceIdentity(self.kind, self._content.ref, self._content.fingerprint())

    def checkpoint_is_complete(self, checkpoint: JSONValue) -> bool:
        # Only a reader that came to the end knows where it is, and only for the content it read.
        if self._row_count is None or not isinstance(checkpoint, int):
            return False
        state, rows = self._row_count
        return checkpoint >= rows and state == self._content.state()

    def iter_from(self, item_index: int) -> Iterator[IndexedBatchItem[Any]]:
        if item_index < 0:
            raise ValueError(f"A position in {self.path} is 0 or more, not {item_index}.")
        state = self._content.state()
        if self._codec == "utf-8":
            check_is_utf8(self.path)
        index = 0
        with self.path.open(encoding=self._codec, newline=self.newline, buffering=_BUFFER_BYTES) as stream:
            try:
                skip_byte_order_mark(stream)
                for record in self._records(stream):
                    if index >= item_index:
                        yield IndexedBatchItem(index, self._mapper.item(self._row(record, index), index))
                    index += 1
            except UnicodeDecodeError as error:
                raise self._wrong_encoding(index, error) from error
        self._row_count = (state, index)

    def _wrong_encoding(self, rows: int, error: UnicodeDecodeError) -> SourceRowError:
        return SourceRowError(
            f"{self.path} is not {self.encoding} somewhere after row {rows} ({error.reason}): {name_encoding()}"
        )

    @abstractmethod
    def _records(self, stream: TextIO) -> Iterator[Any]:
        """What makes a row, as little read as it takes to find the next."""

    @abstractmethod
    def _row(self, record: Any, index: int) -> Any:
        """The row that the user's functions get."""


class CsvItemSource(_TextFileSource):
    """Rows of a CSV file with a header, each a dict of column to text; a column missing at a row's end is None."""

    kind = "csv"
    newline = ""

    def _records(self, stream: TextIO) -> Iterator[tuple[list[str], list[str]]]:
        # The limit is a global of the csv module, and its default is smaller than a long document.
        if csv.field_size_limit() < _MAX_FIELD_CHARS:
            csv.field_size_limit(_MAX_FIELD_CHARS)
        records = self._fields(stream)
        header = next(records, None)
        if header is None:
            raise ValueError(f"{self.path} is empty: a CSV file begins with a header of column names.")
        _check_header(header, self.path)
        for fields in records:
            yield header, fields

    def _fields(self, stream: TextIO) -> Iterator[list[str]]:
        index, end = -1, _End()  # -1: the header
        try:
            for fields in csv.reader(chain(stream, end)):
                if end.reached:
                    raise self._mapper.error(index, "a quoted field is still open at the end of the file")
                if fields:
                    index += 1
                    yield fields
        except csv.Error as error:
            raise self._mapper.error(index, f"it is not CSV ({error})") from error

    def _row(self, record: tuple[list[str], list[str]], index: int) -> dict[str, str | None]:
        header, fields = record
        if len(fields) > len(header):
            raise self._mapper.error(index, f"it has {len(fields)} fields, but the header has {len(header)} columns")
        return dict(zip_longest(header, fields) if len(fields) < len(header) else zip(header, fields, strict=True))


class _End:
    """No line, behind the last one; `reached` once a reader asked for more than there are, as within an open quote."""

    def __init__(self) -> None:
        self.reached = False

    def __iter__(self) -> _End:
        return self

    def __next__(self) -> str:
        self.reached = True
        raise StopIteration


def _check_header(names: list[str], path: Path) -> None:
    # Spreadsheets leave unnamed columns behind; only a named one that appears twice would lose data.
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise ValueError(f"{path} has more than one column named {', '.join(map(repr, twice))}: rename all but one.")


class JsonlItemSource(_TextFileSource):
    """Rows of a JSON Lines file, each any JSON value; blank lines are not rows, and NaN and Infinity are null."""

    kind = "jsonl"
    newline = "\n"

    def _records(self, stream: TextIO) -> Iterator[tuple[int, str]]:
        for number, line in enumerate(stream, 1):
            if line.strip(" \t\r\n"):
                yield number, line

    def _row(self, record: tuple[int, str], index: int) -> Any:
        number, line = record
        try:
            return _ROW.decode(line)
        except (ValueError, RecursionError) as error:
            raise SourceRowError(f"{self.path}:{number}: row {index + 1} is not JSON ({error}).") from error
