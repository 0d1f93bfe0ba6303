"""The options `--input`, `--id-field`, `--prompt-field` and `--prompt-template` as rows and their prompts.

Law: a template or a file name that can never be right is wrong usage; what a file holds is not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from batchor_engine.cli.place import CommandError
from batchor_engine.core.prompt_template import PromptTemplate
from batchor_engine.ports.sources import CheckpointedItemSource
from batchor_engine.sources.tables import ITEM_FILE_SUFFIXES, open_item_files


def prompt_of(field: str | None, template: str | None, system: str | None) -> PromptTemplate:
    """The prompt that exactly one of a column and a template gives."""
    match field, template:
        case str(), None:
            return _template("{" + field + "}", system, "'--prompt-field'")
        case None, str():
            return _template(template, system, "'--prompt-template'")
        case _:
            raise typer.BadParameter("give exactly one of them", param_hint="'--prompt-field' and '--prompt-template'")


def _template(text: str, system: str | None, option: str) -> PromptTemplate:
    try:
        return PromptTemplate(text, system)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def open_inputs(
    paths: Sequence[Path], id_field: str, template: PromptTemplate, encoding: str
) -> CheckpointedItemSource[Any]:
    """The files as one source; CommandError where one lacks a column."""
    given = Counter(path.resolve() for path in paths)
    for path in paths:
        _require_file(path)
        if given[path.resolve()] > 1:
            raise typer.BadParameter(f"{path} is given twice, and would be paid twice", param_hint="'--input'")
        if path.suffix.lower() not in ITEM_FILE_SUFFIXES:
            raise typer.BadParameter(f"{path} is none of {', '.join(ITEM_FILE_SUFFIXES)}", param_hint="'--input'")
    try:
        return open_item_files(paths, id_column=id_field, template=template, encoding=encoding)
    except ValueError as error:
        raise CommandError(str(error)) from None


def _require_file(path: Path) -> None:
    """A file by its name, which can be read again from the top whenever a run goes on."""
    if str(path) == "-" or str(path).startswith(("/dev/", "/proc/")):
        raise typer.BadParameter(
            f"{path} cannot be read a second time, as a run that goes on must: save it to a file first",
            param_hint="'--input'",
        )
    if path.is_dir():
        raise CommandError(f"{path} is a folder: name its files, each by an --input of its own.")
