"""An upload on its way to disk: form fields in memory, the file's bytes straight into their place."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import ApiError
from .multipart import MAX_FIELD_BYTES, MultipartReader, PartHeader, boundary_of

MAX_UPLOAD_BYTES = 512_000_000


class Upload:
    """Receives one multipart body; `discard` removes what was written."""

    def __init__(self, path: Path, content_type: str, max_batch_bytes: int) -> None:
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.size = 0
        self._raw: dict[str, bytes] = {}
        self._path = path
        self._max_batch_bytes = max_batch_bytes
        self._reader = MultipartReader(boundary_of(content_type), self._take)
        self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")

    def feed(self, block: bytes) -> None:
        """Take one block of the body."""
        self._reader.feed(block)

    def close(self) -> None:
        """The whole body has come."""
        self._reader.close()
        self._file.close()
        self.fields = {name: raw.decode("utf-8", "replace") for name, raw in self._raw.items()}
        if self.fields.get("purpose") == "batch" and self.size > self._max_batch_bytes:
            raise too_large(self._max_batch_bytes)

    def discard(self) -> None:
        """Give up: nothing of this upload stays."""
        self._file.close()
        self._path.unlink(missing_ok=True)

    def _take(self, part: PartHeader, data: bytes) -> None:
        if part.filename is None:
            self._raw[part.name] = self._raw.get(part.name, b"") + data
            if len(self._raw[part.name]) > MAX_FIELD_BYTES:
                raise ApiError(400, f"The form field '{part.name}' is too long.", param=part.name)
        elif part.name == "file":
            self.filename = part.filename
            self.size += len(data)
            if self.size > MAX_UPLOAD_BYTES:
                raise too_large(MAX_UPLOAD_BYTES)
            self._file.write(data)


def too_large(limit: int) -> ApiError:
    """The 413 for a file above the limit."""
    message = f"The file is too large: at most {limit:,} bytes are allowed."
    return ApiError(413, message, param="file", code="file_too_large")
