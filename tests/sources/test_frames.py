"""Tables in memory: pandas, Arrow and dicts give the same items."""

from __future__ import annotations

import enum
import json
import subprocess
import sys
import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from batchor_engine.errors import SourceRowError
from batchor_engine.models import LINEAGE_KEY
from batchor_engine.sources.frames import DataFrameItemSource
from batchor_engine.sources.values import json_clean

ROWS = [{"id": f"t{n}", "n": n, "body": f"text {n}"} for n in range(5)]
TABLES = {
    "pandas": pd.DataFrame(ROWS),
    "arrow": pa.Table.from_pylist(ROWS),
    "batch": pa.RecordBatch.from_pylist(ROWS),
    "dicts": ROWS,
}


class Color(enum.Enum):
    RED = "red"


@pytest.mark.parametrize("kind", TABLES)
def test_rows_are_payloads_and_resume_at_every_position(kind: str) -> None:
    source = DataFrameItemSource(TABLES[kind], item_id="id")
    rows = list(source.iter_from_checkpoint(source.initial_checkpoint()))
    assert [row.item.payload for row in rows] == ROWS
    assert [row.item.item_id for row in rows] == ["t0", "t1", "t2", "t3", "t4"]
    assert len(source) == 5
    for place in range(8):
        assert list(source.iter_from_checkpoint(place)) == rows[place:]
        assert source.checkpoint_is_complete(place) is (place >= 5)


def test_the_same_values_have_the_same_identity_however_they_lie() -> None:
    identities = {DataFrameItemSource(table, item_id="id").source_identity() for table in TABLES.values()}
    sliced = pa.concat_tables([pa.Table.from_pylist(ROWS[:2]), pa.Table.from_pylist(ROWS[2:])])
    identities.add(DataFrameItemSource(sliced, item_id="id").source_identity())
    identities.add(DataFrameItemSource(pd.DataFrame(ROWS, index=list("vwxyz")), item_id="id").source_identity())
    assert len(identities) == 1
    (identity,) = identities
    assert (identity.source_kind, identity.source_ref) == ("dataframe", "dataframe")


@pytest.mark.parametrize(
    "other",
    [ROWS[:4], ROWS[::-1], [*ROWS[:4], {**ROWS[4], "body": "x"}], [{**row, "more": 1} for row in ROWS]],
)
def test_other_values_have_another_identity(other: list[dict[str, Any]]) -> None:
    first = DataFrameItemSource(ROWS, item_id="id").source_identity()
    assert DataFrameItemSource(other, item_id="id").source_identity() != first


def test_payload_and_metadata_may_be_columns_or_functions() -> None:
    source = DataFrameItemSource(ROWS, item_id=lambda row: f"x{row['n']}", payload=["body"], metadata=["n"], name="tix")
    item = list(source)[1]
    assert (item.item_id, item.payload, item.metadata["n"]) == ("x1", {"body": "text 1"}, 1)
    assert item.metadata[LINEAGE_KEY] == {"source_ref": "tix", "source_item_index": 1, "source_primary_key": "x1"}
    functions = DataFrameItemSource(
        ROWS, item_id="id", payload=lambda row: row["body"], metadata=lambda row: {"k": row["n"]}
    )
    assert list(functions)[2].payload == "text 2"
    assert list(functions)[2].metadata["k"] == 2


def test_a_payload_of_one_row_does_not_share_its_dict() -> None:
    first, again = (next(iter(DataFrameItemSource(ROWS, item_id="id"))) for _ in range(2))
    first.payload["body"] = "changed"
    assert again.payload["body"] == ROWS[0]["body"] == "text 0"


def test_whole_numbers_and_uuids_are_ids_and_other_numbers_are_not() -> None:
    key = uuid.UUID(int=7)
    assert [item.item_id for item in DataFrameItemSource(pd.DataFrame({"k": [7, 8]}), item_id="k")] == ["7", "8"]
    assert next(iter(DataFrameItemSource([{"k": key}], item_id="k"))).item_id == str(key)
    for bad in (1.5, None, True, "", float("nan")):
        with pytest.raises(SourceRowError, match="dataframe, row 1: its item id"):
            list(DataFrameItemSource([{"k": bad}], item_id="k"))


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("argument", [{"item_id": "x"}, {"payload": ["id", "x"]}, {"metadata": ["x"]}])
def test_a_column_that_is_not_there_is_named_at_once(kind: str, argument: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="names column 'x', but the table has 'id', 'n', 'body'"):
        DataFrameItemSource(TABLES[kind], **{"item_id": "id", **argument})


@pytest.mark.parametrize("empty", [pd.DataFrame({"id": []}), pa.table({"id": pa.array([], pa.string())}), []])
def test_a_table_without_rows_is_an_empty_source(empty: Any) -> None:
    source = DataFrameItemSource(empty, item_id="id")
    assert list(source) == []
    assert source.checkpoint_is_complete(0)
    assert source.source_identity().source_kind == "dataframe"


