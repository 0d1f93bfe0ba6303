"""Files of rows by their names, for a template."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from batchor_engine import PromptTemplate, open_item_files

ASK = PromptTemplate("{body}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.csv").write_text("id,body,other\n1,one,x\n")
    (tmp_path / "b.jsonl").write_text('{"id": 2, "body": ["two"]}\n')
    parquet.write_table(pa.table({"id": [3], "body": ["three"]}), tmp_path / "c.parquet")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "d.txt").write_text("id,body\n")
    return tmp_path


def test_files_of_every_kind_are_one_source_in_the_given_order(folder: Path) -> None:
    source = open_item_files(
        [folder / name for name in ("c.parquet", "a.csv", "b.jsonl")], id_column="id", template=ASK
    )
    assert [item.payload for item in source] == [{"body": "three"}, {"body": "one"}, {"body": '["two"]'}]


@pytest.mark.parametrize(
    ("name", "column", "complaint"),
    [
        ("a.csv", "key", "a.csv has no column 'key': its columns are 'id', 'body', 'other'"),
        ("b.jsonl", "key", "b.jsonl has no column 'key'"),
        ("c.parquet", "key", "c.parquet has no column 'key'"),
        ("empty.csv", "id", "empty.csv is empty"),
        ("d.txt", "id", "d.txt is none of .csv, .jsonl, .parquet"),
    ],
)
def test_a_file_that_cannot_serve_is_refused_before_a_row_is_read(
    folder: Path, name: str, column: str, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        open_item_files([folder / name], id_column=column, template=ASK)


def test_a_missing_file_is_an_os_error(folder: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_item_files([folder / "nope.csv"], id_column="id", template=ASK)


def test_no_file_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one file"):
        open_item_files([], id_column="id", template=ASK)


def test_a_field_within_a_parquet_column_is_no_column_of_a_template(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    parquet.write_table(pa.table({"id": ["a"], "n": [{"x": 1}]}), path)
    with pytest.raises(ValueError, match=r"has no column 'n\.x': its columns are 'id', 'n'"):
        open_item_files([path], id_column="id", template=PromptTemplate("{n.x}"))
    parquet.write_table(pa.table({"id": ["a"], "n.x": ["text"]}), path)
    ask = PromptTemplate("{n.x}")
    assert [ask(item).prompt for item in open_item_files([path], id_column="id", template=ask)] == ["text"]
