"""Rows of a Parquet file.

Law: a checkpoint is (row group, row in it); reading costs what is read, and never more than one small batch of memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from batchor_engine.models import BatchItem, JSONValue
from batchor_engine.ports.sources import CheckpointedBatchItem, CheckpointedItemSource, SourceIdentity
from batchor_engine.sources.content import FileContent
from batchor_engine.sources.rows import RowMapper, RowToId, RowToMetadata, RowToPayload, name_list

_BATCH_ROWS = 512
_BUFFER_BYTES = 1024 * 1024
_ParquetFile: TypeAlias = Any


class ParquetItemSource(CheckpointedItemSource[Any]):
    """Rows of a Parquet file, each a dict of column to Python value; `columns` restricts what is read."""

    def __init__(
        self,
        path: str | Path,
        *,
        item_id_from_row: RowToId,
        payload_from_row: RowToPayload,
        metadata_from_row: RowToMetadata | None = None,
        columns: Sequence[str] | None = None,
    ) -> None:
        if isinstance(columns, str):
            raise TypeError(f"columns is a sequence of names, not the text {columns!r}")
        self._content = FileContent(path)
        self.path = self._content.path
        self.item_id_from_row = item_id_from_row
        self.payload_from_row = payload_from_row
        self.metadata_from_row = metadata_from_row
        self.columns = columns
        self._mapper = RowMapper(self._content.ref, item_id_from_row, payload_from_row, metadata_from_row)

    def source_identity(self) -> SourceIdentity:
        return SourceIdentity("parquet", self._content.ref, self._content.fingerprint())

    def initial_checkpoint(self) -> JSONValue:
        return _checkpoint(0, 0)

    def column_names(self) -> list[str]:
        """The names of the file's columns, in order; opening it checks `columns`."""
        with self._open() as file:
            return list(file.schema_arrow.names)

    def checkpoint_is_complete(self, checkpoint: JSONValue) -> bool:
        group, row = _position(checkpoint)
        with self._open() as file:
            sizes = _group_sizes(file)
        return row >= sum(sizes[group:])

    def iter_from_checkpoint(self, checkpoint: JSONValue) -> Iterator[CheckpointedBatchItem[Any]]:
        group, row = _position(checkpoint)
        with self._open() as file:
            sizes = _group_sizes(file)
            first_index = sum(sizes[:group])
            for number in range(group, len(sizes)):
                skip = row if number == group else 0
                yield from self._group_items(file, number, sizes[number], first_index, skip)
                first_index += sizes[number]

    def _group_items(
        self, file: _ParquetFile, group: int, size: int, first_index: int, skip: int
    ) -> Iterator[CheckpointedBatchItem[Any]]:
        for position, row in _group_rows(file, group, self.columns, skip):
            following = _checkpoint(group, position + 1) if position + 1 < size else _checkpoint(group + 1, 0)
            item: BatchItem[Any] = self._mapper.item(row, first_index + position, partition_id=str(group))
            yield CheckpointedBatchItem(following, item)

    def _open(self) -> _ParquetFile:
        self._content.check()
        from pyarrow.parquet import ParquetFile  # pyright: ignore[reportMissingTypeStubs]

        try:
            # A read buffer makes pyarrow stream a column's pages instead of loading the whole row group.
            file: _ParquetFile = ParquetFile(self.path, buffer_size=_BUFFER_BYTES, pre_buffer=False)
        except ValueError as error:
            raise ValueError(f"{self.path} is not a Parquet file ({error}).") from error
        _check_columns(file, self.columns, self.path)
        return file


def _check_columns(file: _ParquetFile, columns: Sequence[str] | None, path: Path) -> None:
    # pyarrow leaves out unknown columns without a word.
    names: list[str] = file.schema_arrow.names
    missing = [name for name in columns or () if name not in names and name.split(".")[0] not in names]
    if missing:
        file.close()
        raise ValueError(f"{path} has no column {name_list(missing)}: its columns are {name_list(names)}.")
    # Rows are dicts, which keep the last of them without a word.
    read = names if columns is None else {name.split(".")[0] for name in columns}
    count = Counter(names)
    twice = sorted({name for name in read if count[name] > 1})
    if twice:
        file.close()
        raise ValueError(f"{path} has more than one column named {name_list(twice)}: rename all but one.")


def _group_sizes(file: _ParquetFile) -> list[int]:
    footer = file.metadata
    return [footer.row_group(number).num_rows for number in range(footer.num_row_groups)]


def _group_rows(
    file: _ParquetFile, group: int, columns: Sequence[str] | None, skip: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    position = 0
    wanted = None if columns is None else list(columns)
    for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=wanted, use_threads=False):
        start = min(max(skip - position, 0), batch.num_rows)
        rows: list[dict[str, Any]] = batch.slice(start).to_pylist()
        yield from enumerate(rows, position + start)
        position += batch.num_rows


def _checkpoint(group: int, row: int) -> JSONValue:
    return {"row_group_index": group, "row_index_within_group": row}


def _position(checkpoint: JSONValue) -> tuple[int, int]:
    if isinstance(checkpoint, dict):
        group, row = checkpoint.get("row_group_index"), checkpoint.get("row_index_within_group")
        if type(group) is int and type(row) is int and group >= 0 and row >= 0:
            return group, row
    raise TypeError(
        "the checkpoint of ParquetItemSource is {'row_group_index': int, 'row_index_within_group': int}, "
        f"not {checkpoint!r}"
    )
