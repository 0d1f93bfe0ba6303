"""Results as typed tables: Arrow and pandas, with a schema that the model fixes.

Law: the schema of a job's results is the same whatever came back, even nothing; a failed row has nulls in the model's
columns and its reason in ours.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from batchor_engine.models import BatchResultItem, Form, StructuredItemResult
from batchor_engine.results.arrow import ArrowBatch, ArrowSchema, ArrowTable, ArrowType, pyarrow
from batchor_engine.results.buffers import array_of
from batchor_engine.results.shapes import (
    Encoder,
    JsonText,
    ListOf,
    Scalar,
    Shape,
    StructOf,
    encoder,
    json_text,
    model_fields,
    model_shape,
)

if TYPE_CHECKING:
    import pandas as pd  # pyright: ignore[reportMissingTypeStubs]

_OURS = (
    ("item_id", Scalar("string"), False, "The id of the row, as the source gave it."),
    ("status", Scalar("string"), False, "completed or failed_permanent."),
    ("attempt_count", Scalar("int64"), False, "Attempts that counted, the last one included."),
    ("error_class", Scalar("string"), True, "Why the row failed, as a stable name."),
    ("error_message", Scalar("string"), True, "Why the row failed, in words."),
)
_TEXT = ("output_text", Scalar("string"), True, "The answer.")
_EMBEDDING = ("embedding", ListOf(Scalar("float32")), True, "The vector of the row's text.")
_WHOLE = ("output", True, "The answer as a whole.")
_METADATA = ("metadata", JsonText(), False, "What the source and the engine noted about the row.")
_RESERVED = frozenset({*(name for name, *_ in _OURS), "metadata"})
_PREFIX = "output_"
# As objects, as plain values and as columns, an answer is held some ten times.
_BATCH_CHARS = 2**20
_NO_FIT = (OverflowError, ValueError, TypeError)
_SHOWN_CHARS = 80
_WAY_OUT = (
    "Every answer of the run is still to be had: as objects by iter_results(), as JSON lines by "
    "export_terminal_results() or `batchor results`. For a table, declare the field with a type that holds it, for "
    "instance str or Decimal for very large numbers."
)


@dataclass(frozen=True)
class ColumnDescription:
    """One column of a result table; `nullable` is about completed rows: a failed one has null in every model column."""

    name: str
    type: str
    nullable: bool
    description: str | None


@dataclass(frozen=True)
class _Column:
    """A column of ours, or of the model where `field` is its name there ("" for the whole answer)."""

    name: str
    shape: Shape
    nullable: bool
    description: str | None
    field: str | None = None


def _columns(form: Form) -> list[_Column]:
    ours = [_Column(*column) for column in _OURS]
    if form is None:
        middle = [_Column(*_TEXT)]
    else:
        middle = _model_columns(form) if issubclass(form, BaseModel) else [_Column(*_EMBEDDING)]
    return [*ours, *middle, _Column(*_METADATA)]


def _model_columns(model: type[BaseModel]) -> list[_Column]:
    fields = model_fields(model)
    if not fields:
        name, nullable, description = _WHOLE
        return [_Column(name, model_shape(model), nullable, description, "")]
    names = _free_names([field.name for field in fields])
    return [
        _Column(name, field.shape, field.nullable, field.description, field.name)
        for name, field in zip(names, fields, strict=True)
    ]


def _free_names(names: Sequence[str]) -> list[str]:
    taken = _RESERVED | set(names)
    return [_free_name(name, taken) if name in _RESERVED else name for name in names]


def _free_name(name: str, taken: set[str] | frozenset[str]) -> str:
    while name in taken:
        name = _PREFIX + name
    return name


def column_descriptions(form: Form) -> list[ColumnDescription]:
    """The columns of a job's result table for people; imports neither pyarrow nor pandas."""
    return [ColumnDescription(one.name, str(one.shape), one.nullable, one.description) for one in _columns(form)]


def arrow_schema(form: Form) -> ArrowSchema:
    """The Arrow schema of a result table: our columns, the answer (a model's fields, a text, a vector), `metadata`."""
    pa = pyarrow()
    ours = {name for name, _, nullable, _ in _OURS if not nullable} | {"metadata"}
    return pa.schema(
        [pa.field(one.name, _arrow_type(one.shape), nullable=one.name not in ours) for one in _columns(form)]
    )


def _arrow_type(shape: Shape) -> ArrowType:
    pa = pyarrow()
    match shape:
        case Scalar(name):
            return _scalar_type(name)
        case ListOf(item):
            return pa.list_(_arrow_type(item))
        case StructOf(fields):
            return pa.struct([(name, _arrow_type(field)) for name, field in fields])
        case JsonText():
            return pa.string()


def _scalar_type(name: str) -> ArrowType:
    pa = pyarrow()
    match name:
        case "bool":
            return pa.bool_()
        case "date":
            return pa.date32()
        case "timestamp":
            return pa.timestamp("us", tz="UTC")
        case _:
            return getattr(pa, name)()


