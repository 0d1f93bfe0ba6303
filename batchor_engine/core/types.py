"""Shapes of what goes to a provider and comes back from it."""

from __future__ import annotations

from typing import Any, NotRequired, Required, TypedDict

from batchor_engine.models import JSONObject, JSONScalar, JSONValue

__all__ = ["BatchRemoteRecord", "BatchRequestLine", "JSONObject", "JSONScalar", "JSONValue"]


class BatchRequestLine(TypedDict):
    """One line of a batch input file."""

    custom_id: str
    method: str
    url: str
    body: JSONObject


class BatchRemoteRecord(TypedDict, total=False):
    """A batch as the provider describes it; anything may be missing or null."""

    id: Required[str]
    status: str
    output_file_id: str | None
    error_file_id: str | None
    request_counts: dict[str, int]
    errors: Any
    metadata: NotRequired[dict[str, str] | None]
    created_at: NotRequired[float | None]
    input_file_id: NotRequired[str | None]
