"""What one line of an output or error file says: the quick way where that is sure, else the long one.

Law: imported with the first batch that is read and not before, since the quick way costs an import of its own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from batchor_engine.config import OpenAIEndpoint
from batchor_engine.core.outcomes import Answer, LineRef, Missing, Outcome
from batchor_engine.providers.plain_lines import read_plain
from batchor_engine.providers.wire import DATA_READERS, id_of, read_object, read_record


class Line(NamedTuple):
    """One line of an output or error file; `custom_id` is None where no row can be told from it."""

    custom_id: str | None
    outcome: Outcome


def read_line(line: bytes, endpoint: OpenAIEndpoint = OpenAIEndpoint.RESPONSES, ref: LineRef | None = None) -> Line:
    """What one line of an output or error file says, and of which request; the outcome carries `ref`."""
    if endpoint not in DATA_READERS and (plain := read_plain(line, ref)):
        return Line(*plain)
    record = read_object(line)
    if record is None:
        return Line(None, Missing())
    outcome = read_record(record, endpoint)
    return Line(id_of(record), outcome._replace(ref=ref) if isinstance(outcome, Answer) else replace(outcome, ref=ref))
