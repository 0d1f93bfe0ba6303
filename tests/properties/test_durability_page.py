"""docs/durability.md names tests; each of them exists, and each crash point has its line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ..crash.points import POINTS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "durability.md").read_text("utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_named_test_exists(file: str, name: str) -> None:
    assert re.search(rf"^(def {name}\(|{name} = )", (ROOT / file).read_text("utf-8"), re.MULTILINE)


def test_every_crash_point_has_a_line() -> None:
    assert {point for point in POINTS if f"`{point}`" in PAGE} == set(POINTS)
    assert len(NAMED) > 30
