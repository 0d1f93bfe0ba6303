"""The provider's strict subset of JSON schema, checked on the whole schema before a request is answered.

Law: this module shares no code with the engine's own check, so that one mistake is not made twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from .text import as_list, as_object
from .values import JSONObject

TYPES = frozenset({"object", "array", "string", "number", "integer", "boolean", "null"})
FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
ANYWHERE = frozenset({"type", "description", "title", "enum", "const", "anyOf", "$ref", "$defs", "definitions"})
BY_TYPE = {
    "object": frozenset({"properties", "required", "additionalProperties"}),
    "array": frozenset({"items", "minItems", "maxItems"}),
    "string": frozenset({"pattern", "format", "minLength", "maxLength"}),
    "number": frozenset({"multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}),
    "integer": frozenset({"multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}),
}
ROOT_ONLY = frozenset({"$schema", "$id"})
KNOWN = ANYWHERE.union(*BY_TYPE.values())
MAX_PROPERTIES, MAX_DEPTH, MAX_ENUM_VALUES, MAX_NAME_CHARS = 5000, 10, 1000, 120_000

Path = tuple[str, ...]


def schema_problem(schema: Any) -> str | None:
    """The first violation of the strict subset as the provider words it, or None."""
    return next(_problems(schema), None)


def name_problem(name: Any) -> str | None:
    """Why a schema name is refused, or None."""
    if not isinstance(name, str):
        return "a string is required"
    if re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) is None:
        return "string does not match pattern. Expected a string that matches '^[a-zA-Z0-9_-]{1,64}$'."
    return None


def _problems(schema: Any) -> Iterator[str]:
    if not isinstance(schema, dict):
        yield _say((), "schema must be a JSON object")
        return
    root = as_object(schema)
    if root.get("type") != "object":
        yield _say((), f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{root.get('type')}\"'")
    if "anyOf" in root:
        yield _say((), "schema must not have 'anyOf' at the top level")
    sizes = {"properties": 0, "enum": 0, "chars": 0}
    yield from _walk(root, (), 1, root, sizes)
    yield from _too_large(sizes)


def _too_large(sizes: dict[str, int]) -> Iterator[str]:
    if sizes["properties"] > MAX_PROPERTIES:
        yield _say((), f"schema has {sizes['properties']} properties, above the limit of {MAX_PROPERTIES}")
    if sizes["enum"] > MAX_ENUM_VALUES:
        yield _say((), f"schema has {sizes['enum']} enum values, above the limit of {MAX_ENUM_VALUES}")
    if sizes["chars"] > MAX_NAME_CHARS:
        yield _say((), f"names and enum values have {sizes['chars']} characters, above {MAX_NAME_CHARS}")


def _walk(node: Any, path: Path, depth: int, root: JSONObject, sizes: dict[str, int]) -> Iterator[str]:
    if not isinstance(node, dict):
        yield _say(path, "schema must be a JSON object")
        return
    found = as_object(node)
    if depth > MAX_DEPTH:
        yield _say(path, f"schema is nested deeper than {MAX_DEPTH} levels")
        return
    yield from _keywords(found, path)
    if "$ref" in found:
        yield from _reference(found, path, root)
    yield from _typed(found, path)
    values = as_list(found.get("enum"))
    sizes["enum"] += len(values)
    sizes["chars"] += sum(len(value) for value in values if isinstance(value, str))
    if "properties" in found or "object" in _types(found):
        yield from _object(found, path, sizes)
    yield from _children(found, path, depth, root, sizes)


def _keywords(node: JSONObject, path: Path) -> Iterator[str]:
    allowed = KNOWN | ROOT_ONLY if not path else KNOWN
    for key in node:
        if key not in allowed:
            yield _say(path, f"'{key}' is not permitted")
    if "format" in node and node["format"] not in FORMATS:
        yield _say(path, f"'{node['format']}' is not a valid format")
    if isinstance(node.get("pattern"), str):
        try:
            re.compile(node["pattern"])
        except re.error as error:
            yield _say(path, f"'pattern' is not a valid regular expression: {error}")


def _reference(node: JSONObject, path: Path, root: JSONObject) -> Iterator[str]:
    extra = sorted(set(node) - {"$ref", "$defs", "definitions"})
    if extra:
        yield _say(path, f"$ref cannot have keywords {extra}")
    if resolve(root, node["$ref"]) is None:
        yield _say(path, f"reference {node['$ref']!r} cannot be resolved")


def _typed(node: JSONObject, path: Path) -> Iterator[str]:
    wrong = [kind for kind in _types(node) if kind not in TYPES]
    if wrong:
        yield _say(path, f"{wrong[0]!r} is not a valid type")
    if not any(key in node for key in ("type", "$ref", "anyOf", "enum", "const")):
        yield _say(path, "schema must have a 'type' key")
    if "array" in _types(node) and "items" not in node:
        yield _say(path, "array schema missing items")
    if "enum" in node and not as_list(node["enum"]):
        yield _say(path, "'enum' must be a non-empty array")


def _object(node: JSONObject, path: Path, sizes: dict[str, int]) -> Iterator[str]:
    names = list(as_object(node.get("properties")))
    sizes["properties"] += len(names)
    sizes["chars"] += sum(len(name) for name in names)
    if node.get("additionalProperties") is not False:
        yield _say(path, "'additionalProperties' is required to be supplied and to be false")
    required = as_list(node.get("required"))
    missing = [name for name in names if name not in required]
    if missing or (names and "required" not in node):
        yield _say(
            path,
            "'required' is required to be supplied and to be an array including every key in properties. "
            f"Missing '{missing[0]}'",
        )
    unknown = [name for name in required if name not in names]
    if unknown:
        yield _say(path, f"'required' names an unknown property '{unknown[0]}'")


def _children(node: JSONObject, path: Path, depth: int, root: JSONObject, sizes: dict[str, int]) -> Iterator[str]:
    for name, child in as_object(node.get("properties")).items():
        yield from _walk(child, (*path, "properties", name), depth + 1, root, sizes)
    if "items" in node:
        yield from _walk(node["items"], (*path, "items"), depth + 1, root, sizes)
    for at, child in enumerate(as_list(node.get("anyOf"))):
        yield from _walk(child, (*path, "anyOf", str(at)), depth, root, sizes)
    for key in ("$defs", "definitions"):
        for name, child in as_object(node.get(key)).items():
            yield from _walk(child, (*path, key, name), 1, root, sizes)


def resolve(root: JSONObject, reference: Any) -> JSONObject | None:
    """The subschema that a local `$ref` points to, or None."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    node: Any = root
    for step in reference[1:].strip("/").split("/"):
        if step:
            node = as_object(node).get(step.replace("~1", "/").replace("~0", "~"))
    return as_object(node) if isinstance(node, dict) else None


def _types(node: JSONObject) -> list[Any]:
    kind = node.get("type")
    return as_list(kind) if isinstance(kind, list) else [kind] if kind is not None else []


def _say(path: Path, what: str) -> str:
    where = "(" + ", ".join(f"'{step}'" for step in path) + ("," if len(path) == 1 else "") + ")"
    return f"In context={where}, {what}."
