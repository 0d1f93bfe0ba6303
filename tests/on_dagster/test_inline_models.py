"""Models whose fields stand in YAML: the same class everywhere, by name alone."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

from batchor_dagster import inline_models
from batchor_dagster.inline_models import OutputField, inline_model
from batchor_engine import column_descriptions, default_schema_name, model_output_schema

FIELDS = {
    "product": OutputField(type="enum", values=["hub", "lamp"], description="Which one"),
    "urgency": "int",
    "refund": OutputField(type="float", nullable=True),
    "parts": OutputField(type="list", items=OutputField(type="object", fields={"name": OutputField(type="str")})),
}
ANSWER = {"product": "hub", "urgency": 3, "refund": None, "parts": [{"name": "lid"}]}


def test_the_same_fields_are_the_same_class() -> None:
    assert inline_model("ticket_triage", FIELDS) is inline_model("ticket_triage", dict(FIELDS))
    assert inline_model("ticket_triage", FIELDS) is not inline_model("ticket_triage", {"urgency": "int"})


def test_answers_survive_pickling() -> None:
    answer = inline_model("ticket_triage", FIELDS)(**ANSWER)
    assert pickle.loads(pickle.dumps(answer)) == answer


def test_another_process_finds_the_class_by_its_name() -> None:
    model = inline_model("ticket_triage", FIELDS)
    code = (
        "import sys; from batchor_dagster import inline_models as m;"
        f"print(getattr(m, sys.argv[1]).model_json_schema() == {model.model_json_schema()!r})"
    )
    said = subprocess.run([sys.executable, "-c", code, model.__qualname__], capture_output=True, text=True, check=True)
    assert said.stdout == "True\n"


def test_the_provider_and_the_reader_see_plain_names_and_columns() -> None:
    model = inline_model("ticket_triage", FIELDS)
    assert default_schema_name(model) == "ticket_triage"
    schema = model_output_schema(model)[1]
    assert schema["properties"]["product"] == {
        "description": "Which one",
        "enum": ["hub", "lamp"],
        "title": "Product",
        "type": "string",
    }
    columns = {one.name: (one.type, one.nullable) for one in column_descriptions(model)}
    assert columns["refund"] == ("float64", True)
    assert columns["parts"] == ("list<struct<name: string>>", False)


@pytest.mark.parametrize("name", ["Triage", "Triage__", "Triage__!!!", "Triage__e30", "Triage__W10"])
def test_another_name_is_not_there(name: str) -> None:
    assert not hasattr(inline_models, name)
