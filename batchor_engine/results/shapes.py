"""What a model's answers look like as columns, without pyarrow.

Law: the shape follows from the model alone, never from the answers; what a column cannot hold becomes JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, TypeAlias, cast

from pydantic import BaseModel

from batchor_engine.models import JSONObject, JSONValue

_SCALARS = {"boolean": "bool", "integer": "int64", "number": "float64", "string": "string"}
# Formats that Arrow has a type for; every other text format stays the text that JSON has.
_FORMATS = {"date": "date", "date-time": "timestamp"}


@dataclass(frozen=True)
class Scalar:
    """One of bool, int64, float32, float64, string, date, timestamp (microseconds, UTC)."""

    name: str

    def __str__(self) -> str:
        return "timestamp[us, UTC]" if self.name == "timestamp" else self.name


@dataclass(frozen=True)
class JsonText:
    """Any JSON value as its text."""

    def __str__(self) -> str:
        return "json"


@dataclass(frozen=True)
class ListOf:
    item: Shape

    def __str__(self) -> str:
        return f"list<{self.item}>"


@dataclass(frozen=True)
class StructOf:
    fields: tuple[tuple[str, Shape], ...]

    def __str__(self) -> str:
        return "struct<" + ", ".join(f"{name}: {shape}" for name, shape in self.fields) + ">"


Shape: TypeAlias = Scalar | JsonText | ListOf | StructOf
Encoder: TypeAlias = Callable[[Any], Any]


# The names of the definitions that enclose a place in a schema.
_Seen: TypeAlias = frozenset[str]


@dataclass(frozen=True)
class ModelField:
    """One top-level field of a model; `nullable` says whether the model allows None."""

    name: str
    shape: Shape
    nullable: bool
    description: str | None


def model_fields(model: type[BaseModel]) -> list[ModelField] | None:
    """The top-level fields of what `model_dump(mode="json")` gives; None where that is no object with fixed fields."""
    schema = cast("JSONObject", model.model_json_schema(by_alias=False, mode="serialization"))
    walk = _Walk(cast("dict[str, JSONObject]", schema.get("$defs", {})))
    root, seen = walk.resolve(schema, frozenset())
    properties = root.get("properties")
    if root.get("type") != "object" or not isinstance(properties, dict):
        return None
    return [walk.field(name, cast("JSONObject", field), seen) for name, field in properties.items()]


def model_shape(model: type[BaseModel]) -> Shape:
    """The shape of a model's answer as a whole."""
    schema = cast("JSONObject", model.model_json_schema(by_alias=False, mode="serialization"))
    walk = _Walk(cast("dict[str, JSONObject]", schema.get("$defs", {})))
    return walk.shape(schema, frozenset())


