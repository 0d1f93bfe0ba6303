"""How often Python looks for garbage while rows are moved in bulk."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel, field_validator

from batchor_engine.runtime.garbage import SELDOM, seldom_collected

from .conftest import World


class Noted(BaseModel):
    """Looks at the thresholds whenever an answer is read as it."""

    seen: ClassVar[set[int]] = set()
    species: str

    @field_validator("species")
    @classmethod
    def look(cls, value: str) -> str:
        cls.seen.add(gc.get_threshold()[0])
        return value


@pytest.fixture(autouse=True)
def _thresholds_of_python() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.set_threshold(*before)


def test_the_thresholds_are_back_when_the_last_bulk_ends() -> None:
    with seldom_collected():
        with seldom_collected():
            assert gc.get_threshold() == (SELDOM, 10, 10)
        assert gc.get_threshold() == (SELDOM, 10, 10)
    assert gc.get_threshold() == (700, 10, 10)


def test_the_thresholds_are_back_after_an_error() -> None:
    with pytest.raises(ValueError, match="bad"), seldom_collected():
        raise ValueError("bad")
    assert gc.get_threshold() == (700, 10, 10)


@pytest.mark.parametrize("mine", [(0, 10, 10), (SELDOM + 1, 5, 5)])
def test_a_collector_that_is_off_or_rarer_still_stays_as_it_is(mine: tuple[int, int, int]) -> None:
    gc.set_threshold(*mine)
    with seldom_collected():
        assert gc.get_threshold() == mine
    assert gc.get_threshold() == mine


def test_thresholds_set_in_the_meantime_stay() -> None:
    with seldom_collected():
        gc.set_threshold(5000, 9, 9)
    assert gc.get_threshold() == (5000, 9, 9)


def test_rows_are_made_and_collected_with_a_rare_collector(world: World) -> None:
    made: set[int] = set()

    def prompt(item: Any) -> str:
        made.add(gc.get_threshold()[0])
        return str(item.payload)

    Noted.seen.clear()
    world.runner().run_and_wait(world.job(3, build_prompt=prompt, structured_output=Noted))
    assert made == Noted.seen == {SELDOM}
    assert gc.get_threshold() == (700, 10, 10)