def record_batches(
    results: Iterable[BatchResultItem], form: Form, *, rows_per_batch: int = 1024
) -> Iterator[ArrowBatch]:
    """Results as record batches of one schema; holds `rows_per_batch` rows at a time, fewer where answers are long."""
    if rows_per_batch <= 0:
        raise ValueError(f"rows_per_batch must be greater than 0, not {rows_per_batch}")
    schema = arrow_schema(form)
    builder = _Builder(_columns(form), schema)
    rows = iter(results)
    # Named by nobody here, rows are gone before the next are read.
    while (batch := builder.batch(list(_stretch(rows, rows_per_batch)))).num_rows:
        yield batch


def _stretch(rows: Iterator[BatchResultItem], most: int) -> Iterator[BatchResultItem]:
    """The next `most` rows, or those up to the one with which their answers are long enough."""
    chars = 0
    for row in islice(rows, most):
        yield row
        chars += len(row.output_text or "")
        if chars >= _BATCH_CHARS:
            return


def to_arrow(results: Iterable[BatchResultItem], form: Form, *, rows_per_batch: int = 1024) -> ArrowTable:
    """All results as one Arrow table."""
    batches = record_batches(results, form, rows_per_batch=rows_per_batch)
    return pyarrow().Table.from_batches(batches, schema=arrow_schema(form))


def to_pandas(table: ArrowTable) -> pd.DataFrame:
    """A result table as a DataFrame: integers and booleans keep their nulls (Int64, boolean), times are UTC."""
    import pandas as pd  # pyright: ignore[reportMissingTypeStubs]

    pa = pyarrow()
    nullable = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
    frame: Any = table.to_pandas(types_mapper=nullable.get)
    return frame.astype({"attempt_count": "int64"})


class _Builder:
    """Builds batches of one schema; knows once and for all how each column comes out of a result."""

    def __init__(self, columns: Sequence[_Column], schema: ArrowSchema) -> None:
        self._columns = columns
        self._schema = schema
        self._encoders: dict[str, Encoder | None] = {one.name: encoder(one.shape) for one in columns}

    def batch(self, results: Sequence[BatchResultItem]) -> ArrowBatch:
        outputs = [_dumped(result) for result in results]
        arrays = [self._array(column, results, outputs) for column in self._columns]
        return pyarrow().RecordBatch.from_arrays(arrays, schema=self._schema)

    def _array(self, column: _Column, results: Sequence[BatchResultItem], outputs: Sequence[Any]) -> Any:
        values = _own_values(column.name, results) if column.field is None else _field_values(column.field, outputs)
        if column.field is None and column.name == _EMBEDDING[0]:
            return _vectors(values)
        try:
            return self._cells(column, values)
        except _NO_FIT as error:
            raise ValueError(
                f"column {column.name!r} of type {column.shape} cannot hold {self._misfit(column, results, values)}: "
                f"{error}. {_WAY_OUT}"
            ) from error

    def _cells(self, column: _Column, values: Sequence[Any]) -> Any:
        encode = self._encoders[column.name]
        built = values if encode is None else [encode(value) for value in values]
        return array_of(self._schema.field(column.name).type, built)

    def _misfit(self, column: _Column, results: Sequence[BatchResultItem], values: Sequence[Any]) -> str:
        """The first cell that does not fit, in words."""
        for result, value in zip(results, values, strict=True):
            try:
                self._cells(column, [value])
            except _NO_FIT:
                return f"the answer of item {result.item_id!r}, {_shortened(json_text(value))}"
        # Each fits alone, as texts of more than 2 GiB in all do.
        return "these answers together"


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"


def _dumped(result: BatchResultItem) -> Any:
    if not isinstance(result, StructuredItemResult) or result.output is None:
        return None
    output: BaseModel = result.output
    return output.model_dump(mode="json", by_alias=False)


def _field_values(field: str, outputs: Sequence[Any]) -> list[Any]:
    if not field:
        return list(outputs)
    return [None if output is None else output.get(field) for output in outputs]


def _vectors(vectors: Sequence[array[float] | None]) -> Any:
    """Vectors as one list column, their bytes copied as they are."""
    pa = pyarrow()
    held, starts, end = bytearray(), list[int | None](), 0
    for vector in vectors:
        starts.append(None if vector is None else end)
        if vector is not None:
            held += memoryview(vector).cast("B")
            end += len(vector)
    floats = pa.Array.from_buffers(pa.float32(), end, [None, pa.py_buffer(held)])
    return pa.ListArray.from_arrays(pa.array([*starts, end], pa.int32()), floats)


def _own_values(name: str, results: Sequence[BatchResultItem]) -> list[Any]:
    match name:
        case "status":
            return [result.status.value for result in results]
        case "error_class":
            return [result.error and result.error.error_class for result in results]
        case "error_message":
            return [result.error and result.error.message for result in results]
        case _:
            return [getattr(result, name) for result in results]