class _Walk:
    """One pass over a JSON schema."""

    def __init__(self, definitions: dict[str, JSONObject]) -> None:
        self._definitions = definitions

    def field(self, name: str, schema: JSONObject, seen: _Seen) -> ModelField:
        described = schema.get("description")
        return ModelField(
            name=name,
            shape=self.shape(schema, seen),
            nullable=self._nullable(schema, seen),
            description=described if isinstance(described, str) else None,
        )

    def shape(self, schema: JSONObject, seen: _Seen) -> Shape:
        try:
            schema, seen = self.resolve(schema, seen)
        except RecursionError:
            return JsonText()
        if "enum" in schema or "const" in schema:
            return _literal(schema)
        match schema.get("type"):
            case "array":
                return self._list(schema, seen)
            case "object":
                return self._struct(schema, seen)
            case "string":
                return Scalar(_FORMATS.get(str(schema.get("format")), "string"))
            case str() as name if name in _SCALARS:
                return Scalar(_SCALARS[name])
            case _:
                return self._union(schema, seen)

    def resolve(self, schema: JSONObject, seen: _Seen) -> tuple[JSONObject, _Seen]:
        """Follow references and drop a null alternative; RecursionError where a definition contains itself."""
        while True:
            reference = schema.get("$ref")
            if isinstance(reference, str):
                name = reference.removeprefix("#/$defs/").replace("~1", "/").replace("~0", "~")
                if name in seen:
                    raise RecursionError(name)
                schema, seen = self._definitions[name], seen | {name}
                continue
            rest = _without_null(schema)
            if len(rest) != 1:
                return schema, seen
            schema = rest[0]

    def _nullable(self, schema: JSONObject, seen: _Seen) -> bool:
        if schema.get("type") == "null" or any(_is_null(choice) for choice in _choices(schema)):
            return True
        if None in cast("list[JSONValue]", schema.get("enum", [])) or ("const" in schema and schema["const"] is None):
            return True
        reference = str(schema.get("$ref", "")).removeprefix("#/$defs/")
        known = self._definitions.get(reference)
        return known is not None and reference not in seen and self._nullable(known, seen | {reference})

    def _list(self, schema: JSONObject, seen: _Seen) -> Shape:
        items = schema.get("items")
        return ListOf(self.shape(items, seen)) if isinstance(items, dict) and items else JsonText()

    def _struct(self, schema: JSONObject, seen: _Seen) -> Shape:
        properties = schema.get("properties")
        # Parquet has no struct without fields; a dict with free keys has no fields to name.
        if not isinstance(properties, dict) or not properties:
            return JsonText()
        fields = [(name, self.shape(cast("JSONObject", field), seen)) for name, field in properties.items()]
        return StructOf(tuple(fields))

    def _union(self, schema: JSONObject, seen: _Seen) -> Shape:
        shapes = {self.shape(choice, seen) for choice in _choices(schema) if not _is_null(choice)}
        if shapes == {Scalar("int64"), Scalar("float64")}:
            return Scalar("float64")
        # One shape from several texts, as of an enum or a plain string; times are told apart from texts by nobody.
        if len(shapes) == 1 and shapes <= {Scalar(name) for name in _SCALARS.values()}:
            return shapes.pop()
        return JsonText()


def _choices(schema: JSONObject) -> list[JSONObject]:
    return cast("list[JSONObject]", schema.get("anyOf") or schema.get("oneOf") or [])


def _without_null(schema: JSONObject) -> list[JSONObject]:
    joined = cast("list[JSONObject]", schema.get("allOf") or [])
    return joined if len(joined) == 1 else [choice for choice in _choices(schema) if not _is_null(choice)]


def _is_null(schema: JSONObject) -> bool:
    return schema.get("type") == "null"


def _literal(schema: JSONObject) -> Shape:
    values = cast("list[JSONValue]", schema.get("enum", [schema.get("const")]))
    kinds = {type(value).__name__ for value in values if value is not None}
    names = {"bool": "bool", "int": "int64", "float": "float64", "str": "string"}
    return Scalar(names[kinds.pop()]) if len(kinds) == 1 and kinds <= names.keys() else JsonText()


def encoder(shape: Shape) -> Encoder | None:
    """What turns a value of `model_dump(mode="json")` into one that Arrow takes; None where that is the same."""
    match shape:
        case Scalar("timestamp"):
            return _nullable_encoder(_timestamp)
        case Scalar("date"):
            return _nullable_encoder(date.fromisoformat)
        case JsonText():
            return _nullable_encoder(json_text)
        case ListOf(item):
            inner = encoder(item)
            return None if inner is None else _list_encoder(inner)
        case StructOf(fields):
            inners = {name: inner for name, field in fields if (inner := encoder(field)) is not None}
            return _struct_encoder(inners) if inners else None
        case _:
            return None


def json_text(value: Any) -> str:
    """A JSON value as compact text."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _nullable_encoder(encode: Encoder) -> Encoder:
    return lambda value: None if value is None else encode(value)


def _list_encoder(inner: Encoder) -> Encoder:
    return _nullable_encoder(lambda values: [inner(value) for value in values])


def _struct_encoder(inners: dict[str, Encoder]) -> Encoder:
    def encode(value: dict[str, Any]) -> dict[str, Any]:
        return {**value, **{name: inner(value.get(name)) for name, inner in inners.items()}}

    return _nullable_encoder(encode)


def _timestamp(text: str) -> datetime:
    when = datetime.fromisoformat(text)
    # A time without a zone is read as UTC: a column can hold only one zone.
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
