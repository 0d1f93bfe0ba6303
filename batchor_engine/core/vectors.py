"""Embedding vectors as they are stored: base64 of little-endian 32-bit floats, as the provider itself packs them.

Law: a vector has at least one number and no NaN or infinity; a packed vector is stored as it came, to the bit.
"""

from __future__ import annotations

import base64
import math
import sys
from array import array
from typing import cast


def unpack(text: str) -> array[float]:
    """The vector in a base64 text; ValueError where it holds none."""
    packed = base64.b64decode(text, validate=True)
    vector = array("f")
    if not packed or len(packed) % vector.itemsize:
        raise ValueError(f"{len(packed)} bytes are no vector of 32-bit floats")
    vector.frombytes(packed)
    if sys.byteorder == "big":
        vector.byteswap()
    # One number that is none makes the sum none; floats of 32 bits cannot overflow it.
    if not math.isfinite(sum(vector)):
        raise ValueError("the vector holds a number that is not finite")
    return vector


def pack(numbers: list[object]) -> str:
    """Numbers as the text that unpack() reads; ValueError where they are no vector."""
    if not all(type(number) is float or type(number) is int for number in numbers):
        raise ValueError("the vector holds something that is no number")
    try:
        vector = array("f", cast("list[float]", numbers))
    except OverflowError:
        raise ValueError("the vector holds a number too large for 32 bits") from None
    if sys.byteorder == "big":
        vector.byteswap()
    text = base64.b64encode(vector.tobytes()).decode("ascii")
    unpack(text)
    return text
