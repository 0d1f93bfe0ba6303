"""Which rows travel together.

Law: greedy, in item order. A batch closes before it would pass a limit; exact equality fits; a row that is alone above
a limit is named, never sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from batchor_engine.core.records import BatchRange, ItemRow, PartRecord

_BRIDGED_ROWS = 1000


@dataclass(frozen=True)
class PackLimits:
    """What one batch may hold; tokens None: no budget. A row that goes alone may have `max_row_tokens` (None: any)."""

    max_requests: int
    max_bytes: int
    max_tokens: int | None = None
    max_row_tokens: int | None = None

    def for_one_row(self) -> PackLimits:
        return replace(self, max_tokens=self.max_row_tokens)


class Load(NamedTuple):
    """What is in a batch so far, or what a piece would add."""

    items: int = 0
    bytes: int = 0
    tokens: int = 0

    def plus(self, other: Load) -> Load:
        items, size, tokens = self
        more_items, more_bytes, more_tokens = other
        return Load(items + more_items, size + more_bytes, tokens + more_tokens)

    def within(self, limits: PackLimits) -> bool:
        return (
            self.items <= limits.max_requests
            and self.bytes <= limits.max_bytes
            and (limits.max_tokens is None or self.tokens <= limits.max_tokens)
        )


_EMPTY = Load()


@dataclass(frozen=True)
class Oversize:
    """Why a row can never be sent."""

    error_class: str
    message: str


def too_large(weight: Load, limits: PackLimits, effective: int | None) -> Oversize | None:
    """The limit that one row alone is above, or None; `effective` is how many tokens may be enqueued at once."""
    if weight.bytes > limits.max_bytes:
        return Oversize(
            "request_exceeds_file_limit",
            f"the request has {weight.bytes} bytes, a request file may have {limits.max_bytes} "
            "(ChunkPolicy.max_file_bytes)",
        )
    if effective is not None and weight.tokens > effective:
        return Oversize(
            "openai_request_exceeds_inflight_token_limit",
            f"the request has about {weight.tokens} tokens, {effective} may be enqueued at once",
        )
    if limits.max_tokens is not None and weight.tokens > limits.max_tokens:
        return Oversize(
            "openai_request_exceeds_batch_token_limit",
            f"the request has about {weight.tokens} tokens, a batch may have {limits.max_tokens}",
        )
    return None


@dataclass(frozen=True)
class Packed:
    """A batch's ranges, whether it closed because the next row did not fit, and rows too large for any batch."""

    ranges: tuple[BatchRange, ...] = ()
    load: Load = _EMPTY
    closed: bool = False
    oversize: tuple[ItemRow, ...] = ()


def part_load(part: PartRecord) -> Load:
    return Load(part.left_items, part.left_bytes, part.left_tokens)


def is_dense(part: PartRecord) -> bool:
    """Whether every row number that is left of a part is of a row that waits in it."""
    return part.left_items == part.last_index - part.next_index + 1


def whole_rest(part: PartRecord) -> BatchRange:
    """All that is left of a part as one range, for a part in which nothing failed unsent."""
    return BatchRange(
        part=part.pk,
        first_index=part.next_index,
        last_index=part.last_index,
        offset=part.next_offset,
        length=part.left_bytes,
        items=part.left_items,
        tokens=part.left_tokens,
        attempt=1,
        fresh=True,
    )


def spans(ranges: Iterable[BatchRange]) -> Iterator[tuple[int, int]]:
    """First and last item index of ranges that are read together; each holds more rows than the batch where it bridges.

    Retried rows lie scattered, a range each. Passing over a thousand foreign rows costs a database about as much as
    one more question does.
    """
    first = last = -1
    for chunk in ranges:
        if first >= 0 and 0 < chunk.first_index - last <= _BRIDGED_ROWS:
            last = chunk.last_index
            continue
        if first >= 0:
            yield first, last
        first, last = chunk.first_index, chunk.last_index
    if first >= 0:
        yield first, last


def row_load(row: ItemRow) -> Load:
    """What a row weighs as sent: a later attempt's number may be longer than the 1 that was stored."""
    return Load(1, row.length + len(str(row.attempts + 1)) - 1, row.tokens)


def pack_rows(rows: Iterable[ItemRow], limits: PackLimits, begun: Packed | None = None, *, fresh: bool) -> Packed:
    """Add rows to a begun batch until one does not fit."""
    begun = begun or Packed()
    ranges, load, oversize = list(begun.ranges), begun.load, list(begun.oversize)
    alone = limits.for_one_row()
    for row in rows:
        weight = row_load(row)
        if not weight.within(alone):
            oversize.append(row)
            continue
        if load.items and not load.plus(weight).within(limits):
            return Packed(tuple(ranges), load, True, tuple(oversize))
        load = load.plus(weight)
        _add(ranges, _range_of(row, fresh=fresh))
    return Packed(tuple(ranges), load, False, tuple(oversize))


def _add(ranges: list[BatchRange], new: BatchRange) -> None:
    if ranges and ranges[-1].joins(new):
        ranges[-1] = ranges[-1].join(new)
    else:
        ranges.append(new)


def _range_of(row: ItemRow, *, fresh: bool) -> BatchRange:
    return BatchRange(
        part=row.part or 0,
        first_index=row.item_index,
        last_index=row.item_index,
        offset=row.offset,
        length=row.length,
        items=1,
        tokens=row.tokens,
        attempt=row.attempts + 1,
        fresh=fresh,
    )
