"""Segments keep every row exactly, in order, and give back any part of it."""

from __future__ import annotations

import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchor_engine.core.outcomes import LineRef
from batchor_engine.core.segment import SegmentRow, SegmentTotals
from batchor_engine.errors import StoreError
from batchor_engine.models import RunUsage
from batchor_engine.results import columns, segments
from batchor_engine.results.segments import SegmentWriter, index_range, iter_record_batches, read_rows
from batchor_engine.states import ItemStatus

any_text = st.text(st.characters(exclude_categories=()) | st.sampled_from('\ud800\udfff\u2028"\\'), max_size=9)
maybe_text = st.none() | any_text
counts = st.integers(0, 2**62)


def row(
    index: int, *, final: bool = True, status: str = "completed", text: str | None = "answer", **more
) -> SegmentRow:
    empty = SegmentRow(
        item_index=index,
        item_id=f"item-{index}",
        group=0,
        final=final,
        status=status,
        attempt_count=1,
        custom_id=f"item-{index}:a1",
        text=text,
        error_class=None,
        error_message=None,
        retryable=False,
        raw_error_json=None,
        metadata_json='{"k":1}',
        usage=RunUsage(1, 2, 3, 4),
        ref=LineRef("output", index * 10, 10),
    )
    return empty._replace(**more)


rows = st.builds(
    SegmentRow,
    item_index=counts,
    item_id=any_text,
    group=counts,
    final=st.booleans(),
    status=st.sampled_from([str(status) for status in ItemStatus]),
    attempt_count=st.integers(0, 9),
    custom_id=maybe_text,
    text=maybe_text,
    error_class=maybe_text,
    error_message=maybe_text,
    retryable=st.booleans(),
    raw_error_json=maybe_text,
    metadata_json=maybe_text,
    usage=st.none() | st.builds(RunUsage, *[st.integers(0, 2**40)] * 4),
    ref=st.none() | st.builds(LineRef, st.sampled_from(["output", "error"]), counts, counts),
)


def written(path: Path, content: Iterable[SegmentRow]) -> SegmentTotals:
    with SegmentWriter(path) as writer:
        for one in content:
            writer.append(one)
    return writer.totals


def in_small_groups(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(segments, "_MAX_GROUP_ROWS", size)
    monkeypatch.setattr(segments, "_SLICE_ROWS", 2)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.lists(rows, max_size=12).map(lambda some: sorted(some, key=lambda one: one.item_index)))
def test_every_row_comes_back_equal_lone_surrogates_included(tmp_path: Path, content: Sequence[SegmentRow]) -> None:
    written(tmp_path / "s", content)
    assert list(read_rows(tmp_path / "s", final_only=False)) == content
    assert list(read_rows(tmp_path / "s")) == [one for one in content if one.final]


def test_only_the_rows_that_need_it_are_escaped(tmp_path: Path) -> None:
    written(tmp_path / "s", [row(0), row(1, text="\ud83d"), row(2, text='"\\ud83d"')])
    (batch,) = iter_record_batches(tmp_path / "s", ["escaped", "text"])
    assert batch.to_pydict() == {"escaped": [False, True, False], "text": ["answer", '"\\ud83d"', '"\\ud83d"']}


@pytest.mark.parametrize("final_only", [True, False])
@pytest.mark.parametrize("group_rows", [1, 3, 100])
def test_skip_and_limit_cut_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group_rows: int, final_only: bool
) -> None:
    in_small_groups(monkeypatch, group_rows)
    content = [row(index, final=index % 3 != 0) for index in range(11)]
    written(tmp_path / "s", content)
    wanted = [one for one in content if one.final or not final_only]
    for skip in range(13):
        for limit in (None, 0, 1, 2, 20):
            part = list(read_rows(tmp_path / "s", final_only=final_only, skip=skip, limit=limit))
            assert part == wanted[skip:][:limit]


