from __future__ import annotations

import datetime as dt
import json
import re
import uuid
from enum import Enum
from typing import Annotated, Any, Generic, Literal, Optional, TypeVar

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AliasChoices, AliasPath, AnyUrl, BaseModel, ConfigDict, Field, RootModel, create_model

from batchor_engine.core.parsing import parse_answer
from batchor_engine.core.strict_schema import default_schema_name, model_output_schema, schema_hash
from batchor_engine.errors import StructuredOutputSchemaError
from batchor_engine.sandbox.schema_check import schema_problem

T = TypeVar("T")


class TideGaugeReport(BaseModel):
    station: str
    metres: float


class Node(BaseModel):
    label: str
    children: list[Node]


class Left(BaseModel):
    kind: Literal["left"]
    weight: int


class Right(BaseModel):
    kind: Literal["right"]
    note: str


class Page(BaseModel, Generic[T]):
    rows: list[T]


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


def strict(model: type[BaseModel]) -> dict[str, Any]:
    return model_output_schema(model)[1]


@pytest.mark.parametrize(
    ("class_name", "name"),
    [
        ("TideGaugeReport", "tide_gauge_report"),
        ("HTTPResult", "h_t_t_p_result"),
        ("_Hidden", "hidden"),
        ("__VeryHidden", "very_hidden"),
        ("My_Model", "my_model"),
        ("plain", "plain"),
        ("Model2", "model2"),
        ("Trailing_", "trailing_"),
        ("Page[int]", "page_int"),
        ("Page[TideGaugeReport]", "page_tide_gauge_report"),
        ("Pair[int, str]", "pair_int_str"),
        ("日本", "output"),
    ],
)
def test_schema_name_is_the_class_name_in_snake_case(class_name: str, name: str) -> None:
    assert default_schema_name(create_model(class_name)) == name


def test_a_generic_class_gets_a_legal_name() -> None:
    assert default_schema_name(Page[TideGaugeReport]) == "page_tide_gauge_report"


@given(st.text(min_size=1, max_size=200).filter(lambda text: "\x00" not in text))
def test_every_derived_name_is_legal(class_name: str) -> None:
    model = type("Base", (BaseModel,), {})
    model.__name__ = class_name.encode("utf-8", "replace").decode()
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", default_schema_name(model))


def test_two_long_names_with_one_beginning_stay_apart() -> None:
    first, second = ("X" * 60 + end for end in ("Apple", "Pear"))
    assert default_schema_name(create_model(first)) != default_schema_name(create_model(second))


@pytest.mark.parametrize("name", ["", "two words", "ü", "x" * 65, "dot.ted", "line\n"])
def test_an_illegal_given_name_is_refused(name: str) -> None:
    with pytest.raises(StructuredOutputSchemaError, match="schema_name"):
        model_output_schema(TideGaugeReport, schema_name=name)


def test_a_given_name_replaces_the_derived_one() -> None:
    assert model_output_schema(TideGaugeReport, schema_name="My-Report_1")[0] == "My-Report_1"


def test_every_object_is_closed_and_requires_every_property() -> None:
    class Outer(BaseModel):
        inner: TideGaugeReport
        many: list[TideGaugeReport]

    schema = strict(Outer)
    nested = schema["$defs"]["TideGaugeReport"]
    assert schema["additionalProperties"] is nested["additionalProperties"] is False
    assert schema["required"] == ["inner", "many"]
    assert nested["required"] == ["station", "metres"]


def test_a_forbidding_model_is_already_closed() -> None:
    class Closed(BaseModel):
        model_config = ConfigDict(extra="forbid")
        x: int

    assert strict(Closed)["additionalProperties"] is False


class _Accepted:
    class Nullable(BaseModel):
        x: int | None

    class OldNullable(BaseModel):
        x: Optional[list[str]]  # noqa: UP045 - users still write it

    class Union(BaseModel):
        side: Left | Right | str

    class NestedUnion(BaseModel):
        sides: list[Left | list[Right | None]]

    class Tagged(BaseModel):
        side: Annotated[Left | Right, Field(discriminator="kind")]

    class Choices(BaseModel):
        one: Literal["a"]
        many: Literal["a", "b", 3]
        colour: Colour

    class Limits(BaseModel):
        count: int = Field(ge=1, le=9, multiple_of=2)
        share: float = Field(gt=0, lt=1)
        names: list[str] = Field(min_length=1, max_length=3)
        code: str = Field(min_length=2, max_length=4, pattern="^[a-z]+$")

    class Formats(BaseModel):
        day: dt.date
        moment: dt.datetime
        clock: dt.time
        span: dt.timedelta
        key: uuid.UUID

    class Described(BaseModel):
        """A model with words."""

        side: Left = Field(description="which side", title="Side")
        colour: Colour = Field(description="which colour")

    class Empty(BaseModel):
        pass

    class Aliased(BaseModel):
        kind_of: str = Field(alias="kindOf")

    class Keywordish(BaseModel):
        anyOf: str
        default: int
        ref: str = Field(alias="$ref")
        properties: list[str]
        oneOf: bool
        required: str

    class Inside(BaseModel):
        tree: Node
        again: Node | None


