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
from batchor_engine.ports.artifacts import ArtifactStore


@contextmanager
def staged(
    artifacts: ArtifactStore, parts: Mapping[int, PartRecord], ranges: Sequence[BatchRange], name: str
) -> Generator[Path]:
    """The request lines of these ranges as one local file called `name`.

    One whole part at its first attempt is used as it is; anything else is streamed together.
    """
    with tempfile.TemporaryDirectory(prefix="batchor-") as folder, ExitStack() as stack:
        target = Path(folder) / name
        first = ranges[0]
        if len(ranges) == 1 and first.attempt == 1 and first.length == parts[first.part].bytes:
            target.symlink_to(stack.enter_context(artifacts.local_file(parts[first.part].key)))
        else:
            _write_staging(artifacts, parts, ranges, target)
        yield target


def _write_staging(
    artifacts: ArtifactStore, parts: Mapping[int, PartRecord], ranges: Sequence[BatchRange], target: Path
) -> None:
    with target.open("wb") as out:
        for part_pk, chunks in groupby(ranges, key=lambda chunk: chunk.part):
            with artifacts.open_read(parts[part_pk].key) as lines:
                for chunk in chunks:
                    _copy_range(lines, chunk, out)


def _copy_range(lines: BinaryIO, chunk: BatchRange, out: BinaryIO) -> None:
    """Copy the lines of a range; a later attempt changes only each line's custom id."""
    lines.seek(chunk.offset)
    end = chunk.offset + chunk.length
    while (left := end - lines.tell()) > 0:
        if chunk.attempt == 1:
            out.write(lines.read(min(left, 1 << 20)))
        else:
            line = lines.readline()
            out.write(with_custom_id(line, for_attempt(custom_id_of(line), chunk.attempt)))
