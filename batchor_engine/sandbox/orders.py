"""What a client asks for when it creates a file or a batch, checked at once as the provider does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from .checks import PARAMETERS
from .errors import ApiError
from .values import JSONObject

PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
MIN_EXPIRY_SEC, MAX_EXPIRY_SEC = 3_600, 2_592_000
BATCH_KEYS = frozenset({"input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after"})


@dataclass(frozen=True)
class FileOrder:
    """The form fields of an upload."""

    purpose: str
    filename: str
    expires_sec: int | None


@dataclass(frozen=True)
class BatchOrder:
    """The body of a batch creation."""

    input_file_id: str
    endpoint: str
    metadata: Mapping[str, str] | None
    output_expires_sec: int | None


def read_file_order(fields: Mapping[str, str], filename: str | None) -> FileOrder:
    """Check the fields of an upload."""
    if filename is None:
        raise _missing("file")
    purpose = fields.get("purpose")
    if purpose is None:
        raise _missing("purpose")
    if purpose not in PURPOSES:
        raise ApiError(400, f"'{purpose}' is not one of {list(PURPOSES)} - 'purpose'", param="purpose")
    if purpose == "batch" and not filename.endswith(".jsonl"):
        raise ApiError(400, "Invalid file format for Batch API. Must be .jsonl", param="file")
    anchor, seconds = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
    expiry = None
    if anchor is not None or seconds is not None:
        number = int(seconds) if seconds is not None and seconds.isdecimal() else seconds
        expiry = _expiry("expires_after", {"anchor": anchor, "seconds": number})
    return FileOrder(purpose, filename, expiry)


def read_batch_order(body: Any, *, azure: bool = False) -> BatchOrder:
    """Check the body of a batch creation; Azure's guide names endpoints without a version."""
    if not isinstance(body, dict):
        raise ApiError(400, "The request body must be a JSON object.")
    found = cast(JSONObject, body)
    for key in found:
        if key not in BATCH_KEYS:
            raise ApiError(400, f"Unknown parameter: '{key}'.", param=key, code="unknown_parameter")
    for key in ("input_file_id", "endpoint", "completion_window"):
        if found.get(key) is None:
            raise _missing(key)
        if not isinstance(found[key], str):
            raise ApiError(400, f"Invalid type for '{key}': expected a string.", param=key, code="invalid_type")
    if found["completion_window"] != "24h":
        raise _value("completion_window", found["completion_window"], ["24h"])
    known = {path.removeprefix("/v1") if azure else path: path for path in PARAMETERS}
    if found["endpoint"] not in known:
        raise _value("endpoint", found["endpoint"], list(known))
    return BatchOrder(
        found["input_file_id"],
        known[found["endpoint"]],
        check_metadata(found.get("metadata")),
        _expiry("output_expires_after", found.get("output_expires_after")),
    )


def check_metadata(given: Any) -> dict[str, str] | None:
    """Metadata within the provider's limits: 16 pairs, keys of 64, values of 512 characters, strings only."""
    if given is None:
        return None
    if not isinstance(given, dict):
        raise ApiError(400, "Invalid type for 'metadata': expected an object.", param="metadata", code="invalid_type")
    pairs = cast("dict[str, Any]", given)
    if len(pairs) > 16:
        message = f"Invalid 'metadata': too many properties. Expected at most 16 properties, but got {len(pairs)}."
        raise ApiError(400, message, param="metadata", code="object_above_max_properties")
    for key, value in pairs.items():
        _check_pair(key, value)
    return dict(pairs)


def _check_pair(key: str, value: Any) -> None:
    where = f"metadata.{key[:64]}"
    if len(key) > 64:
        message = f"Invalid key in 'metadata': key too long. Expected at most 64 characters, but got {len(key)}."
        raise ApiError(400, message, param=where, code="string_above_max_length")
    if not isinstance(value, str):
        message = f"Invalid type for '{where}': expected a string."
        raise ApiError(400, message, param=where, code="invalid_type")
    if len(value) > 512:
        message = f"Invalid '{where}': string too long. Expected at most 512 characters, but got {len(value)}."
        raise ApiError(400, message, param=where, code="string_above_max_length")


def _expiry(name: str, given: Any) -> int | None:
    if given is None:
        return None
    found = cast(JSONObject, given) if isinstance(given, dict) else {}
    if found.get("anchor") != "created_at":
        raise _value(f"{name}.anchor", found.get("anchor"), ["created_at"])
    seconds = found.get("seconds")
    if not isinstance(seconds, int) or isinstance(seconds, bool) or not MIN_EXPIRY_SEC <= seconds <= MAX_EXPIRY_SEC:
        message = f"Invalid value for '{name}.seconds': expected {MIN_EXPIRY_SEC} to {MAX_EXPIRY_SEC}, got {seconds!r}."
        raise ApiError(400, message, param=f"{name}.seconds", code="invalid_value")
    return seconds


def read_limit(text: str | None, default: int, most: int) -> int:
    """A page size from a query string."""
    if text is None:
        return default
    if not text.isdecimal() or not 1 <= int(text) <= most:
        message = f"Invalid 'limit': expected an integer from 1 to {most}, but got '{text}' instead."
        raise ApiError(400, message, param="limit", code="invalid_value")
    return int(text)


def read_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The first byte and the byte after the last of a `Range` header; None when the whole file is meant."""
    if header is None or not header.startswith("bytes=") or "," in header:
        return None
    first, dash, last = header.removeprefix("bytes=").partition("-")
    if dash == "" or not (first or last).isdecimal() or (first and last and not last.isdecimal()):
        return None
    start = int(first) if first else max(0, size - int(last))
    stop = min(size, int(last) + 1) if first and last else size
    if start >= size or stop <= start:
        raise ApiError(416, "The requested range lies outside the file.", headers={"content-range": f"bytes */{size}"})
    return start, stop


def _missing(name: str) -> ApiError:
    return ApiError(400, f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")


def _value(name: str, value: Any, supported: list[str]) -> ApiError:
    options = ", ".join(f"'{one}'" for one in supported)
    message = f"Invalid value: {value!r}. Supported values are: {options}."
    return ApiError(400, message, param=name, code="invalid_value")
