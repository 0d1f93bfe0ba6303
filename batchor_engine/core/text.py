"""What text can be stored, and how numbers are told."""

from __future__ import annotations


def is_whole(text: str | None) -> bool:
    """Whether a text can be written as UTF-8, which half a surrogate pair cannot; no text can."""
    try:
        (text or "").encode()
    except UnicodeEncodeError:
        return False
    return True


def words_of(error: BaseException) -> str:
    """What an exception of the user's code says, as text that can be stored; where its own __str__ fails, that."""
    try:
        said = str(error)
    except (Exception, SystemExit) as defect:  # noqa: BLE001 - the user may raise what he likes
        return f"(its __str__ raised {type(defect).__name__})"
    return said.encode(errors="backslashreplace").decode()


def counted(count: int, noun: str) -> str:
    """A number with its noun: 1 batch, 2 batches, 1,000 rows; for nouns with a regular plural."""
    plural = noun + ("es" if noun.endswith(("ch", "sh", "s", "x")) else "s")
    return f"{count:,} {noun if count == 1 else plural}"
