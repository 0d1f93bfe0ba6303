"""Results as Parquet: the model's columns in one file, or in a folder of files of equal length.

Law: rows go through in record batches, so memory is one row group; the schema is the model's in every file, an empty
one too. Whether a file appears whole is its caller's affair: these functions fill a path that nobody reads yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from itertools import chain, islice
from pathlib import Path
from typing import Any

from batchor_engine.models import BatchResultItem, Form
from batchor_engine.results.arrow import ArrowBatch, ArrowTable, parquet, pyarrow
from batchor_engine.results.frames import arrow_schema, record_batches

# Rows of nested models are ten times larger than Arrow's: few at a time, gathered into row groups of a useful size.
_BATCH_ROWS = 256
_GROUP_BYTES = 8 * 1024 * 1024
_GROUP_ROWS = 131_072


def part_name(number: int) -> str:
    """The name of the n-th file of a dataset; names sort as their rows do."""
    return f"part-{number:05d}.parquet"


def is_part_name(name: str) -> bool:
    """Whether a file name is one that write_dataset() gives."""
    digits = name.removeprefix("part-").removesuffix(".parquet")
    return digits.isascii() and digits.isdigit() and name == part_name(int(digits))


def write_file(path: Path, results: Iterable[BatchResultItem], form: Form) -> int:
    """Fill one Parquet file; how many rows."""
    schema, rows = arrow_schema(form), 0
    # pyarrow takes some relative paths for URLs.
    with parquet().ParquetWriter(str(path.absolute()), schema, compression="zstd") as writer:
        for table in _row_groups(record_batches(results, form, rows_per_batch=_BATCH_ROWS), schema):
            writer.write_table(table, row_group_size=table.num_rows)
            rows += table.num_rows
    return rows


def _row_groups(batches: Iterable[ArrowBatch], schema: Any) -> Iterator[ArrowTable]:
    held: list[ArrowBatch] = []
    rows = size = 0
    for batch in batches:
        held.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if size >= _GROUP_BYTES or rows >= _GROUP_ROWS:
            yield pyarrow().Table.from_batches(held, schema=schema)
            held, rows, size = [], 0, 0
    if held:
        yield pyarrow().Table.from_batches(held, schema=schema)


def write_dataset(
    new_file: Callable[[str], AbstractContextManager[Path]],
    results: Iterable[BatchResultItem],
    form: Form,
    *,
    rows_per_file: int,
) -> int:
    """Fill files of `rows_per_file` rows, each made by `new_file(name)`; how many files. No row makes an empty one."""
    if rows_per_file <= 0:
        raise ValueError(f"rows_per_file must be greater than 0, not {rows_per_file}")
    count = 0
    for count, chunk in enumerate(_chunks(results, rows_per_file), 1):
        with new_file(part_name(count - 1)) as path:
            write_file(path, chunk, form)
    if not count:
        with new_file(part_name(0)) as path:
            write_file(path, (), form)
    return max(count, 1)


def _chunks(results: Iterable[BatchResultItem], size: int) -> Iterator[Iterable[BatchResultItem]]:
    """Stretches of `size` results; each must be read to its end before the next is asked for."""
    rows = iter(results)
    for first in rows:
        yield chain((first,), islice(rows, size - 1))
