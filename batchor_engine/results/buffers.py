"""Arrow arrays straight from Python lists.

pyarrow's own conversion imports pandas when it is installed, which costs a process of ours 50 MB and a third of a
second; these are the types that segments and most models need, and as fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, chain
from typing import Any, cast

from batchor_engine.results.arrow import ArrowArray, ArrowType, pyarrow


def array_of(kind: ArrowType, values: Sequence[Any]) -> ArrowArray:
    """What `pyarrow.array(values, type=kind)` gives or raises, but for half a character, which becomes U+FFFD."""
    try:
        return _given(kind, values)
    except UnicodeEncodeError:
        return _given(kind, [scrubbed(value) for value in values])


def _given(kind: ArrowType, values: Sequence[Any]) -> ArrowArray:
    plain = _plain(kind, values)
    return pyarrow().array(values, type=kind) if plain is None else plain


def _plain(kind: ArrowType, values: Sequence[Any]) -> ArrowArray | None:
    """The array where kind and values are of the usual sort; None leaves them to pyarrow, which knows all."""
    types = pyarrow().types
    if types.is_struct(kind):
        return _structs(kind, values) if _all_are(dict, values) else None
    if types.is_list(kind):
        return _lists(kind, values) if _all_are(list, values) else None
    if types.is_string(kind):
        return strings(values, large=False) if _all_are(str, values) else None
    if types.is_int64(kind):
        return integers(values) if _all_are(int, values) else None
    if types.is_float64(kind):
        return _floats(values) if _all_are(float, values) else None
    if types.is_boolean(kind):
        return booleans(values) if _all_are(bool, values) else None
    return None


def _all_are(kind: type, values: Sequence[Any]) -> bool:
    return set(map(type, values)) <= {kind, type(None)}


def _structs(kind: ArrowType, values: Sequence[dict[str, Any] | None]) -> ArrowArray:
    present, filled = _presence(values, {})
    children = [_given(field.type, [value.get(field.name) for value in filled]) for field in kind]
    return _array(kind, values, present, children=children)


def _lists(kind: ArrowType, values: Sequence[list[Any] | None]) -> ArrowArray:
    import numpy as np

    present, filled = _presence(values, [])
    ends = np.fromiter(accumulate(map(len, filled), initial=0), dtype=np.int32, count=len(filled) + 1)
    return _array(kind, values, present, ends, children=[_given(kind.value_type, list(chain.from_iterable(filled)))])


def _floats(values: Sequence[float | None]) -> ArrowArray:
    import numpy as np

    present, filled = _presence(values, 0.0)
    return _array(pyarrow().float64(), values, present, np.array(filled, dtype=np.float64))


def integers(values: Sequence[int | None]) -> ArrowArray:
    """An int64 array."""
    import numpy as np

    present, filled = _presence(values, 0)
    return _array(pyarrow().int64(), values, present, np.array(filled, dtype=np.int64))


def booleans(values: Sequence[bool | None]) -> ArrowArray:
    """A bool array."""
    import numpy as np

    present, filled = _presence(values, False)
    return _array(pyarrow().bool_(), values, present, np.packbits(np.array(filled, dtype=np.bool_), bitorder="little"))


def strings(values: Sequence[str | None], *, large: bool) -> ArrowArray:
    """A string (or large_string) array; UnicodeEncodeError where a text holds half a character."""
    import numpy as np

    pa = pyarrow()
    kind = pa.large_string() if large else pa.string()
    if values and values[0] is None and values.count(None) == len(values):
        return pa.nulls(len(values), kind)
    present, filled = _presence(values, "")
    encoded = [text.encode() for text in filled]
    ends = accumulate(map(len, encoded), initial=0)
    offsets = np.fromiter(ends, dtype=np.int64 if large else np.int32, count=len(encoded) + 1)
    return _array(kind, values, present, offsets, b"".join(encoded))


def scrubbed(value: Any) -> Any:
    """A value without lone surrogates: Arrow text is UTF-8, which has none; the stored answer keeps them."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {key: scrubbed(cell) for key, cell in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [scrubbed(cell) for cell in cast("list[Any]", value)]
    return value


def _presence(values: Sequence[Any], filler: Any) -> tuple[Any, Sequence[Any]]:
    """The validity bitmap, None where every value is there, and the values with nulls filled."""
    if None not in values:
        return None, values
    import numpy as np

    present = np.fromiter((value is not None for value in values), dtype=np.bool_, count=len(values))
    return np.packbits(present, bitorder="little"), [filler if value is None else value for value in values]


def _array(
    kind: Any, values: Sequence[Any], present: Any, *buffers: Any, children: Sequence[ArrowArray] | None = None
) -> ArrowArray:
    pa = pyarrow()
    held = [None if present is None else pa.py_buffer(present), *map(pa.py_buffer, buffers)]
    return pa.Array.from_buffers(kind, len(values), held, children=children)
