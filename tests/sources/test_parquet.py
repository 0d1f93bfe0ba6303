"""Parquet files: row groups one after the other, in small pieces, from any row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchor_engine.errors import SourceRowError
from batchor_engine.models import LINEAGE_KEY
from batchor_engine.sources.files import ParquetItemSource


def source_of(path: Path, **more) -> ParquetItemSource:
    return ParquetItemSource(path, item_id_from_row=lambda row: row["id"], payload_from_row=dict, **more)


def written(path: Path, sizes: list[int]) -> Path:
    """A file with one row group for each size; a size of 0 is a row group without rows."""
    schema = pa.schema([("id", pa.string()), ("n", pa.int64())])
    number = 0
    with pq.ParquetWriter(path, schema) as writer:
        for size in sizes:
            numbers = list(range(number, number + size))
            table = pa.table({"id": [f"r{n}" for n in numbers], "n": numbers}, schema=schema)
            writer.write_table(table, row_group_size=max(size, 1))
            number += size
    return path


@pytest.mark.parametrize("sizes", [[], [0], [3], [2, 0, 3, 1], [0, 0, 2, 0], [600, 1]])
def test_resumed_rows_are_the_tail_at_every_position(tmp_path: Path, sizes: list[int]) -> None:
    source = source_of(written(tmp_path / "a.parquet", sizes))
    rows = list(source.iter_from_checkpoint(source.initial_checkpoint()))
    assert [row.item.payload for row in rows] == [{"id": f"r{n}", "n": n} for n in range(sum(sizes))]
    places = range(len(rows) + 1) if len(rows) < 50 else [0, 1, 511, 512, 513, 600, 601]
    for place in places:
        checkpoint = rows[place - 1].next_checkpoint if place else source.initial_checkpoint()
        assert list(source.iter_from_checkpoint(json.loads(json.dumps(checkpoint)))) == rows[place:]
        assert source.checkpoint_is_complete(checkpoint) is (place == len(rows))


def test_a_checkpoint_at_or_past_the_end_is_complete(tmp_path: Path) -> None:
    source = source_of(written(tmp_path / "a", [2, 2]))
    for group, row in [(1, 2), (2, 0), (99, 0), (1, 99)]:
        checkpoint = {"row_group_index": group, "row_index_within_group": row}
        assert source.checkpoint_is_complete(checkpoint)
        assert list(source.iter_from_checkpoint(checkpoint)) == []
    assert not source.checkpoint_is_complete({"row_group_index": 0, "row_index_within_group": 2})


def test_lineage_tells_row_and_row_group(tmp_path: Path) -> None:
    path = written(tmp_path / "a", [2, 2])
    last = list(source_of(path))[3]
    assert last.metadata[LINEAGE_KEY] == {
        "source_ref": str(path),
        "source_item_index": 3,
        "source_primary_key": "r3",
        "partition_id": "1",
    }


def test_arguments_are_attributes(tmp_path: Path) -> None:
    functions: dict[str, Any] = {
        "item_id_from_row": lambda row: row["id"],
        "payload_from_row": dict,
        "metadata_from_row": lambda row: {},
        "columns": ["id"],
    }
    source = ParquetItemSource(tmp_path / "a", **functions)
    assert source.path == tmp_path / "a"
    assert {name: getattr(source, name) for name in functions} == functions


def test_columns_restrict_what_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "a", [1])
    assert [item.payload for item in source_of(path, columns=["id"])] == [{"id": "r0"}]
    with pytest.raises(SourceRowError, match="row 1: item_id_from_row asks for column 'id', but the columns are 'n'"):
        list(source_of(path, columns=("n",)))
    with pytest.raises(ValueError, match="has no column 'x': its columns are 'id', 'n'"):
        list(source_of(path, columns=["id", "x"]))
    with pytest.raises(TypeError, match="sequence of names"):
        source_of(path, columns="id")


def test_two_columns_of_one_name_are_refused_where_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a"
    pq.write_table(pa.Table.from_arrays([pa.array(["x"])] * 3, names=["id", "text", "text"]), path)
    for columns in (None, ["id", "text"]):
        with pytest.raises(ValueError, match="has more than one column named 'text': rename all but one"):
            list(source_of(path, columns=columns))
    assert [item.payload for item in source_of(path, columns=["id"])] == [{"id": "x"}]


def test_what_is_no_parquet_file_is_told_plainly(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("id,b\n" * 100)
    (tmp_path / "empty").write_text("")
    for name in ("text", "empty"):
        with pytest.raises(ValueError, match="is not a Parquet file"):
            list(source_of(tmp_path / name))
    with pytest.raises(FileNotFoundError, match="There is no file"):
        list(source_of(tmp_path / "none"))
    with pytest.raises(IsADirectoryError, match="is a folder"):
        source_of(tmp_path).source_identity()


def test_the_identity_is_kind_path_and_content(tmp_path: Path) -> None:
    path = written(tmp_path / "a", [1])
    identity = source_of(path).source_identity()
    assert (identity.source_kind, identity.source_ref) == ("parquet", str(path))
    copy = tmp_path / "b"
    copy.write_bytes(path.read_bytes())
    assert source_of(copy).source_identity().source_fingerprint == identity.source_fingerprint


@pytest.mark.parametrize(
    "checkpoint", [0, None, {}, {"row_group_index": 0}, {"row_group_index": -1, "row_index_within_group": 0}]
)
def test_a_checkpoint_of_another_kind_is_refused(tmp_path: Path, checkpoint: Any) -> None:
    source = source_of(written(tmp_path / "a", [1]))
    with pytest.raises(TypeError, match="row_group_index"):
        list(source.iter_from_checkpoint(checkpoint))


def test_a_huge_row_group_is_read_in_bounded_pieces(tmp_path: Path) -> None:
    rows = 60_000
    table = pa.table({"id": [f"r{n}" for n in range(rows)], "body": [f"{n} " * 150 for n in range(rows)]})
    pq.write_table(table, tmp_path / "a", row_group_size=rows, use_dictionary=False, compression="none")
    size = table.nbytes
    del table
    before = pa.total_allocated_bytes()
    most = 0
    for number, _ in enumerate(source_of(tmp_path / "a")):
        if number % 500 == 0:
            most = max(most, pa.total_allocated_bytes() - before)
    assert number == rows - 1
    assert most < size / 4
