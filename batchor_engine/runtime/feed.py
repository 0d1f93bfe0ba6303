"""Rows with the checkpoint after each, from whatever a job calls its items.

Law: a resumed feed yields exactly the rows after the checkpoint, or raises before the first one.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

from pydantic_core import PydanticSerializationError, to_json

from batchor_engine.core.records import IngestPosition
from batchor_engine.core.text import counted, is_whole
from batchor_engine.errors import DuplicateItemError, RunMismatchError
from batchor_engine.models import LINEAGE_KEY, BatchItem, JSONObject, JSONValue
from batchor_engine.ports.sources import BatchItems, CheckpointedItemSource
from batchor_engine.sources.once import begin
from batchor_engine.sources.repeated import repeated_id

PLAIN_KIND = "iterable"
# json.dumps would make a new encoder for every row.
_READABLE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_ESCAPED = json.JSONEncoder(separators=(",", ":"))
_NO_LINEAGE: JSONObject = {}
_NO_ROWS: JSONValue = {"count": 0, "digest": ""}


class FedRow(NamedTuple):
    """An item that is safe to store, its metadata as JSON text, and the checkpoint after it."""

    item: BatchItem[Any]
    metadata_json: str | None
    next_checkpoint: JSONValue


def first_position(items: BatchItems[Any]) -> IngestPosition:
    """Where reading `items` begins; reads the content of a checkpointed source for its fingerprint."""
    if isinstance(items, CheckpointedItemSource):
        identity = items.source_identity()
        return IngestPosition(
            identity.source_kind, identity.source_ref, identity.source_fingerprint, items.initial_checkpoint()
        )
    return IngestPosition(PLAIN_KIND, type(items).__name__, "", _NO_ROWS)


def check_same_source(run_id: str, stored: IngestPosition, given: IngestPosition) -> None:
    """RunMismatchError, naming what differs, unless both positions are of one source."""
    for name in ("source_kind", "source_ref", "source_fingerprint"):
        old, new = getattr(stored, name), getattr(given, name)
        if name == "source_ref" and stored.source_kind == PLAIN_KIND:
            continue
        if old != new:
            what = (
                f"the content of {stored.source_ref} has changed" if name == "source_fingerprint" else f"{name} differs"
            )
            raise RunMismatchError(
                f"Run {run_id!r} began with another source: {what} ({old!r:.90} stored, {new!r:.90} given). Start a "
                "new run_id for the new source, or bring the old one back to finish this run."
            )


def _same_content(stored: IngestPosition, given: IngestPosition) -> bool:
    """Whether both are of one kind and content, wherever that lies."""
    return (stored.source_kind, stored.source_fingerprint) == (given.source_kind, given.source_fingerprint)


def warn_of_change(run_id: str, items: BatchItems[Any], stored: IngestPosition) -> None:
    """Once all is read the source may be gone; one that is there and has changed would be ignored without a word."""
    try:
        given = first_position(items)
    except Exception:  # noqa: BLE001 - a source is user code, and this run needs it no more
        return
    if not _same_content(stored, given):
        warnings.warn(
            f"The source has changed since run {run_id!r} read it; nothing of the change is sent: start a new run_id.",
            stacklevel=5,
        )


def feed(run_id: str, items: BatchItems[Any], position: IngestPosition) -> Iterator[FedRow]:
    """The rows after `position`."""
    if isinstance(items, CheckpointedItemSource):
        source = cast("CheckpointedItemSource[Any]", items)
        for row in source.iter_from_checkpoint(position.checkpoint):
            item = row.item
            metadata = check_item(item)
            if not _is_plain(item.payload):
                _json(item.payload, item.item_id, "payload")
            yield FedRow(item, metadata, row.next_checkpoint)
        return
    yield from _plain(run_id, items, position)


def check_ids(run_id: str, items: BatchItems[Any]) -> None:
    """DuplicateItemError for items that are in memory; a file's ids are checked as they are read."""
    if (found := repeated_id(items)) is not None:
        raise DuplicateItemError(run_id, found.item_id, (found.first, found.second), part=found.part or "the run")


def check_same_rows(run_id: str, items: BatchItems[Any], position: IngestPosition, *, more_allowed: bool) -> None:
    """After reading a plain iterable has ended: the same rows again, or RunMismatchError. A generator passes.

    `more_allowed` says that a cancel may have ended it before the last row.
    """
    if iter(items) is items:
        return
    for _ in _plain(run_id, items, position):
        if more_allowed:
            return
        raise RunMismatchError(
            f"Run {run_id!r} was started with {counted(position.next_index, 'row')} and now got more: start a "
            "new run_id for them."
        )


