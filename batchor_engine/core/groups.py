"""Groups of rows in one run: several small jobs that travel together and are read back apart.

Law: a row's id needs to be unique in its group alone. In the run it carries the group's number, outside it never does.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from batchor_engine.core.segment import SegmentRow
from batchor_engine.models import GROUP_KEY, BatchItem, JSONObject

_MARK = "__"


def in_group(item: BatchItem[Any], group: int) -> BatchItem[Any]:
    """An item of a group as its run knows it: `<group>__<item id>`, and the number in its metadata."""
    return replace(item, item_id=id_in_group(item.item_id, group), metadata={**item.metadata, GROUP_KEY: group})


def id_in_group(item_id: str, group: int) -> str:
    """The id that a group's item has in its run."""
    return f"{group}{_MARK}{item_id}"


def group_of(item: BatchItem[Any]) -> int:
    """The group named in an item's metadata; 0 without one."""
    group = item.metadata.get(GROUP_KEY, 0)
    return group if isinstance(group, int) and not isinstance(group, bool) else 0


def out_of_group(item: BatchItem[Any]) -> BatchItem[Any]:
    """in_group() undone: the item as its group knows it."""
    metadata = {key: value for key, value in item.metadata.items() if key != GROUP_KEY}
    return replace(item, item_id=own_id(item.item_id, group_of(item)), metadata=metadata)


def own_id(item_id: str, group: int) -> str:
    """An item's id in its group."""
    return item_id.removeprefix(f"{group}{_MARK}")


def own_row(row: SegmentRow) -> SegmentRow:
    """A stored row as its group knows it."""
    metadata: JSONObject = json.loads(row.metadata_json) if row.metadata_json else {}
    metadata.pop(GROUP_KEY, None)
    text = json.dumps(metadata, ensure_ascii=False, separators=(",", ":")) if metadata else None
    return row._replace(item_id=own_id(row.item_id, row.group), metadata_json=text)
