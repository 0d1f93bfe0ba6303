"""Ids that occur twice in what is in memory anyway, so that they are told before the first row is paid.

Law: nothing is read from a disk or used up for it, and a row without a sound id is left to whoever reads it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from batchor_engine.ports.sources import BatchItems, ItemSource, RepeatedId


def repeated_id(items: BatchItems[Any]) -> RepeatedId | None:
    """The first id that a list, or a source that knows, has a second time; None proves nothing."""
    if isinstance(items, ItemSource):
        return cast("ItemSource[Any]", items).repeated_id()
    # A class of somebody's own may fetch its rows when it is read.
    if type(items) is list or type(items) is tuple:
        return first_repeated(getattr(row, "item_id", None) for row in cast("list[Any]", items))
    return None


def first_repeated(ids: Iterable[Any]) -> RepeatedId | None:
    """The first text that was there before; reads no further than to it."""
    seen: dict[str, int] = {}
    for position, one in enumerate(ids):
        if isinstance(one, str) and (first := seen.setdefault(one, position)) != position:
            return RepeatedId(one, first, position)
    return None