@pytest.mark.parametrize(
    "model", [value for value in vars(_Accepted).values() if isinstance(value, type)], ids=lambda m: m.__name__
)
def test_what_strict_mode_knows_is_accepted(model: type[BaseModel]) -> None:
    schema = strict(model)
    jsonschema.Draft202012Validator.check_schema(schema)
    # The sandbox judges by the provider's rules, written down independently.
    assert schema_problem(schema) is None


def test_choices_of_several_types_get_the_types_they_have() -> None:
    assert strict(_Accepted.Choices)["properties"]["many"]["type"] == ["string", "integer"]


def test_a_property_that_is_called_any_of_is_just_a_property() -> None:
    assert set(strict(_Accepted.Keywordish)["properties"]) == {
        "anyOf",
        "default",
        "$ref",
        "properties",
        "oneOf",
        "required",
    }


def test_a_recursive_model_keeps_its_definition_and_gets_an_object_root() -> None:
    schema = strict(Node)
    assert schema["type"] == "object"
    assert "$ref" not in schema
    assert schema["properties"]["children"]["items"] == {"$ref": "#/$defs/Node"}
    assert schema["$defs"]["Node"]["additionalProperties"] is False
    jsonschema.validate({"label": "a", "children": [{"label": "b", "children": []}]}, schema)


def test_nothing_stands_beside_a_reference() -> None:
    side = strict(_Accepted.Described)["properties"]["side"]
    assert "$ref" not in side
    assert side["description"] == "which side"
    assert side["additionalProperties"] is False


def test_a_tagged_union_becomes_any_of() -> None:
    side = strict(_Accepted.Tagged)["properties"]["side"]
    assert side["anyOf"] == [{"$ref": "#/$defs/Left"}, {"$ref": "#/$defs/Right"}]
    assert "discriminator" not in side


class _Refused:
    class Defaulted(BaseModel):
        x: int = 3

    class NullableDefault(BaseModel):
        note: str | None = None

    class NestedDefault(BaseModel):
        inner: list[_Refused.Defaulted]

    class FreeForm(BaseModel):
        data: dict[str, Any]

    class TypedDictionary(BaseModel):
        data: dict[str, int]

    class Bare(BaseModel):
        data: dict

    class Open(BaseModel):
        model_config = ConfigDict(extra="allow")
        x: int

    class Tuple(BaseModel):
        pair: tuple[int, str]

    class Unique(BaseModel):
        tags: set[str]

    class Anything(BaseModel):
        value: Any

    class AnyList(BaseModel):
        values: list[Any]

    class BareList(BaseModel):
        values: list

    class Link(BaseModel):
        url: AnyUrl

    class Examples(BaseModel):
        x: int = Field(examples=[1])

    class AllOf(BaseModel):
        x: int = Field(json_schema_extra={"allOf": [{"type": "integer"}]})

    class Not(BaseModel):
        x: int = Field(json_schema_extra={"not": {"type": "string"}})

    class OneOf(BaseModel):
        x: int = Field(json_schema_extra={"oneOf": [{"type": "integer"}]})

    class DefaultKeyword(BaseModel):
        x: int = Field(json_schema_extra={"default": 1})

    class BytesField(BaseModel):
        x: bytes

    class PatternKeys(BaseModel):
        x: dict[Annotated[str, Field(pattern="^a")], int]

    class LookAround(BaseModel):
        x: str = Field(json_schema_extra={"pattern": "^(?!a)"})


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("Defaulted", "$.properties.x,"),
        ("NullableDefault", "$.properties.note,"),
        ("NestedDefault", "$.$defs.Defaulted.properties.x,"),
        ("FreeForm", "$.properties.data.additionalProperties,"),
        ("TypedDictionary", "$.properties.data.additionalProperties,"),
        ("Bare", "$.properties.data.additionalProperties,"),
        ("Open", "$.additionalProperties,"),
        ("Tuple", "$.properties.pair.prefixItems,"),
        ("Unique", "$.properties.tags.uniqueItems,"),
        ("Anything", "$.properties.value,"),
        ("AnyList", "$.properties.values.items,"),
        ("BareList", "$.properties.values.items,"),
        ("Link", "$.properties.url.format,"),
        ("Examples", "$.properties.x.examples,"),
        ("AllOf", "$.properties.x.allOf,"),
        ("Not", "$.properties.x.not,"),
        ("OneOf", "$.properties.x.oneOf,"),
        ("DefaultKeyword", "$.properties.x.default,"),
        ("BytesField", "$.properties.x.format,"),
        ("PatternKeys", "$.properties.x.patternProperties,"),
        ("LookAround", "$.properties.x.pattern,"),
    ],
)
def test_what_strict_mode_refuses_is_refused_here_with_its_path(name: str, path: str) -> None:
    with pytest.raises(StructuredOutputSchemaError) as caught:
        model_output_schema(getattr(_Refused, name))
    assert f"{name} cannot be sent as a strict schema: at {path}" in str(caught.value)


