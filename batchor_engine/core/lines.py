"""One line of a request file, as bytes: finding and changing its custom id without reading the rest.

Law: "custom_id" is the first key of every line, so a retry rewrites that prefix and leaves all other bytes as they are.
"""

from __future__ import annotations

import re

from pydantic_core import from_json, to_json

_PREFIX = re.compile(rb'\{\s*"custom_id"\s*:\s*("[^"\\]*+(?:\\.[^"\\]*+)*+")')


def with_custom_id(line: bytes, custom_id: str) -> bytes:
    """The line under another custom id; ValueError where "custom_id" is not its first key."""
    return b'{"custom_id":' + to_json(custom_id) + line[_id_of(line).end(1) :]


def custom_id_of(line: bytes) -> str:
    """The custom id of a line; ValueError where "custom_id" is not its first key."""
    return from_json(_id_of(line)[1])


def id_and_body(line: bytes) -> tuple[bytes, bytes]:
    """A line's custom id as JSON text, and all of the line but that: equal for every attempt of one row."""
    found = _id_of(line)
    return found[1], line[found.end(1) :].rstrip(b"\n")


def _id_of(line: bytes) -> re.Match[bytes]:
    found = _PREFIX.match(line)
    if found is None:
        raise ValueError(f'a request line must start with the key "custom_id", but starts with {line[:40]!r}')
    return found
