"""Answers out of nothing: JSON that fits a schema, or plain text, always the same for the same request."""

from __future__ import annotations

import hashlib
import math
import uuid
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from .patterns import string_for
from .schema_check import resolve
from .text import as_list, as_object
from .values import JSONObject

WORDS = [
    "amber",
    "birch",
    "cargo",
    "delta",
    "ember",
    "field",
    "grain",
    "harbor",
    "index",
    "jolly",
    "kettle",
    "lemon",
    "meadow",
    "north",
    "ocean",
    "paper",
    "quiet",
    "river",
    "stone",
    "timber",
    "upper",
    "valley",
    "window",
    "yellow",
    "zephyr",
]
SOFT_DEPTH = 4
NEVER = 10**9


class CannotFitError(Exception):
    """No finite value fits the schema, or the sandbox does not see one."""


def rng_for(*texts: str) -> Random:
    """A random source that depends on the texts alone."""
    return Random(hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).digest())  # noqa: S311 - sample data, not cryptography


def plain_text(rng: Random, words: int) -> str:
    """A sentence of so many words."""
    made = " ".join(rng.choice(WORDS) for _ in range(max(1, words)))
    return made[0].upper() + made[1:] + "."


def fit(schema: JSONObject, rng: Random) -> Any:
    """A value that fits the schema; recursion ends as soon as the schema lets it."""
    return _Fitter(schema, rng).value(schema, 0)


class _Fitter:
    """Walks a schema and makes a value; beyond the soft depth it takes the shortest way out."""

    def __init__(self, root: JSONObject, rng: Random) -> None:
        self._root = root
        self._rng = rng
        self._heights: dict[int, int] = {}

    def value(self, node: JSONObject, depth: int) -> Any:
        """A value for one subschema."""
        if "$ref" in node:
            return self.value(self._target(node), depth)
        if "const" in node:
            return node["const"]
        if as_list(node.get("enum")):
            return self._rng.choice(as_list(node["enum"]))
        if as_list(node.get("anyOf")):
            return self.value(self._branch(as_list(node["anyOf"]), depth), depth + 1)
        return self._typed(node, self._type(node, depth), depth)

    def _target(self, node: JSONObject) -> JSONObject:
        found = resolve(self._root, node["$ref"])
        if found is None:
            raise CannotFitError(f"reference {node['$ref']!r} cannot be resolved")
        return found

    def _type(self, node: JSONObject, depth: int) -> str:
        kind = node.get("type", "object" if "properties" in node else "string")
        if not isinstance(kind, list):
            return str(kind)
        kinds = [str(one) for one in as_list(kind)]
        if depth > SOFT_DEPTH and "null" in kinds:
            return "null"
        return self._rng.choice(kinds)

    def _branch(self, branches: list[Any], depth: int) -> JSONObject:
        possible = [as_object(one) for one in branches if self._height(as_object(one), ()) < NEVER]
        if not possible:
            raise CannotFitError("the schema allows only endless values")
        if depth > SOFT_DEPTH:
            return min(possible, key=lambda one: self._height(one, ()))
        return self._rng.choice(possible)

    def _typed(self, node: JSONObject, kind: str, depth: int) -> Any:
        if kind == "object":
            return self._object(node, depth)
        if kind == "array":
            return self._array(node, depth)
        if kind == "string":
            return make_string(node, self._rng)
        if kind in ("integer", "number"):
            return make_number(node, kind, self._rng)
        return None if kind == "null" else self._rng.random() < 0.5

    def _object(self, node: JSONObject, depth: int) -> JSONObject:
        if self._height(node, ()) >= NEVER:
            raise CannotFitError("the schema allows only endless values")
        return {
            name: self.value(as_object(child), depth + 1) for name, child in as_object(node.get("properties")).items()
        }

    def _array(self, node: JSONObject, depth: int) -> list[Any]:
        low = int(node.get("minItems", 0))
        high = int(node.get("maxItems", max(low, 3)))
        items = as_object(node.get("items"))
        endless = self._height(items, ()) >= NEVER
        size = low if depth > SOFT_DEPTH or endless else self._rng.randint(low, min(high, low + 3))
        return [self.value(items, depth + 1) for _ in range(size)]

    def _height(self, node: JSONObject, above: tuple[int, ...]) -> int:
        """How many levels the smallest value needs; NEVER when the way leads through itself."""
        if id(node) in self._heights:
            return self._heights[id(node)]
        if id(node) in above:
            return NEVER
        inside = (*above, id(node))
        height = min(NEVER, self._raw_height(node, inside))
        # A height found inside a loop may be too high, so only the outermost or a finite one is kept.
        if not above or height < NEVER:
            self._heights[id(node)] = height
        return height

    def _raw_height(self, node: JSONObject, inside: tuple[int, ...]) -> int:
        if "$ref" in node:
            return self._height(self._target(node), inside)
        if "const" in node or "enum" in node:
            return 1
        if as_list(node.get("anyOf")):
            return 1 + min(self._height(as_object(one), inside) for one in as_list(node["anyOf"]))
        kinds = node.get("type")
        if isinstance(kinds, list) and "null" in as_list(kinds):
            return 1
        if int(node.get("minItems", 0)) > 0:
            return 1 + self._height(as_object(node.get("items")), inside)
        children = as_object(node.get("properties")).values()
        return 1 + max((self._height(as_object(child), inside) for child in children), default=0)