@pytest.mark.parametrize("wrong", [7, "path.csv", None, {"a": 1}, iter([]), pd.Series([1])])
def test_what_is_no_table_is_refused(wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        DataFrameItemSource(wrong, item_id="id")


def test_a_sequence_of_something_else_names_the_row() -> None:
    with pytest.raises(TypeError, match="row 2 of the sequence is a int, not a dict"):
        DataFrameItemSource([{"id": "x"}, 7], item_id="id")


def test_two_columns_of_one_name_are_refused() -> None:
    for table in (
        pd.DataFrame([[1, 2]], columns=["a", "a"]),
        pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]),
    ):
        with pytest.raises(ValueError, match="more than one column named 'a'"):
            DataFrameItemSource(table, item_id="a")


def test_a_pandas_row_is_plain_json() -> None:
    frame = pd.DataFrame(
        {
            "id": ["x", "y"],
            "when": pd.to_datetime(["2031-01-02T03:04:05Z", None]),
            "real": [1.5, np.nan],
            "whole": pd.array([1, None], dtype="Int64"),
            "flag": pd.array([True, None], dtype="boolean"),
            "kind": pd.Categorical(["a", None]),
            "text": pd.array(["é", None], dtype="string"),
            "list": [np.array([1, 2]), [np.float32(0.5), None]],
            "span": pd.to_timedelta(["1s", None]),
            "month": [pd.Period("2031-01"), pd.NaT],
            "single": np.array([1, 2], dtype="float32"),
        }
    )
    one, two = (item.payload for item in DataFrameItemSource(frame, item_id="id"))
    assert json.loads(json.dumps(one)) == {
        "id": "x",
        "when": "2031-01-02T03:04:05+00:00",
        "real": 1.5,
        "whole": 1,
        "flag": True,
        "kind": "a",
        "text": "é",
        "list": [1, 2],
        "span": 1.0,
        "month": "2031-01",
        "single": 1.0,
    }
    assert two == {
        **dict.fromkeys(frame.columns),
        "id": "y",
        "list": [0.5, None],
        "single": 2.0,
    }


def test_numbers_that_are_columns_names_become_texts() -> None:
    assert next(iter(DataFrameItemSource(pd.DataFrame({0: ["x"]}), item_id="0"))).payload == {"0": "x"}


@pytest.mark.parametrize("table", [pd.DataFrame([["x", "y"]]), [{0: "x", 1: "y"}]], ids=["pandas", "dicts"])
def test_a_column_with_a_number_for_a_name_can_be_named_by_it(table: Any) -> None:
    item = next(iter(DataFrameItemSource(table, item_id=0, payload=[1], metadata=[1])))
    assert (item.item_id, item.payload, item.metadata["1"]) == ("x", {"1": "y"}, "y")


def test_a_single_column_is_no_table() -> None:
    for column in (pd.Series(["x"], name="id"), pa.chunked_array([["x"]])):
        with pytest.raises(TypeError, match=r"takes a pandas DataFrame.*not a .*(Series|ChunkedArray)"):
            DataFrameItemSource(column, item_id="id")


@pytest.mark.parametrize(
    ("cell", "plain"),
    [
        (float("inf"), None),
        (float("-inf"), None),
        (np.float64(1.5), 1.5),
        (np.int8(3), 3),
        (np.bool_(True), True),
        (np.str_("s"), "s"),
        (np.datetime64("2031-01-02"), "2031-01-02"),
        (np.datetime64("NaT"), None),
        (np.array([[1.0, np.nan]]), [[1.0, None]]),
        (Decimal("1.50"), "1.50"),
        (Decimal("NaN"), None),
        (date(2031, 1, 2), "2031-01-02"),
        (time(1, 2), "01:02:00"),
        (datetime(2031, 1, 2, tzinfo=UTC), "2031-01-02T00:00:00+00:00"),
        (timedelta(minutes=1), 60.0),
        (b"\xff", "/w=="),
        (PurePosixPath("a/b"), "a/b"),
        (Color.RED, "red"),
        ((1, {2: {"b", "a"}}), [1, {"2": ["a", "b"]}]),
        (pd.NA, None),
        (pd.NaT, None),
        (pd.Interval(0, 1), "(0, 1]"),
    ],
)
def test_every_kind_of_cell_has_one_plain_form(cell: Any, plain: Any) -> None:
    cleaned = json_clean(cell)
    assert cleaned == plain
    assert type(cleaned) is type(plain)


@pytest.mark.parametrize("cell", [object(), 1j, np.complex64(1)])
def test_a_cell_without_plain_form_names_row_and_column(cell: Any) -> None:
    with pytest.raises(SourceRowError, match=r"dataframe, row 2: column 'c': a .* has no plain JSON form"):
        list(DataFrameItemSource([{"id": "x"}, {"id": "y", "c": cell}], item_id="id"))


def test_reading_dicts_imports_no_heavy_library() -> None:
    code = (
        "import sys; from batchor_engine.sources import base, files, frames, composite; "
        "list(frames.DataFrameItemSource([{'id': 'x'}], item_id='id')); "
        "sys.exit(any(name in sys.modules for name in ('pyarrow', 'pandas', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
