"""Which of a batch's files at the provider nobody needs any more.

Law: an input file goes only when its batch is over, an output or error file only when its lines are in a segment.
"""

from __future__ import annotations

from enum import StrEnum

from batchor_engine.core.records import BatchRecord
from batchor_engine.states import BATCH_OVER, BatchState


class RemoteCleanup(StrEnum):
    """What is deleted at the provider once a batch is collected: nothing, its input file, or all its files."""

    NONE = "none"
    INPUT = "input"
    ALL = "all"


def disposable(batch: BatchRecord, policy: RemoteCleanup) -> dict[str, str]:
    """Remote file ids that may go, by the name of the batch's field that holds them."""
    names: list[str] = []
    if policy is not RemoteCleanup.NONE and batch.state in BATCH_OVER:
        names.append("input_file_id")
    if policy is RemoteCleanup.ALL and batch.state is BatchState.COLLECTED:
        names += ["output_file_id", "error_file_id"]
    return {name: file_id for name in names if (file_id := getattr(batch, name))}
