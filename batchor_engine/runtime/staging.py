"""The request file of a batch, put together from ranges of sealed parts.

Law: a line's bytes are never rendered again; a later attempt differs from the first in its custom id only.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

from batchor_engine.core.identity import for_attempt
from batchor_engine.core.lines import custom_id_of, with_custom_id
from batchor_engine.core.records import BatchRange, PartRecord
from batchor_engine.errors import StoreError
from batchor_engine.ports.artifacts import ArtifactStore


@contextmanager
def staged(
    artifacts: ArtifactStore, parts: Mapping[int, PartRecord], ranges: Sequence[BatchRange], name: str
) -> Generator[Path]:
    """The request lines of these ranges as one local file called `name`.

    One whole part at its first attempt is used as it is; anything else is streamed together. StoreError where a part is
    shorter than what was stored.
    """
    with tempfile.TemporaryDirectory(prefix="batchor-") as folder, ExitStack() as stack:
        target = Path(folder) / name
        first = ranges[0]
        if len(ranges) == 1 and first.attempt == 1 and first.length == parts[first.part].bytes:
            part = stack.enter_context(artifacts.local_file(parts[first.part].key))
            if part.stat().st_size == first.length:
                target.symlink_to(part)
                yield target
                return
        _write_staging(artifacts, parts, ranges, target)
        yield target


def _write_staging(
    artifacts: ArtifactStore, parts: Mapping[int, PartRecord], ranges: Sequence[BatchRange], target: Path
) -> None:
    with target.open("wb") as out:
        for part_pk, chunks in groupby(ranges, key=lambda chunk: chunk.part):
            key = parts[part_pk].key
            with artifacts.open_read(key) as lines:
                if not all(_copied(lines, chunk, out) for chunk in chunks):
                    raise StoreError(
                        f"{key} in {artifacts.location} is shorter than the {parts[part_pk].bytes:,} bytes that were "
                        "written: restore that file. Nothing of it was sent."
                    )


def _copied(lines: BinaryIO, chunk: BatchRange, out: BinaryIO) -> bool:
    """Copy the lines of a range, False where the file ends before; a later attempt changes only each custom id."""
    lines.seek(chunk.offset)
    end = chunk.offset + chunk.length
    while (left := end - lines.tell()) > 0:
        read = lines.read(min(left, 1 << 20)) if chunk.attempt == 1 else lines.readline(left)
        if not read:
            return False
        out.write(read if chunk.attempt == 1 else with_custom_id(read, for_attempt(custom_id_of(read), chunk.attempt)))
    return True
