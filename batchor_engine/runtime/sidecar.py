"""The file beside a request part: for each line its item, custom id, hash and metadata, in item order.

Law: it is written with the part and never changes; metadata survives every prune of the database.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable
from contextlib import ExitStack
from itertools import groupby
from typing import BinaryIO

from pydantic_core import from_json, to_json

from batchor_engine.core.lines import id_and_body
from batchor_engine.core.records import ItemRow, PartRecord
from batchor_engine.ports.artifacts import ArtifactStore

_INDEX, _METADATA, _END = b'{"item_index":', b',"metadata":', b"}\n"


def sidecar_line(item_index: int, item_id: str, line: bytes, metadata_json: str | None) -> bytes:
    """The line beside a request line; `sha256` covers the request without its custom id, so every attempt has it."""
    custom_id, body = id_and_body(line)
    return b'{"item_index":%d,"item_id":%s,"custom_id":%s,"sha256":"%s","metadata":%s}\n' % (
        item_index, to_json(item_id), custom_id, hashlib.sha256(body).hexdigest().encode(), to_json(metadata_json),
    )  # fmt: skip


def with_metadata(
    artifacts: ArtifactStore, parts: Iterable[PartRecord], rows: Iterable[ItemRow]
) -> Generator[tuple[ItemRow, str | None]]:
    """Pair rows (in item order) with their metadata; each part's sidecar is read once, from top to bottom."""
    keys = {part.pk: part.sidecar_key for part in parts}
    for part_pk, members in groupby(rows, key=lambda row: row.part):
        if part_pk is None:
            yield from ((row, None) for row in members)
            continue
        with ExitStack() as stack:
            stream = stack.enter_context(artifacts.open_read(keys[part_pk]))
            yield from _matched(stream, members)


def _matched(lines: BinaryIO, rows: Iterable[ItemRow]) -> Generator[tuple[ItemRow, str | None]]:
    for row in rows:
        # sidecar_line() writes the index first, so that a line of another row need not be read.
        mine = _INDEX + b"%d," % row.item_index
        for line in lines:
            if line.startswith(mine):
                yield row, _metadata_in(line)
                break
        else:
            raise RuntimeError(f"the sidecar of part {row.part} does not hold item {row.item_id!r}")


def _metadata_in(line: bytes) -> str | None:
    # Metadata stands last, and within a JSON text before it the quotes of this mark would be escaped.
    return from_json(line[line.index(_METADATA) + len(_METADATA) : -len(_END)])
