"""Files as sources, and rows as prompts.

Law: of a row only what the prompt needs is kept, once; columns are checked before anything is stored.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

import typer

from batchor_engine.cli.place import CommandError
from batchor_engine.models import BatchItem, PromptParts
from batchor_engine.ports.sources import CheckpointedItemSource
from batchor_engine.sources.composite import CompositeItemSource
from batchor_engine.sources.files import CsvItemSource, JsonlItemSource, ParquetItemSource
from batchor_engine.sources.rows import name_list

Source: TypeAlias = CheckpointedItemSource[Any]
# {{ and }} are braces; {name} is a column, whatever characters its name has; any other brace is a slip.
_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]+)\}|[{}]")


@dataclass(frozen=True)
class Prompt:
    """How a row becomes a prompt: a template over its columns."""

    template: str
    columns: tuple[str, ...]
    system: str | None = None

    @classmethod
    def of_field(cls, column: str, system: str | None) -> Prompt:
        return cls("{" + column + "}", (column,), system)

    @classmethod
    def of_template(cls, template: str, system: str | None) -> Prompt:
        """A template of the command line; a brace that is neither doubled nor around a name is wrong usage."""
        slips = [found for found in _TOKEN.finditer(template) if found.group() in ("{", "}")]
        columns = tuple(dict.fromkeys(name for found in _TOKEN.finditer(template) if (name := found.group(1))))
        if slips:
            raise _wrong_template(f"the {slips[0].group()!r} at character {slips[0].start() + 1} has no partner")
        if not columns:
            raise _wrong_template("it names no {column}, so every row would ask the same")
        return cls(template, columns, system)

    def build(self, item: BatchItem[Any]) -> PromptParts:
        row = cast("dict[str, str]", item.payload)
        return PromptParts(self.render(row), system_prompt=self.system)

    def render(self, row: Mapping[str, str]) -> str:
        if len(self.columns) == 1 and self.template == "{" + self.columns[0] + "}":
            return row[self.columns[0]]
        return _TOKEN.sub(lambda found: row[found.group(1)] if found.group(1) else found.group()[0], self.template)

    def payload(self, row: object) -> dict[str, str]:
        """The columns that the prompt needs, as texts."""
        cells = as_row(row)
        return {column: as_text(cells[column]) for column in self.columns}


def _wrong_template(why: str) -> typer.BadParameter:
    return typer.BadParameter(f"{why}; write a literal brace twice", param_hint="'--prompt-template'")


def as_row(row: object) -> Mapping[str, Any]:
    if not isinstance(row, Mapping):
        raise TypeError(f"a row must be an object with named values, not {type(row).__name__}")
    return cast("Mapping[str, Any]", row)


def as_text(cell: object) -> str:
    """A cell as a prompt shows it: text as it is, nothing as nothing, lists and objects as JSON."""
    if isinstance(cell, str):
        return cell
    if cell is None:
        return ""
    return json.dumps(cell, ensure_ascii=False, default=str) if isinstance(cell, dict | list | bool) else str(cell)


def as_id(cell: object) -> str:
    """A text or a whole number as an item id; anything else has more than one spelling."""
    if isinstance(cell, str) or type(cell) is int:
        return str(cell)
    raise TypeError(f"the id is {cell!r}, but must be a text or a whole number")


def open_inputs(paths: Sequence[Path], id_field: str, prompt: Prompt, encoding: str) -> Source:
    """One file as it is, several as one source in the given order; raises where a file lacks a column."""
    sources = [_checked(path, id_field, prompt, encoding) for path in paths]
    return sources[0] if len(sources) == 1 else CompositeItemSource(sources)


def _checked(path: Path, id_field: str, prompt: Prompt, encoding: str) -> Source:
    wanted = list(dict.fromkeys((id_field, *prompt.columns)))

    def item_id(row: object) -> str:
        return as_id(as_row(row)[id_field])

    match path.suffix.lower():
        case ".csv":
            csv_rows = CsvItemSource(path, item_id_from_row=item_id, payload_from_row=prompt.payload, encoding=encoding)
            _require(path, wanted, _csv_columns(path, encoding))
            return csv_rows
        case ".jsonl":
            _require(path, wanted, _jsonl_columns(path, encoding))
            return JsonlItemSource(path, item_id_from_row=item_id, payload_from_row=prompt.payload, encoding=encoding)
        case ".parquet":
            rows = ParquetItemSource(path, item_id_from_row=item_id, payload_from_row=prompt.payload, columns=wanted)
            # Opening it is what checks its columns.
            rows.checkpoint_is_complete(rows.initial_checkpoint())
            return rows
        case _:
            raise typer.BadParameter(f"{path} is none of .csv, .jsonl, .parquet", param_hint="'--input'")


def _require(path: Path, wanted: Sequence[str], columns: Sequence[str] | None) -> None:
    """CommandError naming what the first row or header lacks; None stands for a file without any."""
    if columns is None:
        raise CommandError(f"{path} is empty: there is nothing to run.")
    if missing := [name for name in wanted if name not in columns]:
        noun = "column" if len(missing) == 1 else "columns"
        raise CommandError(f"{path} has no {noun} {name_list(missing)}: its columns are {name_list(columns)}.")


def _csv_columns(path: Path, encoding: str) -> list[str] | None:
    # utf-8-sig is utf-8 that forgives a byte-order mark, as the source does.
    codec = "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding
    try:
        with path.open(encoding=codec, newline="") as stream:
            return next((fields for fields in csv.reader(stream) if fields), None)
    except UnicodeDecodeError as error:
        raise CommandError(f"{path} is not {encoding} ({error.reason}): name its encoding by --encoding.") from None


def _jsonl_columns(path: Path, encoding: str) -> list[str] | None:
    rows = JsonlItemSource(path, item_id_from_row=lambda _: "row", payload_from_row=as_row, encoding=encoding)
    first = next(iter(rows), None)
    return None if first is None else list(cast("Mapping[str, Any]", first.payload))
