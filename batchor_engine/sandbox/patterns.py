"""Strings that match a regular expression, for the common part of the language; None when it is too clever for us."""

from __future__ import annotations

import re
import string
from random import Random

CLASSES = {"d": string.digits, "w": string.ascii_lowercase + string.digits + "_", "s": " "}
PRINTABLE = string.ascii_letters + string.digits + " .,-_/:;!?@#$%&*+=()"
OPEN_REPEAT = 3
QUANTIFIERS = {"*": (0, OPEN_REPEAT), "+": (1, OPEN_REPEAT), "?": (0, 1)}


class _TooCleverError(Exception):
    """The pattern uses something that this generator does not know."""


def string_for(pattern: str, rng: Random) -> str | None:
    """A string in which the pattern is found, or None."""
    try:
        made = _Maker(pattern, rng).alternatives()
        return made if re.search(pattern, made) else None
    except (_TooCleverError, IndexError, re.error):
        return None


class _Maker:
    """A recursive descent over the pattern that writes a match as it reads."""

    def __init__(self, pattern: str, rng: Random) -> None:
        self._pattern = pattern
        self._at = 0
        self._rng = rng

    def alternatives(self) -> str:
        """One of the branches between `|`, up to a closing bracket or the end."""
        branches = [self._sequence()]
        while self._peek() == "|":
            self._at += 1
            branches.append(self._sequence())
        return self._rng.choice(branches)

    def _peek(self) -> str:
        return self._pattern[self._at] if self._at < len(self._pattern) else ""

    def _take(self) -> str:
        char = self._pattern[self._at]
        self._at += 1
        return char

    def _sequence(self) -> str:
        made: list[str] = []
        while self._peek() not in ("", "|", ")"):
            made.append(self._repeated())
        return "".join(made)

    def _repeated(self) -> str:
        start = self._at
        piece = self._atom()
        end = self._at
        low, high = self._quantifier()
        if (low, high) == (1, 1):
            return piece
        made: list[str] = []
        after = self._at
        for _ in range(self._rng.randint(low, high)):
            self._at = start
            made.append(self._atom())
            assert self._at == end
        self._at = after
        return "".join(made)

    def _quantifier(self) -> tuple[int, int]:
        char = self._peek()
        low, high = QUANTIFIERS.get(char, (1, 1))
        if char in QUANTIFIERS:
            self._at += 1
        elif char == "{":
            close = self._pattern.index("}", self._at)
            first, comma, last = self._pattern[self._at + 1 : close].partition(",")
            low = int(first or 0)
            high = int(last) if last else (low + OPEN_REPEAT if comma else low)
            self._at = close + 1
        if char in ("*", "+", "?", "{") and self._peek() == "?":
            self._at += 1
        return low, high

    def _atom(self) -> str:
        char = self._take()
        if char == "(":
            return self._group()
        if char == "[":
            return self._rng.choice(self._set())
        if char == ".":
            return self._rng.choice(string.ascii_lowercase)
        if char in "^$":
            return ""
        if char == "\\":
            return self._rng.choice(self._escape(self._take()) or [""])
        if char in "*+?{":
            raise _TooCleverError
        return char

    def _group(self) -> str:
        if self._peek() == "?":
            if self._pattern.startswith("?:", self._at):
                self._at += 2
            elif self._pattern.startswith("?P<", self._at):
                self._at = self._pattern.index(">", self._at) + 1
            else:
                raise _TooCleverError
        made = self.alternatives()
        if self._take() != ")":
            raise _TooCleverError
        return made

    def _escape(self, char: str) -> list[str]:
        if char in CLASSES:
            return list(CLASSES[char])
        if char.lower() in CLASSES:
            return [one for one in PRINTABLE if one not in CLASSES[char.lower()]]
        if char in "AZbz":
            return []
        if char.isalnum():
            raise _TooCleverError
        return [char]

    def _set(self) -> list[str]:
        negative = self._peek() == "^"
        self._at += negative
        chars: list[str] = []
        while self._peek() != "]" or not chars:
            chars += self._member()
        self._at += 1
        return [one for one in PRINTABLE if one not in chars] if negative else chars

    def _member(self) -> list[str]:
        char = self._take()
        if char == "\\":
            found = self._escape(self._take())
            if len(found) != 1:
                return found
            char = found[0]
        if self._peek() == "-" and self._pattern[self._at + 1] != "]":
            self._at += 1
            last = self._take()
            last = self._take() if last == "\\" else last
            return [chr(code) for code in range(ord(char), min(ord(last), ord(char) + 200) + 1)]
        return [char]