def test_a_default_is_refused_with_the_field_and_the_way_out() -> None:
    with pytest.raises(
        StructuredOutputSchemaError, match=r"'note' has a default.*remove the default.*`note: T | None`"
    ):
        model_output_schema(_Refused.NullableDefault)


@pytest.mark.parametrize(
    "model",
    [RootModel[list[int]], RootModel[int], RootModel[Left | Right], RootModel[dict[str, int]]],
    ids=["list", "int", "union", "dict"],
)
def test_a_root_that_is_no_object_is_refused(model: type[BaseModel]) -> None:
    with pytest.raises(StructuredOutputSchemaError, match=r"at \$"):
        model_output_schema(model)


def test_a_model_without_any_json_schema_is_a_schema_error() -> None:
    class Lock:
        pass

    class Holder(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        lock: Lock

    with pytest.raises(StructuredOutputSchemaError, match="Holder has no JSON schema"):
        model_output_schema(Holder)


@pytest.mark.parametrize(
    ("part", "complaint"),
    [
        ({"$ref": "#/$defs/Nowhere"}, "leads nowhere"),
        ({"$ref": "https://example.org/schema"}, "leaves the schema"),
        ({"$ref": "#/$defs/Loop", "title": "t"}, "leads only to itself"),
        ({"type": "thing"}, "'thing' is no JSON type"),
        ({"type": "object"}, "without named properties"),
        ({"type": ["object", "null"]}, "without named properties"),
        (True, "stands where a schema is needed"),
        ({"type": "object", "properties": {}, "required": ["x"]}, "'x' is required but no property"),
    ],
)
def test_a_schema_written_by_hand_is_checked_too(part: Any, complaint: str) -> None:
    class Handmade(BaseModel):
        x: int

        @classmethod
        def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
            loop = {"$ref": "#/$defs/Loop"}
            return {"type": "object", "properties": {"x": part}, "required": ["x"], "$defs": {"Loop": loop}}

    with pytest.raises(StructuredOutputSchemaError, match=re.escape(complaint)):
        model_output_schema(Handmade)


def test_the_models_own_schema_is_not_changed() -> None:
    before = TideGaugeReport.model_json_schema()
    strict(TideGaugeReport)
    assert TideGaugeReport.model_json_schema() == before


def test_the_hash_sees_fields_their_order_and_constraints() -> None:
    models = [
        create_model("M", a=(int, ...), b=(int, ...)),
        create_model("M", b=(int, ...), a=(int, ...)),
        create_model("M", a=(int, ...)),
        create_model("M", a=(int, ...), b=(int, Field(ge=1))),
        create_model("M", a=(int, ...), b=(str, ...)),
    ]
    assert len({schema_hash(strict(model)) for model in models}) == len(models)


def test_the_hash_does_not_see_the_order_of_keywords() -> None:
    schema = strict(TideGaugeReport)
    assert schema_hash(dict(reversed(schema.items()))) == schema_hash(schema)


class Pathed(BaseModel):
    a: str = Field(validation_alias=AliasPath("x", 0))


class HoldsPathed(BaseModel):
    parts: list[Pathed]


class PathedOnce(BaseModel):
    a: str = Field(validation_alias=AliasPath("x"))


@pytest.mark.parametrize("model", [Pathed, HoldsPathed, PathedOnce])
def test_a_field_that_is_read_from_within_the_answer_is_refused(model: type[BaseModel]) -> None:
    with pytest.raises(StructuredOutputSchemaError, match=r"Pathed.* the field 'a' is read from a place within"):
        model_output_schema(model)


class ByName(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    a: str = Field(validation_alias=AliasPath("x", 0))


class ByOneOfTheNames(BaseModel):
    a: str = Field(validation_alias=AliasChoices(AliasPath("x", 0), "y"))


class ByValidationAlias(BaseModel):
    a: str = Field(validation_alias="y", serialization_alias="z")


@pytest.mark.parametrize("model", [ByName, ByOneOfTheNames, ByValidationAlias])
def test_an_answer_under_the_names_of_the_schema_is_read(model: type[BaseModel]) -> None:
    _, schema = model_output_schema(model)
    (name,) = schema["required"]
    assert parse_answer(json.dumps({name: "text"}), model).a == "text"
