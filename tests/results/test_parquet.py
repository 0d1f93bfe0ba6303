"""Results in Parquet files: the model's schema, row groups of a useful size, names that sort."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel

from batchor_engine.core.segment import SegmentRow
from batchor_engine.models import StructuredItemResult, TextItemResult
from batchor_engine.results.failures import failures_schema, failures_table
from batchor_engine.results.frames import arrow_schema, to_arrow
from batchor_engine.results.parquet import is_part_name, part_name, write_dataset, write_file
from batchor_engine.states import ItemStatus


class Place(BaseModel):
    lat: float
    names: list[str] | None


def texts(count: int, size: int = 10) -> Iterator[TextItemResult]:
    return (TextItemResult(f"row-{n}", ItemStatus.COMPLETED, 1, "x" * size) for n in range(count))


def test_a_file_holds_what_the_table_holds(tmp_path: Path) -> None:
    results = [
        StructuredItemResult("a", ItemStatus.COMPLETED, 1, Place(lat=1.5, names=["x\u2028y"]), "{}"),
        StructuredItemResult("b", ItemStatus.COMPLETED, 2, Place(lat=2.5, names=None), "{}"),
    ]
    assert write_file(tmp_path / "rows", results, Place) == 2
    assert pq.read_table(tmp_path / "rows").equals(to_arrow(results, Place))


def test_a_file_without_rows_has_the_schema(tmp_path: Path) -> None:
    assert write_file(tmp_path / "rows", (), Place) == 0
    assert pq.read_schema(tmp_path / "rows").equals(arrow_schema(Place))


def test_small_rows_share_a_row_group_and_large_ones_do_not_grow_it(tmp_path: Path) -> None:
    write_file(tmp_path / "small", texts(5000), None)
    assert pq.read_metadata(tmp_path / "small").num_row_groups == 1
    write_file(tmp_path / "large", texts(4096, 20_000), None)
    large = pq.read_metadata(tmp_path / "large")
    assert [large.row_group(n).num_rows for n in range(large.num_row_groups)] == [424] * 9 + [280]


@pytest.mark.parametrize(("rows", "sizes"), [(0, [0]), (1, [1]), (6, [3, 3]), (7, [3, 3, 1])])
def test_a_dataset_is_cut_by_rows(tmp_path: Path, rows: int, sizes: list[int]) -> None:
    @contextmanager
    def new_file(name: str) -> Iterator[Path]:
        yield tmp_path / name

    assert write_dataset(new_file, texts(rows), None, rows_per_file=3) == len(sizes)
    assert [pq.read_metadata(path).num_rows for path in sorted(tmp_path.iterdir())] == sizes


@pytest.mark.parametrize("number", [0, 99_999, 100_000])
def test_part_names_are_known_again(number: int) -> None:
    assert is_part_name(part_name(number))


@pytest.mark.parametrize("name", ["part-1.parquet", "part-.parquet", "part-000001.parquet", "x.parquet", "part-00000"])
def test_other_names_are_no_parts(name: str) -> None:
    assert not is_part_name(name)


def failed(item_id: str, message: str | None) -> SegmentRow:
    return SegmentRow(
        0, item_id, 0, True, "failed_permanent", 3, None, None, "timeout", message, True, None, None, None, None
    )  # fmt: skip


def test_failures_without_details_have_no_raw_error_and_empty_metadata() -> None:
    assert failures_table([failed("a", None)]).to_pylist() == [
        {
            "item_id": "a",
            "error_class": "timeout",
            "message": "",
            "retryable": True,
            "attempt_count": 3,
            "raw_error": None,
            "metadata": "{}",
        }
    ]


def test_no_failure_is_an_empty_table_of_the_same_schema() -> None:
    assert failures_table([]).schema == failures_schema() == failures_table([failed("a", "b")]).schema


def test_half_a_surrogate_pair_does_not_stop_the_table() -> None:
    assert failures_table([failed("a", "x\ud83d")]).column("message").to_pylist() == ["x\ufffd"]
