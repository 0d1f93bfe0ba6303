"""Options that several commands share.

Law: an option means the same, and is spelled the same, in every command.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

DbPath: TypeAlias = Annotated[
    Path | None,
    typer.Option("--db-path", metavar="FILE", help="SQLite file of the runs. [default: ~/.batchor/default.sqlite3]"),
]
StoreUrl: TypeAlias = Annotated[
    str | None, typer.Option("--store-url", metavar="URL", help="Store of the runs by URL, instead of --db-path.")
]
ArtifactsUrl: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--artifacts-url",
        metavar="URL",
        help="Folder or s3://, gs://, az:// URL for files of new runs. [default: beside the store]",
    ),
]
RunId: TypeAlias = Annotated[str, typer.Option("--run-id", metavar="ID", help="The run.")]


def pairs(given: list[str], option: str) -> dict[str, str]:
    """NAME=VALUE texts as a dict; a text without = is wrong usage."""
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise typer.BadParameter(f"{text!r} is not NAME=VALUE", param_hint=f"'{option}'")
        found[name] = value
    return found
