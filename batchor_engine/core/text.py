"""What text can be stored."""

from __future__ import annotations


def is_whole(text: str | None) -> bool:
    """Whether a text can be written as UTF-8, which half a surrogate pair cannot; no text can."""
    try:
        (text or "").encode()
    except UnicodeEncodeError:
        return False
    return True
