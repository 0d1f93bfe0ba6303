"""From the input that a `defs.yaml` names to the rows of a job."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import dagster as dg

from batchor_dagster.component.fields import PARTITION, InputRows
from batchor_engine import BatchJob, DataFrameItemSource, ItemSource, PromptTemplate, open_item_files

ROWS = "rows"
Execute = Callable[[dg.AssetExecutionContext, ItemSource[Any]], BatchJob[Any, Any]]


def check_files(rows: InputRows, template: PromptTemplate, home: Path) -> None:
    """An error naming the file, or its missing column, while definitions load; files of partitions are read later."""
    if not rows.files or not rows.check or rows.is_partitioned:
        return
    try:
        open_files(rows, template, home, "")
    except (OSError, ValueError) as error:
        raise dg.DagsterInvalidDefinitionError(f"input.files: {_sentence(error)}") from None


def open_files(rows: InputRows, template: PromptTemplate, home: Path, partition: str) -> ItemSource[Any]:
    """The files of one partition as one source."""
    paths = [home / file.replace(PARTITION, partition) for file in rows.files or ()]
    return open_item_files(paths, id_column=rows.id_column, template=template, encoding=rows.encoding)


def open_value(value: Any, rows: InputRows, template: PromptTemplate) -> ItemSource[Any]:
    """What an upstream asset gave as a source: a frame, a table, dicts, or the path of a file."""
    if isinstance(value, str | Path):
        return open_item_files([value], id_column=rows.id_column, template=template, encoding=rows.encoding)
    missing = [name for name in (rows.id_column, *template.columns) if name not in _columns(value)]
    if missing and len(value):
        known = ", ".join(map(repr, sorted(_columns(value)))) or "none"
        raise ValueError(f"{rows.asset} has no column {missing[0]!r}: its columns are {known}")
    return DataFrameItemSource(value, item_id=rows.id_column, payload=template.payload, name=rows.asset or ROWS)


def submit_function(
    name: str, rows: InputRows, template: PromptTemplate, home: Path, execute: Execute
) -> Callable[..., BatchJob[Any, Any]]:
    """A function as `batchor_assets` decorates it: it opens the rows and leaves the job to `execute`."""

    def from_files(context: dg.AssetExecutionContext) -> BatchJob[Any, Any]:
        partition = context.partition_key if rows.is_partitioned else ""
        try:
            return execute(context, open_files(rows, template, home, partition))
        except OSError as error:
            raise dg.Failure(_sentence(error), allow_retries=False) from None

    def from_asset(context: dg.AssetExecutionContext, rows: Any) -> BatchJob[Any, Any]:
        return execute(context, open_value(rows, given, template))

    given = rows
    made = from_asset if rows.asset else from_files
    if rows.asset:
        made.__annotations__[ROWS] = _form(rows)
    made.__name__ = name
    return made


def _form(rows: InputRows) -> Any:
    """The type that the upstream's IO manager is asked for."""
    if rows.load_as == "pandas":
        import pandas as pd

        return pd.DataFrame
    if rows.load_as == "arrow":
        import pyarrow as pa

        return pa.Table
    return Any


def _columns(value: Any) -> set[str]:
    """Names of the columns of a frame, a table or dicts; empty where the value is none of these."""
    if isinstance(value, Sequence):
        first = next(iter(value), {})
        return {str(name) for name in cast("Mapping[Any, Any]", first)} if isinstance(first, Mapping) else set()
    names = getattr(value, "column_names", None)
    return {str(name) for name in (names if names is not None else getattr(value, "columns", ()))}


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}"
    return str(error)
