"""The engine's crash points, in the order in which a batch passes them."""

from __future__ import annotations

POINTS = (
    "ingest.part_written",
    "ingest.part_stored",
    "submit.claimed",
    "submit.intended",
    "submit.uploaded",
    "submit.create_noted",
    "submit.created",
    "collect.downloaded",
    "collect.segment_written",
    "collect.settled",
)
