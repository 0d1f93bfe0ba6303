"""From the body of an endpoint that answers with data (embeddings, moderations) to the canonical text that is stored.

Law: one request has one answer. None, several, or one that cannot be used is a failure of its row, never a vector or a
verdict of something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from pydantic_core import to_json

from batchor_engine.core import vectors
from batchor_engine.core.outcomes import Answer, Rejection
from batchor_engine.models import RunUsage
from batchor_engine.providers import failures


def read_embedding(body: Mapping[str, Any], usage: RunUsage | None) -> Answer | Rejection:
    """The one vector of an embeddings answer, packed; it may come as numbers or as base64."""
    found, wrong = _only(body.get("data"), "embeddings")
    if wrong is not None:
        return _unusable(failures.INVALID_EMBEDDING, wrong, usage)
    vector = found.get("embedding")
    try:
        if isinstance(vector, list):
            return Answer(vectors.pack(cast("list[object]", vector)), usage)
        if isinstance(vector, str):
            vectors.unpack(vector)
            return Answer(vector, usage)
    except ValueError as error:
        return _unusable(failures.INVALID_EMBEDDING, str(error), usage)
    return _unusable(failures.INVALID_EMBEDDING, f"the answer holds {type(vector).__name__}, no vector", usage)


def read_moderation(body: Mapping[str, Any], usage: RunUsage | None) -> Answer | Rejection:
    """The one verdict of a moderations answer, as its JSON text; Moderation checks what is in it."""
    found, wrong = _only(body.get("results"), "verdicts")
    if wrong is not None:
        return _unusable(failures.INVALID_MODERATION, wrong, usage)
    return Answer(to_json(found).decode(), usage)


def _only(listed: object, what: str) -> tuple[Mapping[str, Any], str | None]:
    """The only object of a list, or what is wrong with it."""
    rows = cast("list[object]", listed) if isinstance(listed, list) else []
    if len(rows) != 1:
        return {}, f"the answer holds {len(rows)} {what} for one input"
    if not isinstance(rows[0], dict):
        return {}, f"the answer holds {type(rows[0]).__name__} among its {what}, no object"
    return cast("Mapping[str, Any]", rows[0]), None


def _unusable(error_class: str, why: str, usage: RunUsage | None) -> Rejection:
    # What came is in the raw file; a vector would only swell the error.
    return Rejection(error_class, why, curable=True, raw_error={"reason": why}, usage=usage)
