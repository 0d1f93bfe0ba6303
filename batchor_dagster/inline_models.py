"""Answer models whose fields stand in YAML instead of in a class.

Law: the qualified name of such a model holds its fields, so every process that can import this module finds it again:
one that has loaded no definitions, and one whose YAML has changed since the run was paid for.
"""

import base64
import functools
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, create_model, model_validator
from pydantic.json_schema import JsonSchemaValue

FieldKind = Literal["str", "int", "float", "bool", "enum", "list", "object"]
_PLAIN: dict[str, Any] = {"str": str, "int": int, "float": float, "bool": bool}
_SEPARATOR = "__"


class OutputField(BaseModel):
    """One field of an answer."""

    model_config = ConfigDict(extra="forbid")

    type: FieldKind = Field(
        description="str, int, float, bool, enum (with values), list (of items), object (of fields)"
    )
    description: str | None = Field(default=None, description="Told to the model")
    nullable: bool = Field(default=False, description="Whether the model may answer null")
    values: list[str] | None = Field(default=None, min_length=1, description="What an enum may be")
    items: "OutputField | None" = Field(default=None, description="What a list holds")
    fields: "dict[str, OutputField] | None" = Field(default=None, description="What an object holds, by name")

    @model_validator(mode="before")
    @classmethod
    def _long(cls, given: Any) -> Any:
        """`urgency: int` is short for `urgency: {type: int}`."""
        return {"type": given} if isinstance(given, str) else given

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [{"type": "string", "enum": list(_PLAIN)}, handler(core)]}

    @model_validator(mode="after")
    def _has_its_parts(self) -> "OutputField":
        parts = {"enum": "values", "list": "items", "object": "fields"}
        for kind, part in parts.items():
            given = getattr(self, part) is not None
            if given and self.type != kind:
                raise ValueError(f"{part} belongs to type {kind}, not to {self.type}")
            if self.type == kind and not given:
                raise ValueError(f"type {kind} needs {part}")
        if self.fields is not None:
            check_field_names(self.fields)
        return self


OutputFields = dict[str, OutputField]


def check_field_names(fields: Mapping[str, Any]) -> None:
    """ValueError for no fields at all, or for one whose name a Python model cannot have."""
    if not fields:
        raise ValueError("an answer needs at least one field")
    for name in fields:
        if not name.isidentifier() or name.startswith("_") or hasattr(BaseModel, name):
            raise ValueError(f"{name!r} cannot be the name of a field: choose another")


def inline_model(name: str, fields: Mapping[str, OutputField | str]) -> type[BaseModel]:
    """The model called `name`, as a Python class is called, with these fields in their order.

    The same name and fields give the same class.

    Example:
        >>> inline_model("Triage", {"urgency": "int"})(urgency=3)
        Triage(urgency=3)
    """
    check_field_names(fields)
    plain = {
        key: spec if isinstance(spec, str) else spec.model_dump(exclude_defaults=True) for key, spec in fields.items()
    }
    return _model_of(f"{_class_name(name)}{_SEPARATOR}{_pack(plain)}")


def __getattr__(name: str) -> type[BaseModel]:
    try:
        return _model_of(name)
    except ValueError as error:
        raise AttributeError(f"{__name__} has no model {name!r}") from error


@functools.cache
def _model_of(qualname: str) -> type[BaseModel]:
    """The class of a qualified name; ValueError where it is none of ours."""
    name, separator, packed = qualname.partition(_SEPARATOR)
    if not separator:
        raise ValueError(f"{qualname!r} holds no fields")
    specs = {key: OutputField.model_validate(spec) for key, spec in _unpack(packed).items()}
    fields: Any = {key: (_type_of(key, spec), Field(description=spec.description)) for key, spec in specs.items()}
    made = create_model(name, __module__=__name__, __config__=ConfigDict(extra="forbid"), **fields)
    made.__qualname__ = qualname
    return made


def _type_of(name: str, spec: OutputField) -> Any:
    kind = _bare_type(name, spec)
    return kind | None if spec.nullable else kind


def _bare_type(name: str, spec: OutputField) -> Any:
    if spec.type == "enum":
        return Literal[tuple(spec.values or ())]
    if spec.items is not None:
        return list[Annotated[_type_of(name, spec.items), Field(description=spec.items.description)]]
    if spec.fields is not None:
        return inline_model(name, spec.fields)
    return _PLAIN[spec.type]


def _class_name(text: str) -> str:
    """ticket_kind as TicketKind."""
    words = re.findall(r"[A-Za-z0-9]+", text)
    name = "".join(word[0].upper() + word[1:] for word in words) or "Answer"
    return name if not name[0].isdigit() else f"Answer{name}"


def _pack(fields: Mapping[str, Any]) -> str:
    """JSON as letters, digits, - and _; not compressed, because another zlib would give another name."""
    text = json.dumps(fields, separators=(",", ":"), ensure_ascii=False)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _unpack(packed: str) -> dict[str, Any]:
    fields = json.loads(base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4)))
    if not isinstance(fields, dict):
        raise ValueError("fields are a JSON object")
    check_field_names(fields)
    return fields
