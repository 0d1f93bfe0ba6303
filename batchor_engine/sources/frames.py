"""Rows of a table in memory: pandas, Arrow, anything that exports Arrow, or a sequence of dicts.

Law: the position of a row is its checkpoint and its values its identity; how the table lies in memory means nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, cast

from batchor_engine.models import JSONObject, JSONValue
from batchor_engine.ports.sources import IndexedBatchItem, RepeatedId, ResumableItemSource, SourceIdentity
from batchor_engine.sources.repeated import first_repeated
from batchor_engine.sources.rows import RowMapper, name_list
from batchor_engine.sources.values import clean_row

_BLOCK_ROWS = 1024
_Rows: TypeAlias = Sequence[Mapping[Any, Any]]
_ReadBlock: TypeAlias = Callable[[int, int], _Rows]


class DataFrameItemSource(ResumableItemSource[Any]):
    """Rows of a table as items.

    `item_id` is a column (text, integers or UUIDs) or a function of the row. `payload` is the whole row unless it names
    columns or is a function; `metadata` is empty unless it does the same. Functions get the row as plain JSON values,
    under the columns' names as texts: the column 0 is "0" there.
    `name` takes the place of a path in identity and lineage. The table must not be changed while it is used.
    """

    def __init__(
        self,
        frame: Any,
        *,
        item_id: str | int | Callable[[JSONObject], str],
        payload: Sequence[str | int] | Callable[[JSONObject], Any] | None = None,
        metadata: Sequence[str | int] | Callable[[JSONObject], JSONObject | None] | None = None,
        name: str = "dataframe",
    ) -> None:
        self._columns, self._rows, self._read = _open_table(frame)
        self._fingerprint: str | None = None
        self._repeated: RepeatedId | None = None
        self._mapper = RowMapper(
            name,
            self._id_function(item_id),
            self._selection("payload", payload) or dict,
            self._selection("metadata", metadata),
        )

    def __len__(self) -> int:
        return self._rows

    def source_identity(self) -> SourceIdentity:
        if self._fingerprint is None:
            self._fingerprint = self._digest()
        return SourceIdentity("dataframe", self._mapper.ref, self._fingerprint)

    def repeated_id(self) -> RepeatedId | None:
        self.source_identity()
        return self._repeated

    def checkpoint_is_complete(self, checkpoint: JSONValue) -> bool:
        return isinstance(checkpoint, int) and checkpoint >= self._rows

    def iter_from(self, item_index: int) -> Iterator[IndexedBatchItem[Any]]:
        if item_index < 0:
            raise ValueError(f"A position in {self._mapper.ref} is 0 or more, not {item_index}.")
        for index, row in self._clean_rows(item_index):
            yield IndexedBatchItem(index, self._mapper.item(row, index))

    def _clean_rows(self, start: int) -> Iterator[tuple[int, JSONObject]]:
        for first in range(start, self._rows, _BLOCK_ROWS):
            for index, row in enumerate(self._read(first, min(first + _BLOCK_ROWS, self._rows)), first):
                yield index, self._clean(row, index)

    def _clean(self, row: Mapping[Any, Any], index: int) -> JSONObject:
        try:
            return clean_row(row)
        except TypeError as error:
            raise self._mapper.error(index, str(error)) from error

    def _digest(self) -> str:
        """The fingerprint; every row is looked at for it, so an id that occurs twice is noticed on the way."""
        digest = hashlib.sha256(json.dumps(self._columns).encode())
        ids = self._digested(digest)
        self._repeated = first_repeated(ids)
        deque(ids, maxlen=0)
        return digest.hexdigest()

    def _digested(self, digest: Any) -> Iterator[Any]:
        """The id of each row that was added to `digest`; None where there is none, which reading it will tell."""
        for _, row in self._clean_rows(0):
            # Default separators and ASCII escapes: lone surrogates in a cell must not stop a fingerprint.
            digest.update(json.dumps(row).encode())
            digest.update(b"\n")
            try:
                one: Any = self._mapper.item_id_from_row(row)
            except Exception:  # noqa: BLE001 - user code
                one = None
            yield one

    def _id_function(self, item_id: str | int | Callable[[JSONObject], str]) -> Callable[[JSONObject], Any]:
        if callable(item_id):
            return item_id
        column = str(item_id)
        self._check("item_id", [column])
        return lambda row: _id_text(row[column])

    def _selection(
        self, argument: str, wanted: Sequence[str | int] | Callable[[JSONObject], Any] | None
    ) -> Callable[[JSONObject], Any] | None:
        if wanted is None or callable(wanted):
            return wanted
        names = [wanted] if isinstance(wanted, str) else [str(name) for name in wanted]
        self._check(argument, names)
        return lambda row: {name: row[name] for name in names}

    def _check(self, argument: str, names: Sequence[str]) -> None:
        missing = [name for name in names if name not in self._columns]
        # A sequence of dicts may have no rows, and then no columns that could be missing.
        if missing and (self._columns or self._rows):
            raise ValueError(
                f"{argument} names column {name_list(missing)}, but the table has {name_list(self._columns)}."
            )


def _id_text(value: JSONValue) -> Any:
    # Whole numbers are the usual keys of tables and have one text form; floats have several, so they are refused.
    return str(value) if type(value) is int else value


def _open_table(frame: Any) -> tuple[list[str], int, _ReadBlock]:
    if type(frame).__module__.split(".")[0] == "pandas" and hasattr(frame, "iloc") and hasattr(frame, "columns"):
        return _open_pandas(frame)
    if hasattr(frame, "__arrow_c_stream__"):
        return _open_arrow(frame)
    if isinstance(frame, Sequence) and not isinstance(frame, str | bytes):
        return _open_sequence(cast("Sequence[Any]", frame))
    raise _no_table(frame)


def _no_table(frame: Any) -> TypeError:
    return TypeError(
        "DataFrameItemSource takes a pandas DataFrame, a pyarrow Table, a table that exports Arrow (polars, DuckDB) "
        f"or a sequence of dicts, not a {type(frame).__module__}.{type(frame).__qualname__}."
    )


def _open_pandas(frame: Any) -> tuple[list[str], int, _ReadBlock]:
    columns = _unique([str(name) for name in frame.columns])
    return columns, len(frame), lambda start, stop: frame.iloc[start:stop].to_dict("records")


def _open_arrow(frame: Any) -> tuple[list[str], int, _ReadBlock]:
    import pyarrow  # pyright: ignore[reportMissingTypeStubs]

    try:
        table: Any = cast("Any", pyarrow).table(frame)
    except ValueError as error:
        # A single column, such as a Series, exports Arrow as well.
        raise _no_table(frame) from error
    columns = _unique(list(table.column_names))
    return columns, table.num_rows, lambda start, stop: table.slice(start, stop - start).to_pylist()


def _open_sequence(rows: Sequence[Any]) -> tuple[list[str], int, _ReadBlock]:
    strange = next((index for index, row in enumerate(rows) if not isinstance(row, Mapping)), None)
    if strange is not None:
        raise TypeError(f"row {strange + 1} of the sequence is a {type(rows[strange]).__name__}, not a dict.")
    columns = list(dict.fromkeys(str(name) for row in rows for name in row))
    return columns, len(rows), lambda start, stop: rows[start:stop]


def _unique(names: list[str]) -> list[str]:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"The table has more than one column named {name_list(twice)}: rename all but one.")
    return names
