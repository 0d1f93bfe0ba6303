from __future__ import annotations

import base64
import struct
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchor_engine.core.vectors import pack, unpack

FLOATS = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=40)


@given(FLOATS)
def test_a_vector_of_32_bit_floats_survives_to_the_bit(numbers: list[float]) -> None:
    assert unpack(pack(list(numbers))).tolist() == array("f", numbers).tolist()
    assert unpack(base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()).tolist() == numbers


def test_whole_numbers_are_numbers() -> None:
    assert unpack(pack([0, 1, -2])).tolist() == [0.0, 1.0, -2.0]


@pytest.mark.parametrize(
    "numbers", [[], [True], ["1"], [None], [float("nan")], [1.0, float("inf")], [1e39], [[1.0]], [10**400]]
)
def test_what_is_no_vector_is_refused(numbers: list[object]) -> None:
    with pytest.raises(ValueError, match=r"no number|not finite|no vector|too large"):
        pack(numbers)


NAN = base64.b64encode(struct.pack("<2f", 1.0, float("nan"))).decode()


@pytest.mark.parametrize("text", ["", "AAA=", "not base64!", "AAAAAA==\n", "\u00e9AAA", NAN])
def test_a_text_that_is_no_vector_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no vector|base64|padding|not finite|ASCII"):
        unpack(text)
