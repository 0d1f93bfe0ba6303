"""The strict JSON schema of a model: what the provider's constrained decoding accepts, checked before a cent is spent.

Law: a schema that leaves here is accepted or the provider changed its rules; one that is refused is refused with the
path of the offence. Nothing is dropped from a schema in silence.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias, cast

from pydantic import AliasChoices, AliasPath, BaseModel
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core.core_schema import ModelSchema

from batchor_engine.errors import StructuredOutputSchemaError
from batchor_engine.models import JSONObject, JSONValue

# Keywords of the strict subset as the provider's guide lists them; `title`, `description`, `$defs` and `const` are what
# its own client sends. Anything else is a 400 hours later ("'examples' is not permitted").
_ALLOWED = frozenset(
    {"type", "title", "description", "enum", "const", "anyOf", "$ref", "$defs", "definitions"}
    | {"properties", "required", "additionalProperties", "items", "minItems", "maxItems"}
    | {"pattern", "format", "minLength", "maxLength"}
    | {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
)
_TYPES = frozenset({"string", "number", "integer", "boolean", "null", "object", "array"})
_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
_SAYS_WHAT = frozenset({"type", "anyOf", "$ref", "enum", "const"})
_WAYS_OUT = {
    "default": "a default is not sent to the model; remove it",
    "oneOf": "use a plain union, which becomes anyOf",
    "prefixItems": "a tuple has no strict form; use a list or a model with named fields",
    "patternProperties": "use a list of models with a key field and a value field",
    "uniqueItems": "a set has no strict form; use a list",
    "examples": "put examples into the description",
}
_TYPE_OF: dict[type, str] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    type(None): "null",
}
# Said to people and to the model; an answer is held against none of it.
_PROSE = frozenset({"title", "description"})
_NAMED = frozenset({"properties", "$defs", "definitions"})
_LOOK_AROUND = re.compile(r"\(\?<?[=!]")
_LEGAL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MAX_NAME = 64

_Node: TypeAlias = dict[str, Any]


def default_schema_name(model: type[BaseModel]) -> str:
    """The class name in snake case, each capital a new word, in at most 64 characters of [a-z0-9_-]."""
    words = re.sub(r"[A-Z]", lambda capital: "_" + capital.group().lower(), model.__name__)
    legal = re.sub(r"[^a-z0-9_-]+", "_", words)
    if legal != words:
        # Only the closing bracket of a generic class ends in a replaced character.
        legal = legal.rstrip("_")
    name = re.sub(r"_{2,}", "_", legal).lstrip("_") or "output"
    if len(name) <= _MAX_NAME:
        return name
    return f"{name[: _MAX_NAME - 9]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def model_output_schema(model: type[BaseModel], *, schema_name: str | None = None) -> tuple[str, JSONObject]:
    """The schema name and strict schema of `model`; StructuredOutputSchemaError with the path where it has none."""
    name = default_schema_name(model) if schema_name is None else _checked_name(schema_name)
    try:
        schema = _json_schema(model)
    except (PydanticInvalidForJsonSchema, PydanticUserError) as error:
        raise StructuredOutputSchemaError(f"{model.__name__} has no JSON schema: {error.message}") from error
    return name, _Walk(model.__name__, schema).strict()


def _json_schema(model: type[BaseModel]) -> dict[str, Any]:
    own: Any = model.model_json_schema
    pydantics: Any = BaseModel.model_json_schema
    # A model that writes its own schema knows what it reads.
    return own() if own.__func__ is not pydantics.__func__ else own(schema_generator=_Readable)


class _Readable(GenerateJsonSchema):
    """Pydantic's schema; refused where it names a field by a key that the model would not read it from."""

    def model_schema(self, schema: ModelSchema) -> JsonSchemaValue:
        found = super().model_schema(schema)
        model = cast("type[BaseModel]", schema["cls"])
        if not (model.model_config.get("populate_by_name") or model.model_config.get("validate_by_name")):
            _check_readable(model, found.get("properties", {}))
        return found


