"""What can be read only once, and whether that has begun.

Law: an iterator that was read from is never taken for one with fewer rows, or with none.
"""

from __future__ import annotations

import inspect
import sys
import weakref
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

from batchor_engine.errors import RunMismatchError

T = TypeVar("T")

# Iterators that this process has read from, by id. Those whose type takes no weak reference (map, zip, csv.reader) are
# kept alive, so that their id is not given to another object, until nobody else holds them.
_watched: dict[int, weakref.ref[Any]] = {}
_kept: dict[int, Any] = {}
_PROBE = [object()]
_HELD_HERE_ALONE = sys.getrefcount(_PROBE[0])


def begin(items: Iterable[T]) -> Iterator[T]:
    """iter(items), remembered where there is only one; RunMismatchError where it was read from before."""
    rows = check_unread(items)
    if rows is items and not inspect.isgenerator(rows):
        _remember(rows)
    return rows


def check_unread(items: Iterable[T]) -> Iterator[T]:
    """iter(items), from which nothing has been read; else RunMismatchError."""
    rows = iter(items)
    if _was_read(rows):
        kind = type(rows).__name__
        raise RunMismatchError(
            f"The items are a {kind} that was read from before, and rows that it gave then would be missing: pass a "
            f"list or a source with checkpoints (CsvItemSource, …), or make a new {kind}."
        )
    return rows


def forget_unheld() -> None:
    """Let go of iterators that nobody else holds: they cannot be given again."""
    for key in list(_kept):
        # Another thread may do the same.
        with suppress(KeyError):
            if sys.getrefcount(_kept[key]) <= _HELD_HERE_ALONE:
                del _kept[key]


def _was_read(rows: Iterator[Any]) -> bool:
    if inspect.isgenerator(rows):
        return inspect.getgeneratorstate(rows) != inspect.GEN_CREATED
    return id(rows) in _watched or id(rows) in _kept


def _remember(rows: Iterator[Any]) -> None:
    forget_unheld()
    key = id(rows)
    try:
        # The callback runs before the id can be used again.
        _watched[key] = weakref.ref(rows, lambda _gone: _watched.pop(key, None))
    except TypeError:
        _kept[key] = rows
