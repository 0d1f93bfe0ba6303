"""From a row to an item with its lineage.

Law: a row that cannot become an item says which row of which source it is and why; no id is ever guessed or changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from batchor_engine.errors import SourceRowError
from batchor_engine.models import LINEAGE_KEY, BatchItem, JSONObject

RowToId: TypeAlias = Callable[[Any], str]
RowToPayload: TypeAlias = Callable[[Any], Any]
RowToMetadata: TypeAlias = Callable[[Any], "Mapping[str, Any] | None"]


@dataclass(frozen=True)
class RowMapper:
    """The user's three functions of a row; `ref` names the source in lineage and errors."""

    ref: str
    item_id_from_row: RowToId
    payload_from_row: RowToPayload
    metadata_from_row: RowToMetadata | None = None

    def item(self, row: Any, index: int, *, partition_id: str | None = None) -> BatchItem[Any]:
        """The item of the row at 0-based position `index`; SourceRowError where a function fails or is wrong."""
        item_id = self._item_id(row, index)
        payload = self._call("payload_from_row", self.payload_from_row, row, index)
        lineage: JSONObject = {
            "source_ref": self.ref,
            "source_item_index": index,
            "source_primary_key": item_id,
        }
        if partition_id is not None:
            lineage["partition_id"] = partition_id
        if self.metadata_from_row is None:
            return BatchItem(item_id, payload, {LINEAGE_KEY: lineage})
        metadata = self._metadata(self.metadata_from_row, row, index)
        metadata[LINEAGE_KEY] = {**lineage, **self._own_lineage(metadata, index)}
        return BatchItem(item_id, payload, metadata)

    def _item_id(self, row: Any, index: int) -> str:
        item_id: object = self._call("item_id_from_row", self.item_id_from_row, row, index)
        if not isinstance(item_id, str):
            raise self.error(
                index, f"its item id is {item_id!r} ({type(item_id).__name__}), but must be a str: use str(...)"
            )
        if not item_id:
            raise self.error(index, "its item id is empty")
        return item_id

    def _metadata(self, function: RowToMetadata, row: Any, index: int) -> JSONObject:
        metadata: object = self._call("metadata_from_row", function, row, index)
        if metadata is None:
            return {}
        if not isinstance(metadata, Mapping):
            raise self.error(index, f"its metadata is a {type(metadata).__name__}, but must be a dict")
        return dict(cast("Mapping[str, Any]", metadata))

    def _own_lineage(self, metadata: JSONObject, index: int) -> JSONObject:
        own = metadata.get(LINEAGE_KEY, {})
        if not isinstance(own, dict):
            raise self.error(index, f"its metadata has {LINEAGE_KEY!r} of type {type(own).__name__}, not an object")
        return own

    def _call(self, name: str, function: Callable[[Any], Any], row: Any, index: int) -> Any:
        try:
            return function(row)
        except Exception as error:
            raise self.error(index, _cause(name, error, row)) from error

    def error(self, index: int, cause: str) -> SourceRowError:
        """The error of the row at 0-based position `index`, which people count from 1."""
        return SourceRowError(f"{self.ref}, row {index + 1}: {cause}.")


def _cause(name: str, error: Exception, row: Any) -> str:
    if isinstance(error, KeyError) and isinstance(row, Mapping):
        columns = cast("Mapping[Any, Any]", row)
        missing = error.args[0] if error.args else None
        if missing not in columns:
            return f"{name} asks for column {missing!r}, but the columns are {name_list(columns)}"
    return f"{name} raised {type(error).__name__}: {error}"


def name_list(names: Any) -> str:
    """Names for a message, at most thirty of them."""
    shown = [repr(name) for name in names]
    more = f" and {len(shown) - 30} more" if len(shown) > 30 else ""
    return ", ".join(shown[:30]) + more if shown else "none"
