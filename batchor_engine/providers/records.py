"""From the objects of an SDK, or of anything shaped like one, to plain records.

Law: nothing is trusted to be there. A field of the wrong type is absent; an object without an id is no object.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, cast

from batchor_engine.core.types import BatchRemoteRecord
from batchor_engine.ports.providers import RemoteFile
from batchor_engine.providers.failures import redacted

_COUNTS = ("total", "completed", "failed")


def batch_record(remote: object, secrets: Callable[[], Collection[str]] = tuple) -> BatchRemoteRecord | None:
    """A remote batch as a record; None where the object is no batch, such as an HTML page."""
    batch_id, status = field_of(remote, "id"), field_of(remote, "status")
    if not _filled(batch_id) or not _filled(status):
        return None
    return BatchRemoteRecord(
        id=batch_id,
        status=status,
        output_file_id=_text(field_of(remote, "output_file_id")),
        error_file_id=_text(field_of(remote, "error_file_id")),
        request_counts=_counts(field_of(remote, "request_counts")),
        errors=redacted(plain(errors), secrets()) if (errors := field_of(remote, "errors")) else None,
        metadata=_metadata(field_of(remote, "metadata")),
        created_at=_number(field_of(remote, "created_at")),
        input_file_id=_text(field_of(remote, "input_file_id")),
    )


def remote_file(remote: object) -> RemoteFile | None:
    """A remote file; None where the object is none."""
    file_id = field_of(remote, "id")
    if not _filled(file_id):
        return None
    return RemoteFile(file_id, _text(field_of(remote, "filename")) or "", _number(field_of(remote, "created_at")))


def file_size(remote: object) -> int | None:
    """The bytes a remote file says it has; None where it says nothing, or 0 as some servers do for every file."""
    size = _number(field_of(remote, "bytes"))
    return int(size) if size and size > 0 else None


def page_rows(page: object) -> list[Any] | None:
    """The rows of a list page; None where it is no page."""
    rows = field_of(page, "data")
    return cast("list[Any]", rows) if isinstance(rows, list) else None


def field_of(remote: object, name: str) -> Any:
    """A field of an object or of a mapping; None where there is none."""
    if isinstance(remote, Mapping):
        return cast("Mapping[str, Any]", remote).get(name)
    return getattr(remote, name, None)


def plain(value: Any) -> Any:
    """An SDK's object as plain JSON values, as far as it can be told."""
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        # The SDK does not validate what it reads, so a dump may meet types it did not declare.
        return dump(mode="json", warnings=False)
    held: dict[str, Any] | None = getattr(value, "__dict__", None)
    if held is not None:
        return {key: plain(part) for key, part in held.items() if not key.startswith("_")}
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in cast("Mapping[Any, Any]", value).items()}
    return [plain(part) for part in cast("list[Any]", value)] if isinstance(value, (list, tuple)) else value


def _counts(counts: object) -> dict[str, int]:
    found = {name: _number(field_of(counts, name)) for name in _COUNTS}
    return {name: int(number) for name, number in found.items() if number is not None}


def _metadata(metadata: object) -> dict[str, str] | None:
    if not isinstance(metadata, Mapping):
        return None
    return {str(key): str(value) for key, value in cast("Mapping[Any, Any]", metadata).items()}


def _number(value: object) -> float | None:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _filled(value: object) -> bool:
    return isinstance(value, str) and bool(value)
