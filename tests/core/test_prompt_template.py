"""Prompts with {column} placeholders."""

from __future__ import annotations

import pytest

from batchor_engine import BatchItem, PromptParts, PromptTemplate


def test_columns_stand_once_in_their_order() -> None:
    assert PromptTemplate("{b} {a} {b} {with space}").columns == ("b", "a", "with space")


def test_an_item_becomes_a_prompt_with_the_system_prompt() -> None:
    ask = PromptTemplate("{title}: {body} {{as JSON}}", "Be brief.")
    item = BatchItem("i", ask.payload({"title": 7, "body": None, "other": "x"}))
    assert ask(item) == PromptParts("7:  {as JSON}", system_prompt="Be brief.")
    assert item.payload == {"title": "7", "body": ""}


def test_a_cell_with_braces_is_not_read_as_a_template() -> None:
    assert PromptTemplate("{a} {b}").render({"a": "{b}", "b": "}}"}) == "{b} }}"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{body", "'{' at character 1"),
        ("a} {b}", "'}' at character 2"),
        ("{}", "'{' at"),
        ("body", r"names no \{column"),
    ],
)
def test_a_template_that_cannot_be_right_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        PromptTemplate(text)
