"""Iterators are recognised when they come again, and not kept alive for it longer than anybody could bring them."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from batchor_engine import RunMismatchError
from batchor_engine.models import BatchItem
from batchor_engine.sources import once
from batchor_engine.sources.groups import grouped_items
from batchor_engine.sources.limited import first_items
from batchor_engine.sources.once import begin, check_unread, forget_unheld


class Held:
    """Something large that an iterator over it holds."""

    def row(self, number: int) -> BatchItem[Any]:
        return BatchItem(f"row-{number}", number)


class Cursor:
    """An iterator that takes weak references, as file objects do."""

    def __init__(self) -> None:
        self.rest = [BatchItem("a", 1)]

    def __iter__(self) -> Iterator[BatchItem[Any]]:
        return self

    def __next__(self) -> BatchItem[Any]:
        if not self.rest:
            raise StopIteration
        return self.rest.pop()


def test_a_list_is_read_as_often_as_it_is_given() -> None:
    items = [BatchItem("a", 1)]
    assert [list(begin(items)) for _ in range(3)] == [items] * 3


@pytest.mark.parametrize("read", [0, 1, 2])
def test_an_iterator_that_was_begun_is_refused_with_its_kind(read: int) -> None:
    items = map(Held().row, range(2))
    rows = begin(items)
    assert len([next(rows) for _ in range(read)]) == read
    with pytest.raises(RunMismatchError, match=r"a map that was read from before.*list"):
        begin(items)


def test_a_new_iterator_is_never_taken_for_one_that_is_gone() -> None:
    for _ in range(2000):
        assert list(begin(map(Held().row, range(1))))
        assert list(begin(Cursor()))


def test_what_nobody_else_holds_is_let_go() -> None:
    held = Held()
    gone, items = weakref.ref(held), map(held.row, range(3))
    assert next(begin(items))
    forget_unheld()
    with pytest.raises(RunMismatchError):
        check_unread(items)
    del items, held
    forget_unheld()
    gc.collect()
    assert gone() is None


def test_an_iterator_with_weak_references_is_not_kept_alive() -> None:
    cursor = Cursor()
    gone = weakref.ref(cursor)
    assert list(begin(cursor))
    with pytest.raises(RunMismatchError, match="Cursor"):
        begin(cursor)
    del cursor
    gc.collect()
    assert gone() is None
    assert not any(reference() is None for reference in once._watched.values())


def used() -> list[Iterable[BatchItem[Any]]]:
    begun = (BatchItem(f"row-{n}", n) for n in range(3))
    next(begun)
    mapped = map(Held().row, range(3))
    next(begin(mapped))
    return [begun, mapped]


@pytest.mark.parametrize("items", used())
def test_a_group_that_was_begun_is_refused_before_the_first_row_of_another(items: Iterable[BatchItem[Any]]) -> None:
    with pytest.raises(RunMismatchError, match="read from before"):
        next(iter(grouped_items({1: [BatchItem("a", 1)], 2: items})))


@pytest.mark.parametrize("items", used())
def test_the_first_of_what_was_begun_are_not_its_first(items: Iterable[BatchItem[Any]]) -> None:
    with pytest.raises(RunMismatchError, match="read from before"):
        first_items(items, 1)


def test_groups_remember_what_was_read_from_them() -> None:
    items = map(Held().row, range(3))
    assert next(iter(grouped_items({1: items})))
    with pytest.raises(RunMismatchError, match="read from before"):
        next(iter(grouped_items({1: items})))
