"""Files of rows, told apart by their names, as one source for a prompt template.

Law: columns are checked before anything is stored.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from batchor_engine.core.prompt_template import PromptTemplate, as_id, as_row
from batchor_engine.ports.sources import CheckpointedItemSource
from batchor_engine.sources.composite import CompositeItemSource
from batchor_engine.sources.content import check_is_utf8, name_encoding
from batchor_engine.sources.files import CsvItemSource, JsonlItemSource, ParquetItemSource
from batchor_engine.sources.rows import name_list

ITEM_FILE_SUFFIXES = (".csv", ".jsonl", ".parquet")


def open_item_files(
    paths: Sequence[str | Path], *, id_column: str, template: PromptTemplate, encoding: str = "utf-8"
) -> CheckpointedItemSource[Any]:
    """The rows of one .csv, .jsonl or .parquet file, or of several in the given order, ready for this template.

    OSError for a file that cannot be read, ValueError for another kind of file, an empty one, or one without a column
    that the template or the id needs. `encoding` is that of .csv and .jsonl.

    Example:
        >>> ask = PromptTemplate("Sort this ticket: {body}")
        >>> BatchJob(open_item_files(["tickets.csv"], id_column="ticket_id", template=ask), ask, config)
    """
    if not paths:
        raise ValueError("open_item_files needs at least one file.")
    sources = [_checked(Path(path), id_column, template, encoding) for path in paths]
    return sources[0] if len(sources) == 1 else CompositeItemSource(sources)


def _checked(path: Path, id_column: str, template: PromptTemplate, encoding: str) -> CheckpointedItemSource[Any]:
    wanted = list(dict.fromkeys((id_column, *template.columns)))

    def item_id(row: object) -> str:
        return as_id(as_row(row)[id_column])

    mapping: dict[str, Any] = {"item_id_from_row": item_id, "payload_from_row": template.payload}
    match path.suffix.lower():
        case ".csv":
            csv_rows = CsvItemSource(path, encoding=encoding, **mapping)
            _require(path, wanted, _csv_columns(path, encoding))
            return csv_rows
        case ".jsonl":
            _require(path, wanted, _jsonl_columns(path, encoding))
            return JsonlItemSource(path, encoding=encoding, **mapping)
        case ".parquet":
            rows = ParquetItemSource(path, columns=wanted, **mapping)
            # A template knows whole columns, where Parquet also has a name for a field within one.
            _require(path, wanted, rows.column_names())
            return rows
        case _:
            raise ValueError(f"{path} is none of {', '.join(ITEM_FILE_SUFFIXES)}")


def _require(path: Path, wanted: Sequence[str], columns: Sequence[str] | None) -> None:
    """ValueError naming what the first row or header lacks; None stands for a file without any."""
    if columns is None:
        raise ValueError(f"{path} is empty: there is nothing to run.")
    if missing := [name for name in wanted if name not in columns]:
        noun = "column" if len(missing) == 1 else "columns"
        raise ValueError(f"{path} has no {noun} {name_list(missing)}: its columns are {name_list(columns)}.")


def _csv_columns(path: Path, encoding: str) -> list[str] | None:
    # utf-8-sig is utf-8 that forgives a byte-order mark, as the source does.
    codec = "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding
    if codec == "utf-8-sig":
        check_is_utf8(path)
    try:
        with path.open(encoding=codec, newline="") as stream:
            return next((fields for fields in csv.reader(stream) if fields), None)
    except UnicodeError as error:
        raise ValueError(f"{path} is not {encoding} ({error}): {name_encoding()}") from None
    except csv.Error as error:
        raise ValueError(f"{path} is not CSV: its header cannot be read ({error}).") from None


def _jsonl_columns(path: Path, encoding: str) -> list[str] | None:
    rows = JsonlItemSource(path, item_id_from_row=lambda _: "row", payload_from_row=as_row, encoding=encoding)
    first = next(iter(rows), None)
    return None if first is None else list(cast("Mapping[str, Any]", first.payload))