def make_string(node: JSONObject, rng: Random) -> str:
    """A string for format, pattern and length; the pattern wins over the length."""
    if isinstance(node.get("pattern"), str):
        made = string_for(node["pattern"], rng)
        if made is not None:
            return made
    if isinstance(node.get("format"), str):
        return _formatted(node["format"], rng)
    low = int(node.get("minLength", 0))
    high = int(node.get("maxLength", max(low, 200)))
    text = plain_text(rng, rng.randint(2, 8))
    while len(text) < low:
        text += " " + rng.choice(WORDS)
    return text[:high]


def _formatted(name: str, rng: Random) -> str:
    moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=rng.randrange(86_400 * 365))
    word = rng.choice(WORDS)
    made = {
        "date-time": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "date": moment.strftime("%Y-%m-%d"),
        "time": moment.strftime("%H:%M:%SZ"),
        "duration": f"PT{rng.randint(1, 90)}M",
        "email": f"{word}@example.com",
        "hostname": f"{word}.example.com",
        "ipv4": ".".join(str(rng.randrange(256)) for _ in range(4)),
        "ipv6": ":".join(f"{rng.randrange(65_536):x}" for _ in range(8)),
        "uuid": str(uuid.UUID(int=rng.getrandbits(128), version=4)),
        "uri": f"https://{word}.example.com/",
    }
    return made.get(name, word)


def make_number(node: JSONObject, kind: str, rng: Random) -> int | float:
    """A number within the bounds that is a multiple of `multipleOf`; integers for integer schemas."""
    whole = kind == "integer"
    step = node.get("multipleOf", 1 if whole else None)
    low, high = _bounds(node, 1 if whole else 1e-6)
    if step is not None:
        first, last = math.ceil(low / step), math.floor(high / step)
        if first > last:
            raise CannotFitError(f"no multiple of {step} lies between {low} and {high}")
        count = rng.randint(first, min(last, first + 1000))
        made = count * step
        return int(made) if whole else made
    return min(max(round(rng.uniform(low, min(high, low + 1000)), 3), low), high)


def _bounds(node: JSONObject, margin: float) -> tuple[float, float]:
    lows = [node[key] + extra for key, extra in (("minimum", 0), ("exclusiveMinimum", margin)) if key in node]
    highs = [node[key] - extra for key, extra in (("maximum", 0), ("exclusiveMaximum", margin)) if key in node]
    low = max(lows, default=None)
    high = min(highs, default=None)
    if low is None:
        low = 0 if high is None or high >= 0 else high - 100
    if high is None:
        high = low + 100
    if low > high:
        raise CannotFitError(f"no number lies between {low} and {high}")
    return low, high
