"""What one line of an output or error file says: the quick way where that is sure, else the long one.

Law: imported with the first batch that is read and not before, since the quick way costs an import of its own.
"""

from __future__ import annotations

from typing import NamedTuple

from batchor_engine.config import OpenAIEndpoint
from batchor_engine.core.outcomes import Missing, Outcome
from batchor_engine.providers.plain_lines import read_plain
from batchor_engine.providers.wire import DATA_READERS, id_of, read_object, read_record


class Line(NamedTuple):
    """One line of an output or error file; `custom_id` is None where no row can be told from it."""

    custom_id: str | None
    outcome: Outcome


def read_line(line: bytes, endpoint: OpenAIEndpoint = OpenAIEndpoint.RESPONSES) -> Line:
    """What one line of an output or error file says, and of which request."""
    if endpoint not in DATA_READERS and (plain := read_plain(line)):
        return Line(*plain)
    record = read_object(line)
    return Line(None, Missing()) if record is None else Line(id_of(record), read_record(record, endpoint))