def _plain(run_id: str, items: BatchItems[Any], position: IngestPosition) -> Iterator[FedRow]:
    """A chain of hashes over ids, payloads and metadata recognises the rows that are already stored."""
    checkpoint = cast("dict[str, Any]", position.checkpoint)
    skip, wanted = int(checkpoint["count"]), str(checkpoint["digest"])
    if skip and iter(items) is items:
        raise RunMismatchError(
            f"Run {run_id!r} has stored {counted(skip, 'row')}, and a generator cannot be continued in the "
            "middle: pass a list or a source with checkpoints (CsvItemSource, …), or start a new run_id."
        )
    digest, count = "", 0
    for item in begin(items):
        metadata = check_item(item)
        payload = _json(item.payload, item.item_id, "payload")
        digest, count = _chained(digest, item.item_id, f"{payload}\0{metadata or ''}"), count + 1
        if count == skip and digest != wanted:
            raise _other_rows(run_id, skip)
        if count > skip:
            yield FedRow(item, metadata, {"count": count, "digest": digest})
    if count < skip:
        raise _other_rows(run_id, skip)


def _other_rows(run_id: str, count: int) -> RunMismatchError:
    return RunMismatchError(
        f"Run {run_id!r} has stored {counted(count, 'row')}, and the given items do not begin with the same "
        "ids and payloads: pass the same items to go on, or start a new run_id."
    )


def _chained(digest: str, item_id: str, content: str) -> str:
    mix = hashlib.blake2b(digest.encode(), digest_size=16)
    mix.update(f"{item_id}\0{content}".encode("utf-8", "surrogatepass"))
    return mix.hexdigest()


def check_item(item: object) -> str | None:
    """Its metadata as JSON text, None when empty; TypeError or ValueError names the item that cannot be stored."""
    if not isinstance(item, BatchItem):
        raise TypeError(f"items must be BatchItem objects, not {type(item).__name__} ({str(item)[:60]!r})")
    item = cast("BatchItem[Any]", item)
    item_id: Any = item.item_id
    if not isinstance(item_id, str):
        raise TypeError(f"item_id must be a string, not {type(item_id).__name__} ({item_id!r})")
    if not item_id:
        raise ValueError("item_id must not be empty: it is the key of the result")
    _check_text(item_id)
    return _metadata_json(item)


def _metadata_json(item: BatchItem[Any]) -> str | None:
    metadata: Any = item.metadata
    if not isinstance(metadata, dict):
        raise TypeError(f"item {item.item_id!r}: metadata must be an object, not {type(metadata).__name__}")
    lineage = item.metadata.get(LINEAGE_KEY, _NO_LINEAGE)
    if not isinstance(lineage, dict):
        raise TypeError(f"item {item.item_id!r}: metadata key {LINEAGE_KEY!r} is reserved and must be an object")
    if len(item.metadata) == 1 and type(lineage) is dict and lineage and _holds_texts_and_counts(lineage):
        try:
            return to_json(item.metadata).decode()
        except PydanticSerializationError:
            pass  # a lone surrogate goes the long way
    return _json(item.metadata, item.item_id, "metadata") if item.metadata else None


def _check_text(item_id: str) -> None:
    if not is_whole(item_id):
        raise ValueError(f"item_id {item_id!r} holds half a character (a lone surrogate); no store can keep it")
    if "\0" in item_id:
        raise ValueError(f"item_id {item_id!r} holds a NUL character, which PostgreSQL cannot keep")


def _holds_texts_and_counts(lineage: JSONObject) -> bool:
    """True for what our own file sources attach to every row, which any writer of JSON writes alike."""
    for name, value in lineage.items():
        if type(name) is not str or (type(value) is not str and type(value) is not int):
            return False
    return True


def _is_plain(payload: object) -> bool:
    """True for a text, or a flat object of texts, which every JSON can hold: there is nothing to try."""
    if type(payload) is dict:
        for name, cell in cast("dict[object, object]", payload).items():
            if type(name) is not str or (type(cell) is not str and cell is not None):
                return False
        return True
    return type(payload) is str


def _json(value: Any, item_id: str, what: str) -> str:
    try:
        text = _READABLE.encode(value)
        # A lone surrogate survives only as an escape.
        return text if text.isascii() or is_whole(text) else _ESCAPED.encode(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"item {item_id!r}: {what} cannot be written as JSON ({error})") from None
