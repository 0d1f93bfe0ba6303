"""Numbers in sentences."""

from __future__ import annotations

import pytest

from batchor_engine import counted


@pytest.mark.parametrize(
    ("count", "noun", "told"),
    [
        (0, "row", "0 rows"),
        (1, "batch", "1 batch"),
        (2, "batch", "2 batches"),
        (1000, "failed row", "1,000 failed rows"),
    ],
)
def test_a_number_agrees_with_its_noun(count: int, noun: str, told: str) -> None:
    assert counted(count, noun) == told