def _check_readable(model: type[BaseModel], properties: Mapping[str, Any]) -> None:
    for name, info in model.model_fields.items():
        alias = info.validation_alias
        ways = alias.choices if isinstance(alias, AliasChoices) else [alias]
        by_path = [way.path for way in ways if isinstance(way, AliasPath)]
        if name in properties and by_path and name not in ways and [name] not in by_path:
            raise StructuredOutputSchemaError(
                f"{model.__name__} cannot be sent as a strict schema: the field {name!r} is read from a place within "
                "the answer (AliasPath), which the schema does not ask for, so no answer would fit; give it a plain "
                "alias, or a model for that place"
            )


def schema_hash(schema: Mapping[str, Any]) -> str:
    """A SHA-256 that changes with every field, their order and every constraint, not with the order of keywords."""
    # `required` lists the properties in order, so field order is covered although keys are sorted.
    text = json.dumps(schema, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def same_answers(one: JSONValue, other: JSONValue) -> bool:
    """Whether two schemas take the same answers; what only explains them to people and models does not count."""
    return _bare(one) == _bare(other)


def _bare(node: JSONValue) -> JSONValue:
    if isinstance(node, list):
        return [_bare(part) for part in node]
    if not isinstance(node, dict):
        return node
    kept = {key: value for key, value in node.items() if key not in _PROSE}
    return {key: _bare_values(value) if key in _NAMED else _bare(value) for key, value in kept.items()}


def _bare_values(named: JSONValue) -> JSONValue:
    """The keys of properties and definitions are names of fields, whatever they are called."""
    return {name: _bare(node) for name, node in named.items()} if isinstance(named, dict) else named


def _checked_name(name: str) -> str:
    if not _LEGAL_NAME.fullmatch(name):
        raise StructuredOutputSchemaError(
            f"schema_name {name!r} is not legal: use 1 to 64 characters of A-Z, a-z, 0-9, '_' and '-'"
        )
    return name


class _Walk:
    """One pass over a model's schema that closes objects and refuses what is outside the subset."""

    def __init__(self, model_name: str, root: Mapping[str, Any]) -> None:
        self._model_name, self._root = model_name, root

    def strict(self) -> JSONObject:
        root = dict(self._root)
        definitions = {key: root.pop(key) for key in ("$defs", "definitions") if key in root}
        if "$ref" in root:
            # A recursive model is a reference at its own root; the definition stays for the references inside.
            root = self._inlined(root, "$")
        if "anyOf" in root or "oneOf" in root:
            self._refuse("$", "a union at the root has no strict form; wrap it in a model with one field")
        if root.get("type") != "object":
            self._refuse("$", f"the root must be an object, not {root.get('type', 'any value')!r}")
        schema = self._node(root, "$")
        for key, named in definitions.items():
            schema[key] = {name: self._node(part, f"$.{key}.{name}") for name, part in named.items()}
        return schema

    def _node(self, node: object, path: str) -> _Node:
        if not isinstance(node, dict):
            self._refuse(path, f"{node!r} stands where a schema is needed")
        found = self._as_any_of(cast(_Node, node), path)
        if "$ref" in found and len(found) > 1:
            # The provider accepts nothing beside a $ref, and Pydantic writes descriptions there.
            return self._node(self._inlined(found, path), path)
        _add_type_of_choices(found)
        self._check_keywords(found, path)
        self._check_values(found, path)
        return self._with_children(found, path)

    def _as_any_of(self, node: _Node, path: str) -> _Node:
        """A tagged union is a oneOf whose branches exclude each other, for which anyOf says the same."""
        if "oneOf" not in node or "discriminator" not in node:
            return dict(node)
        if "anyOf" in node:
            self._refuse(path, "oneOf and anyOf stand side by side")
        renamed = {"anyOf" if key == "oneOf" else key: value for key, value in node.items()}
        del renamed["discriminator"]
        return renamed

    def _check_keywords(self, node: _Node, path: str) -> None:
        for key in node:
            if key not in _ALLOWED:
                hint = _WAYS_OUT.get(key)
                self._refuse(
                    f"{path}.{key}", f"the keyword {key!r} is outside the strict subset" + (f": {hint}" if hint else "")
                )
        if not _SAYS_WHAT & node.keys():
            self._refuse(path, "the schema says no type, so any value would do; give the field a type")

    def _check_values(self, node: _Node, path: str) -> None:
        for kind in _types_of(node):
            if kind not in _TYPES:
                self._refuse(f"{path}.type", f"{kind!r} is no JSON type")
        form = node.get("format")
        if form is not None and form not in _FORMATS:
            self._refuse(f"{path}.format", f"the format {form!r} is not one of {', '.join(sorted(_FORMATS))}; use str")
        if _LOOK_AROUND.search(str(node.get("pattern", ""))):
            self._refuse(
                f"{path}.pattern",
                "a pattern with look-around is not accepted (some versions of Pydantic give Decimal one); use float",
            )
        if "$ref" in node:
            self._target(str(node["$ref"]), path)

    def _with_children(self, node: _Node, path: str) -> _Node:
        types = set(_types_of(node))
        if "object" in types or "properties" in node:
            self._close(node, path)
        if "array" in types or "items" in node:
            if "items" not in node:
                self._refuse(path, "the array does not say what it holds; give the list an element type")
            node["items"] = self._node(node["items"], f"{path}.items")
        if "anyOf" in node:
            node["anyOf"] = [self._node(part, f"{path}.anyOf[{at}]") for at, part in enumerate(node["anyOf"])]
        for key in ("$defs", "definitions"):
            if key in node:
                node[key] = {name: self._node(part, f"{path}.{key}.{name}") for name, part in node[key].items()}
        return node

    def _close(self, node: _Node, path: str) -> None:
        if node.get("additionalProperties", False) is not False:
            self._refuse(
                f"{path}.additionalProperties",
                "an object open to other keys has no strict form; use a model, or a list of key and value",
            )
        if "properties" not in node:
            self._refuse(path, "an object without named properties has no strict form; use a model")
        properties = cast(_Node, node["properties"])
        self._check_required(properties, cast("list[str]", node.get("required", [])), path)
        node["properties"] = {key: self._node(part, f"{path}.properties.{key}") for key, part in properties.items()}
        node["required"] = list(properties)
        node["additionalProperties"] = False

    def _check_required(self, properties: Iterable[str], required: list[str], path: str) -> None:
        for key in properties:
            if key not in required:
                self._refuse(
                    f"{path}.properties.{key}",
                    f"the field {key!r} has a default, but every field must be required; remove the default, and write "
                    f"`{key}: T | None` where the model may say null",
                )
        for key in required:
            if key not in properties:
                self._refuse(f"{path}.required", f"{key!r} is required but no property")

    def _inlined(self, node: _Node, path: str) -> _Node:
        beside = {key: value for key, value in node.items() if key != "$ref"}
        seen: set[str] = set()
        reference = str(node["$ref"])
        target = self._target(reference, path)
        while "$ref" in target and reference not in seen:
            seen.add(reference)
            beside = {**{key: value for key, value in target.items() if key != "$ref"}, **beside}
            reference = str(target["$ref"])
            target = self._target(reference, path)
        if "$ref" in target:
            self._refuse(path, f"the reference {reference!r} leads only to itself")
        return {**target, **beside}

    def _target(self, reference: str, path: str) -> _Node:
        if reference != "#" and not reference.startswith("#/"):
            self._refuse(f"{path}.$ref", f"the reference {reference!r} leaves the schema")
        found: Any = self._root
        for part in reference.split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, dict) or key not in found:
                self._refuse(f"{path}.$ref", f"the reference {reference!r} leads nowhere")
            found = cast(_Node, found)[key]
        if not isinstance(found, dict):
            self._refuse(f"{path}.$ref", f"the reference {reference!r} leads to no schema")
        return cast(_Node, found)

    def _refuse(self, path: str, why: str) -> Any:
        raise StructuredOutputSchemaError(f"{self._model_name} cannot be sent as a strict schema: at {path}, {why}")


def _add_type_of_choices(node: _Node) -> None:
    """Choices of several types come without a `type`, which the provider wants at every place."""
    choices: list[object] = node.get("enum", [node["const"]] if "const" in node else [])
    if choices and "type" not in node and all(type(choice) in _TYPE_OF for choice in choices):
        types = list(dict.fromkeys(_TYPE_OF[type(choice)] for choice in choices))
        node["type"] = types if len(types) > 1 else types[0]


def _types_of(node: _Node) -> list[str]:
    kind = node.get("type", [])
    return [kind] if isinstance(kind, str) else [str(part) for part in kind]