def test_skipped_row_groups_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_small_groups(monkeypatch, 4)
    written(tmp_path / "s", [row(index, final=index % 2 == 0) for index in range(20)])
    read: list[int] = []
    real = segments._read_table
    monkeypatch.setattr(
        segments, "_read_table", lambda path, group, *rest: read.append(group) or real(path, group, *rest)
    )
    assert [one.item_index for one in read_rows(tmp_path / "s", skip=5, limit=1)] == [10]
    assert read == [2]


def test_a_group_that_cannot_be_written_fails_the_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_small_groups(monkeypatch, 2)

    def full(_columns: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(segments, "to_table", full)
    for count in (1, 3, 9):
        with pytest.raises(OSError, match="No space left"):
            written(tmp_path / "s", [row(index) for index in range(count)])
    assert not [one for one in threading.enumerate() if one.name.startswith("batchor-segment")]


def test_totals_count_final_rows_and_bill_all(tmp_path: Path) -> None:
    failed = {"status": "failed_permanent", "error_class": "invalid_json", "text": None}
    content = [
        row(3, final=False, status="failed_retryable", error_class="invalid_json"),
        row(3),
        row(5, **failed),
        row(9, **failed, usage=None),
        row(12, status="failed_permanent", error_class="run_cancelled", usage=None),
    ]
    totals = written(tmp_path / "s", content)
    assert totals == SegmentTotals(
        rows=5,
        completed=1,
        failed=3,
        first_index=3,
        last_index=12,
        usage=RunUsage(3, 6, 9, 12),
        failures={"invalid_json": 2, "run_cancelled": 1},
    )
    assert totals.final_rows == 4
    assert index_range(tmp_path / "s") == (3, 12)


def test_an_empty_segment_is_a_file(tmp_path: Path) -> None:
    assert written(tmp_path / "s", []).rows == 0
    assert list(read_rows(tmp_path / "s")) == []
    assert list(iter_record_batches(tmp_path / "s")) == []
    assert index_range(tmp_path / "s") == (0, -1)


def test_rows_out_of_order_are_refused(tmp_path: Path) -> None:
    with SegmentWriter(tmp_path / "s") as writer:
        writer.append(row(2))
        writer.append(row(2))
        with pytest.raises(ValueError, match="Item 1 comes after item 2"):
            writer.append(row(1))
    assert writer.totals.rows == 2


def test_totals_before_the_end_are_an_error(tmp_path: Path) -> None:
    with SegmentWriter(tmp_path / "s") as writer, pytest.raises(RuntimeError, match="closed"):
        _ = writer.totals


def test_an_exception_in_the_context_is_not_hidden(tmp_path: Path) -> None:
    def interrupted():
        yield row(0)
        raise KeyError

    with pytest.raises(KeyError):
        written(tmp_path / "s", interrupted())


@pytest.mark.parametrize("letter", ["x", "ä", "\N{PILE OF POO}"])
def test_row_groups_stay_below_four_megabytes(tmp_path: Path, letter: str) -> None:
    written(tmp_path / "s", [row(index, text=letter * 20_000) for index in range(300)])
    footer = pq.read_metadata(tmp_path / "s")
    assert max(footer.row_group(group).total_byte_size for group in range(footer.num_row_groups)) <= 4 * 1024 * 1024


def test_a_row_larger_than_a_group_gets_its_own(tmp_path: Path) -> None:
    big = row(1, text="x" * 6_000_000)
    written(tmp_path / "s", [row(0), big, row(2)])
    assert pq.read_metadata(tmp_path / "s").num_row_groups == 3
    assert list(read_rows(tmp_path / "s", skip=1, limit=1)) == [big]


def test_the_schema_of_version_1_never_changes(tmp_path: Path) -> None:
    written(tmp_path / "s", [row(0)])
    schema = pq.read_schema(tmp_path / "s")
    assert schema.metadata[b"batchor.segment.version"] == b"1"
    assert [(field.name, str(field.type), field.nullable) for field in schema] == [
        ("item_index", "int64", False),
        ("item_id", "string", False),
        ("group", "int64", False),
        ("final", "bool", False),
        ("status", "string", False),
        ("attempt_count", "int64", False),
        ("custom_id", "string", True),
        ("text", "large_string", True),
        ("error_class", "string", True),
        ("error_message", "large_string", True),
        ("retryable", "bool", False),
        ("raw_error_json", "large_string", True),
        ("metadata_json", "large_string", True),
        ("input_tokens", "int64", True),
        ("cached_tokens", "int64", True),
        ("output_tokens", "int64", True),
        ("reasoning_tokens", "int64", True),
        ("ref_file", "string", True),
        ("ref_offset", "int64", True),
        ("ref_length", "int64", True),
        ("escaped", "bool", False),
    ]


def test_a_segment_of_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "VERSION", 2)
    written(tmp_path / "s", [row(0)])
    monkeypatch.undo()
    with pytest.raises(StoreError, match="version 2"):
        list(read_rows(tmp_path / "s"))


