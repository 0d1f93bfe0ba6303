"""Arrow arrays straight from Python lists.

pyarrow's own conversion imports pandas when it is installed, which costs a process of ours 50 MB and a third of a
second; these are the few types that a segment needs, and as fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from batchor_engine.results.arrow import ArrowArray, pyarrow


def integers(values: Sequence[int | None]) -> ArrowArray:
    """An int64 array."""
    import numpy as np

    present, filled = _presence(values, 0)
    return _array(pyarrow().int64(), values, present, np.array(filled, dtype=np.int64))


def booleans(values: Sequence[bool]) -> ArrowArray:
    """A bool array without nulls."""
    import numpy as np

    return _array(pyarrow().bool_(), values, None, np.packbits(np.array(values, dtype=np.bool_), bitorder="little"))


def strings(values: Sequence[str | None], *, large: bool) -> ArrowArray:
    """A string (or large_string) array; UnicodeEncodeError where a text holds half a character."""
    import numpy as np

    pa = pyarrow()
    present, filled = _presence(values, "")
    encoded = [text.encode() for text in filled]
    ends = accumulate(map(len, encoded), initial=0)
    offsets = np.fromiter(ends, dtype=np.int64 if large else np.int32, count=len(encoded) + 1)
    kind = pa.large_string() if large else pa.string()
    return _array(kind, values, present, offsets, b"".join(encoded))


def _presence(values: Sequence[Any], filler: Any) -> tuple[Any, Sequence[Any]]:
    """The validity bitmap, None where every value is there, and the values with nulls filled."""
    if None not in values:
        return None, values
    import numpy as np

    present = np.fromiter((value is not None for value in values), dtype=np.bool_, count=len(values))
    return np.packbits(present, bitorder="little"), [filler if value is None else value for value in values]


def _array(kind: Any, values: Sequence[Any], present: Any, *buffers: Any) -> ArrowArray:
    pa = pyarrow()
    held = [None if present is None else pa.py_buffer(present), *map(pa.py_buffer, buffers)]
    return pa.Array.from_buffers(kind, len(values), held)
