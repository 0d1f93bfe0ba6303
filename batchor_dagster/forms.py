"""The forms in which rows reach a downstream asset: what its annotation asks for, and how a run is read as that."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg
from pydantic import BaseModel

from batchor_engine import EmbeddingItemResult, ItemStatus, Run, StructuredItemResult, TextItemResult, counted

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

FORMS = "list[Model], pandas.DataFrame, pyarrow.Table, BatchorResults, or dict[str, …] of these over partitions"
_TEXT = "text"
# What an IO manager that is not ours is given.
ValueForm = Literal["pandas", "arrow", "list"]
ResultItem = StructuredItemResult[Any] | EmbeddingItemResult | TextItemResult


class BatchorResults:
    """The rows of one partition, read when asked for and a few at a time; annotate an input with it for large runs.

    Example:
        >>> @dg.asset
        ... def long_ones(triage: BatchorResults) -> int:
        ...     return sum(len(answer.summary) > 80 for answer in triage)
    """

    def __init__(self, run: Run) -> None:
        self._run = run

    def __repr__(self) -> str:
        return f"BatchorResults({self.run_id!r}, {counted(len(self), 'row')})"

    def __len__(self) -> int:
        """Rows, failed ones too."""
        return self._run.summary().total_items

    def __iter__(self) -> Iterator[Any]:
        """The answers, as models, vectors or texts, of the rows that have one, in row order."""
        return answers(self._run)

    @property
    def run_id(self) -> str:
        return self._run.run_id

    def iter_results(self) -> Iterator[ResultItem]:
        """Every row with its id, status, error and answer, in row order."""
        return self._run.iter_results()

    def iter_failures(self) -> Iterator[TextItemResult]:
        """The rows that failed for good."""
        return self._run.iter_failures()

    def to_arrow(self) -> pa.Table:
        """All rows as a pyarrow.Table with typed columns."""
        return self._run.to_arrow()

    def to_pandas(self) -> pd.DataFrame:
        """All rows as a pandas.DataFrame."""
        return self._run.to_pandas()

    def failures(self) -> pa.Table:
        """The rows that failed for good as a pyarrow.Table: id, class, message, attempts, raw error, metadata."""
        return self._run.failures()

    def write_parquet(self, path: str | Path, *, rows_per_file: int | None = None) -> Path:
        """Write all rows to a Parquet file, or to a folder of files, a few rows in memory at a time."""
        return self._run.write_parquet(path, rows_per_file=rows_per_file)


@dataclass(frozen=True)
class InputForm:
    """What an annotation asks for: one value, or with `by_partition` a dict of them; `element` is a list's content."""

    kind: str
    element: Any = Any
    by_partition: bool = False

    @property
    def is_lazy(self) -> bool:
        """True when rows are read after the input was loaded."""
        return self.kind == "handle"


def form_of(annotation: Any) -> InputForm:
    """The form that an annotation asks for; without one it is a list."""
    if typing.get_origin(annotation) is dict:
        key, value = typing.get_args(annotation)
        if key is not str:
            raise _refused(annotation)
        inner = form_of(value)
        return InputForm(inner.kind, inner.element, by_partition=True)
    if annotation is Any or annotation is list:
        return InputForm("list")
    if typing.get_origin(annotation) is list:
        return InputForm("list", typing.get_args(annotation)[0])
    if annotation is BatchorResults:
        return InputForm("handle")
    kind = _frame_kind(annotation)
    if kind is None:
        raise _refused(annotation)
    return InputForm(kind)


def _frame_kind(annotation: Any) -> str | None:
    import pandas as pd
    import pyarrow as pa

    return {pd.DataFrame: "pandas", pa.Table: "arrow"}.get(annotation)


def read_rows(run: Run, form: InputForm, place: str) -> Any:
    """The rows of a run in this form; `place` names them in errors."""
    if form.kind == "list":
        _check_element(run, form.element, place)
    readers: dict[str, Callable[[Run], Any]] = {
        "list": lambda one: list(answers(one)),
        "pandas": lambda one: one.to_pandas(),
        "arrow": lambda one: one.to_arrow(),
        "handle": BatchorResults,
    }
    return readers[form.kind](run)


def read_failures(run: Run, form: InputForm, place: str) -> Any:
    """The rows that failed for good in this form; a list holds TextItemResult."""
    if form.kind == "list" and form.element not in (Any, TextItemResult):
        raise dg.Failure(f"{place} holds failed rows: annotate it list[TextItemResult]", allow_retries=False)
    readers: dict[str, Callable[[Run], Any]] = {
        "list": lambda one: list(one.iter_failures()),
        "pandas": lambda one: one.failures().to_pandas(),
        "arrow": lambda one: one.failures(),
        "handle": BatchorResults,
    }
    return readers[form.kind](run)


def answers(run: Run) -> Iterator[Any]:
    """The model instances, vectors or texts of the rows that have an answer, in row order."""
    return (_answer(result) for result in run.iter_results() if result.status is ItemStatus.COMPLETED)


def _answer(result: ResultItem) -> Any:
    match result:
        case StructuredItemResult():
            return result.output
        case EmbeddingItemResult():
            return result.embedding
        case TextItemResult():
            return result.output_text


def _check_element(run: Run, element: Any, place: str) -> None:
    """dg.Failure where a list is annotated with another model than the answers have."""
    model = run.model
    if element is Any or model is EmbeddingItemResult or (model is None and element is str):
        return
    if model is not None and issubclass(model, BaseModel) and isinstance(element, type) and _is_same(model, element):
        return
    held = _TEXT if model is None else model.__qualname__
    wanted = getattr(element, "__qualname__", str(element))
    right = "str" if model is None else held
    raise dg.Failure(f"{place} holds {held}, not {wanted}: annotate it list[{right}]", allow_retries=False)


def _is_same(model: type[BaseModel], element: type) -> bool:
    # A reloaded module makes its classes anew, under the same names.
    home = (element.__module__, element.__qualname__)
    return issubclass(model, element) or any((one.__module__, one.__qualname__) == home for one in model.__mro__)


def _refused(annotation: Any) -> dg.Failure:
    return dg.Failure(f"Rows of a batch job cannot be read as {annotation}: use {FORMS}", allow_retries=False)
