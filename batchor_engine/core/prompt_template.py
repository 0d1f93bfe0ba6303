"""A prompt as text with {column} placeholders.

Law: a template is checked before a row is read; of a row only the columns that the prompt needs are kept, as texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from batchor_engine.models import BatchItem, PromptParts

# {{ and }} are braces; {name} is a column, whatever characters its name has; any other brace is a slip.
_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]+)\}|[{}]")


@dataclass(frozen=True)
class PromptTemplate:
    """The same question about every row: `{column}` stands for the row's cell, a doubled brace for a brace.

    An instance is a job's `build_prompt` for items whose payload is `payload(row)`, or any mapping of texts. ValueError
    for a brace without partner, or for a template that names no column.

    Example:
        >>> ask = PromptTemplate("Sort this ticket: {body}")
        >>> ask.columns
        ('body',)
    """

    template: str
    system_prompt: str | None = None

    def __post_init__(self) -> None:
        slips = [found for found in _TOKEN.finditer(self.template) if found.group() in ("{", "}")]
        if slips:
            raise ValueError(
                f"the {slips[0].group()!r} at character {slips[0].start() + 1} has no partner; write a literal brace "
                "twice"
            )
        if not self.columns:
            raise ValueError("it names no {column}, so every row would ask the same; write a literal brace twice")

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The named columns, each once, in order."""
        return tuple(dict.fromkeys(name for found in _TOKEN.finditer(self.template) if (name := found.group(1))))

    def __call__(self, item: BatchItem[Any]) -> PromptParts:
        return PromptParts(self.render(item.payload), system_prompt=self.system_prompt)

    def render(self, cells: Mapping[str, str]) -> str:
        """The prompt for one row's texts."""
        if self.template == "{" + self.columns[0] + "}":
            return cells[self.columns[0]]
        return _TOKEN.sub(lambda found: cells[found.group(1)] if found.group(1) else found.group()[0], self.template)

    def payload(self, row: object) -> dict[str, str]:
        """The columns that the prompt needs, as texts."""
        cells = as_row(row)
        return {column: as_text(cells[column]) for column in self.columns}


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
    if isinstance(cell, bytes):
        raise TypeError("the cell holds bytes, and a prompt is text")
    return json.dumps(cell, ensure_ascii=False, default=str) if isinstance(cell, dict | list | bool) else str(cell)


def as_id(cell: object) -> str:
    """A text or a whole number as an item id; anything else has more than one spelling."""
    if isinstance(cell, str) or type(cell) is int:
        return str(cell)
    raise TypeError(f"the id is {cell!r}, but must be a text or a whole number")
