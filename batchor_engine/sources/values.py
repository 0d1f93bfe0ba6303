"""Any cell of a frame as a plain JSON value.

Law: what means "nothing" becomes None, what JSON cannot hold becomes its standard text, and the unknown is refused.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, cast
from uuid import UUID

from batchor_engine.models import JSONObject, JSONValue

_PLAIN = frozenset({str, int, bool, type(None)})


def json_clean(value: Any) -> JSONValue:
    """A JSON value for a cell; TypeError for a type that has no plain form.

    NaN, NaT, pandas' NA and infinities become None, times ISO 8601, durations seconds, Decimal, UUID and paths text,
    bytes Base64.
    """
    if type(value) in _PLAIN:
        return value
    if isinstance(value, float):
        # float() also takes a numpy.float64, which is one of Python's floats by inheritance.
        return float(value) if math.isfinite(value) else None
    if _is_missing(value):
        return None
    if isinstance(value, Enum):
        return json_clean(value.value)
    if isinstance(value, str | int):
        return _plain_of(value)
    return _container(value)


def _plain_of(value: str | int) -> JSONValue:
    return str(value) if isinstance(value, str) else int(value)


def _is_missing(value: Any) -> bool:
    # pandas is not imported for this: a cell can only be one of its values if somebody else did.
    return type(value).__name__ in ("NAType", "NaTType") and type(value).__module__.split(".")[0] == "pandas"


def _container(value: Any) -> JSONValue:
    if isinstance(value, Mapping):
        cells = cast("Mapping[Any, Any]", value)
        return {str(key): json_clean(cell) for key, cell in cells.items()}
    if isinstance(value, list | tuple):
        return [json_clean(cell) for cell in cast("list[Any]", value)]
    if isinstance(value, set | frozenset):
        # A set has no order of its own; without one the same frame would have two fingerprints.
        return sorted((json_clean(cell) for cell in cast("set[Any]", value)), key=repr)
    return _scalar(value)


def _scalar(value: Any) -> JSONValue:
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return str(value) if value.is_finite() else None
    if isinstance(value, UUID | PurePath):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(bytes(cast("bytes", value))).decode("ascii")
    return _foreign(value)


def _foreign(value: Any) -> JSONValue:
    kind = cast("type[Any]", type(value))
    library = kind.__module__.split(".")[0]
    if library == "numpy":
        return _numpy(value)
    if library == "pandas" and kind.__name__ in ("Period", "Interval"):
        return str(value)
    raise TypeError(f"a {kind.__module__}.{kind.__qualname__} has no plain JSON form")


def _numpy(value: Any) -> JSONValue:
    if type(value).__name__ in ("datetime64", "timedelta64"):
        return None if str(value) == "NaT" else str(value)
    plain = value.tolist()
    if type(plain) is type(value):
        raise TypeError(f"a numpy {type(value).__name__} has no plain JSON form")
    return json_clean(plain)


def clean_row(row: Mapping[Any, Any]) -> JSONObject:
    """A row of a frame with JSON values; TypeError naming the column that has none."""
    cleaned: JSONObject = {}
    for name, cell in row.items():
        try:
            cleaned[str(name)] = cell if type(cell) in _PLAIN else json_clean(cell)
        except TypeError as error:
            raise TypeError(f"column {name!r}: {error}; convert it first, or leave the column out") from error
    return cleaned