def test_a_foreign_parquet_file_is_refused(tmp_path: Path) -> None:
    import pyarrow as pa

    pq.write_table(pa.table({"a": [1]}), tmp_path / "s")
    with pytest.raises(StoreError, match="not a batchor result segment"):
        list(read_rows(tmp_path / "s"))


def test_a_path_that_looks_like_a_url_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = "mock:a%20b=c.parquet"
    written(Path(name), [row(0)])
    assert list(read_rows(name)) == [row(0)]
    with pytest.raises(FileNotFoundError):
        list(read_rows("s3:missing.parquet"))


def test_record_batches_hold_the_columns_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_small_groups(monkeypatch, 2)
    written(tmp_path / "s", [row(index) for index in range(5)])
    batches = list(iter_record_batches(tmp_path / "s", ["item_id", "input_tokens"]))
    assert [batch.num_rows for batch in batches] == [2, 2, 1]
    assert batches[0].schema.names == ["item_id", "input_tokens"]


def test_reading_a_long_segment_holds_a_few_thousand_rows(tmp_path: Path) -> None:
    written(tmp_path / "s", (row(index, text=f"answer {index}") for index in range(60_000)))
    list(read_rows(tmp_path / "s", limit=1))
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_rows(tmp_path / "s")) == 60_000
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


def test_writing_and_reading_a_segment_imports_no_pandas(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from batchor_engine.results.segments import SegmentWriter, read_rows\n"
        "from batchor_engine.core.segment import SegmentRow\n"
        "end = (1, None, 'yes', None, None, False, None, None, None, None)\n"
        "rows = [SegmentRow(at, 'a', 0, True, 'completed', *end) for at in (0, 1)]\n"
        "with SegmentWriter(sys.argv[1]) as writer: writer.extend(rows)\n"
        "assert list(read_rows(sys.argv[1])) == rows\n"
        "assert 'pyarrow' in sys.modules and 'pandas' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "s")], check=True, cwd=Path(__file__).parents[2])


AFTER_MAIN = """
import sys, threading
from batchor_engine.results.segments import SegmentWriter
from tests.results.test_segments import row

def write():
    threading.main_thread().join()
    with SegmentWriter(sys.argv[1]) as segment:
        segment.extend(row(n) for n in range(40_000))

threading.Thread(target=write).start()
"""


def test_a_thread_that_outlives_the_main_one_writes_on(tmp_path: Path) -> None:
    """Python closes all pools of threads when its main thread ends, and goes on for as long as others live."""
    path = tmp_path / "s"
    subprocess.run([sys.executable, "-c", AFTER_MAIN, str(path)], check=True, cwd=Path(__file__).parents[2])
    assert [it.item_index for it in read_rows(path)] == list(range(40_000))
