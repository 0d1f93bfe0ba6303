"""How a segment row lies in Arrow columns, and how it comes back.

Law: the column names and types of one version never change; a reader refuses a version it does not know. No row is
lost to its characters: a row with lone surrogates is stored as JSON string literals and marked `escaped`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from batchor_engine.core.outcomes import LineRef
from batchor_engine.core.segment import SegmentRow
from batchor_engine.core.text import is_whole
from batchor_engine.errors import StoreError
from batchor_engine.models import RunUsage
from batchor_engine.results.arrow import ArrowArray, ArrowSchema, ArrowTable, pyarrow
from batchor_engine.results.buffers import booleans, integers, strings

VERSION = 1
VERSION_KEY = b"batchor.segment.version"

# (column, Arrow type, nullable), in file order.
_COLUMNS = (
    ("item_index", "int64", False),
    ("item_id", "string", False),
    ("group", "int64", False),
    ("final", "bool", False),
    ("status", "string", False),
    ("attempt_count", "int64", False),
    ("custom_id", "string", True),
    ("text", "large_string", True),
    ("error_class", "string", True),
    ("error_message", "large_string", True),
    ("retryable", "bool", False),
    ("raw_error_json", "large_string", True),
    ("metadata_json", "large_string", True),
    ("input_tokens", "int64", True),
    ("cached_tokens", "int64", True),
    ("output_tokens", "int64", True),
    ("reasoning_tokens", "int64", True),
    ("ref_file", "string", True),
    ("ref_offset", "int64", True),
    ("ref_length", "int64", True),
    ("escaped", "bool", False),
)
NAMES = tuple(name for name, _, _ in _COLUMNS)
# Few values or long runs of one: a dictionary makes them almost free.
DICTIONARY_COLUMNS = ("status", "error_class", "ref_file", "group", "attempt_count")
_ARRAYS: dict[str, Callable[[list[Any]], ArrowArray]] = {
    "int64": integers,
    "bool": booleans,
    "string": lambda values: strings(values, large=False),
    "large_string": lambda values: strings(values, large=True),
}
_TEXTS = frozenset(name for name, kind, _ in _COLUMNS if kind.endswith("string"))
_REF = ("ref_file", "ref_offset", "ref_length")
_NO_REF = (None, None, None)
USAGE_COLUMNS = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")
# What a result says of a row; the rest is read where raw records or costs are asked for.
ANSWER_COLUMNS = tuple(name for name in NAMES if name not in {"custom_id", *USAGE_COLUMNS, *_REF})


def segment_schema() -> ArrowSchema:
    """The Arrow schema of a segment file, with its version in the metadata."""
    pa = pyarrow()
    kinds = {"int64": pa.int64(), "bool": pa.bool_(), "string": pa.string(), "large_string": pa.large_string()}
    fields = [pa.field(name, kinds[kind], nullable=nullable) for name, kind, nullable in _COLUMNS]
    return pa.schema(fields, metadata={VERSION_KEY: str(VERSION).encode()})


def check_version(metadata: dict[bytes, bytes] | None, where: str) -> None:
    """Raise StoreError unless the file's metadata names the version this code reads."""
    found = (metadata or {}).get(VERSION_KEY)
    if found is None:
        raise StoreError(f"{where} is not a batchor result segment.")
    if found != str(VERSION).encode():
        raise StoreError(
            f"{where} has segment version {found.decode()}, this batchor reads {VERSION}: read it with the version "
            "of batchor that wrote it, or a newer one."
        )


def columns_of(rows: Sequence[SegmentRow]) -> dict[str, list[Any]]:
    """The values of rows by column."""
    columns = dict(zip(SegmentRow._fields, map(list, zip(*rows, strict=True)), strict=True))
    usage: list[RunUsage | None] = columns.pop("usage")
    refs: list[LineRef | None] = columns.pop("ref")
    for name in USAGE_COLUMNS:
        columns[name] = [None if used is None else getattr(used, name) for used in usage]
    for name, values in zip(_REF, _transposed(refs), strict=True):
        columns[name] = values
    columns["escaped"] = [False] * len(rows)
    return columns


def _transposed(refs: Sequence[LineRef | None]) -> list[list[Any]]:
    return [list(values) for values in zip(*(ref or _NO_REF for ref in refs), strict=True)]


def to_table(columns: dict[str, list[Any]]) -> ArrowTable:
    """The table of columns_of(); texts that Arrow cannot hold are escaped in `columns` too."""
    try:
        arrays = _arrays(columns)
    except UnicodeEncodeError:
        _escape(columns)
        arrays = _arrays(columns)
    return pyarrow().Table.from_arrays(arrays, schema=segment_schema())


def _arrays(columns: dict[str, list[Any]]) -> list[ArrowArray]:
    return [_ARRAYS[kind](columns[name]) for name, kind, _ in _COLUMNS]


def _escape(columns: dict[str, list[Any]]) -> None:
    texts = [columns[name] for name in sorted(_TEXTS)]
    for position in range(len(columns["escaped"])):
        values = [column[position] for column in texts]
        if all(is_whole(value) for value in values):
            continue
        columns["escaped"][position] = True
        for column in texts:
            column[position] = None if column[position] is None else json.dumps(column[position])


def to_rows(table: ArrowTable) -> Iterator[SegmentRow]:
    """The rows of a table, in its order; what a table of ANSWER_COLUMNS does not hold is None in them."""
    found = set(table.column_names)
    columns = {name: _values(table, name) if name in found else [None] * table.num_rows for name in NAMES}
    escaped: list[bool] = columns.pop("escaped")
    if any(escaped):
        _unescape(columns, escaped)
    usage = [columns.pop(name) for name in USAGE_COLUMNS]
    refs = [columns.pop(name) for name in _REF]
    nothing = [None] * table.num_rows
    columns["usage"] = _usages(*usage) if USAGE_COLUMNS[0] in found else nothing
    columns["ref"] = _refs(*refs) if _REF[0] in found else nothing
    return map(SegmentRow, *(columns[name] for name in SegmentRow._fields))


def _values(table: ArrowTable, name: str) -> list[Any]:
    column: Any = table.column(name)
    if column.null_count == len(column):
        return [None] * len(column)
    return column.to_pylist()


def _unescape(columns: dict[str, list[Any]], escaped: list[bool]) -> None:
    for name in _TEXTS:
        column = columns[name]
        for position, marked in enumerate(escaped):
            if marked and column[position] is not None:
                column[position] = json.loads(column[position])


def _usages(*columns: list[int | None]) -> list[RunUsage | None]:
    rows = zip(*columns, strict=True)
    return [None if row[0] is None else RunUsage(*(number or 0 for number in row)) for row in rows]


def _refs(files: list[Any], offsets: list[Any], lengths: list[Any]) -> list[LineRef | None]:
    rows = zip(files, offsets, lengths, strict=True)
    return [None if file is None else LineRef(file, offset, length) for file, offset, length in rows]
