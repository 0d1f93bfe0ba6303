"""Text files: the same rows at the same positions, every time, from any position."""

from __future__ import annotations

import csv
import io
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchor_engine.errors import SourceRowError
from batchor_engine.models import LINEAGE_KEY
from batchor_engine.sources.base import ResumableItemSource
from batchor_engine.sources.files import CsvItemSource, JsonlItemSource

anywhere = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def csv_source(path: Path, **more) -> CsvItemSource:
    return CsvItemSource(path, item_id_from_row=lambda row: row["id"], payload_from_row=dict, **more)


def jsonl_source(path: Path, **more) -> JsonlItemSource:
    return JsonlItemSource(path, item_id_from_row=lambda row: row["id"], payload_from_row=lambda row: row, **more)


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def payloads(source: ResumableItemSource[Any]) -> list[Any]:
    return [item.payload for item in source]


def assert_resumes_everywhere(source: ResumableItemSource[Any]) -> None:
    rows = list(source.iter_from_checkpoint(source.initial_checkpoint()))
    checkpoints = [source.initial_checkpoint(), *(row.next_checkpoint for row in rows)]
    for done, checkpoint in enumerate(checkpoints):
        resumed = list(source.iter_from_checkpoint(json.loads(json.dumps(checkpoint))))
        assert resumed == rows[done:]
    assert list(source.iter_from(len(rows) + 100)) == []


cell = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@anywhere
@given(st.lists(st.tuples(cell, cell), max_size=8))
def test_any_csv_text_comes_back_and_resumes_at_every_row(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, quoting=csv.QUOTE_ALL)
    writer.writerows([("id", "body", "more"), *((f"r{n}", *row) for n, row in enumerate(rows))])
    source = csv_source(written(tmp_path / "a.csv", stream.getvalue()))
    assert payloads(source) == [{"id": f"r{n}", "body": one, "more": two} for n, (one, two) in enumerate(rows)]
    assert_resumes_everywhere(source)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8"), max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@anywhere
@given(st.lists(values, max_size=8), st.booleans(), st.sampled_from(["\n", "\r\n", "\n \t\n"]))
def test_any_json_value_is_a_row_and_resumes_at_every_row(
    tmp_path: Path, rows: list[Any], escape: bool, newline: str
) -> None:
    lines = newline.join(json.dumps(row, ensure_ascii=escape) for row in rows)
    numbers = iter(range(10_000))
    source = JsonlItemSource(
        written(tmp_path / "a.jsonl", lines),
        item_id_from_row=lambda row: f"r{next(numbers)}",
        payload_from_row=lambda row: row,
    )
    assert payloads(source) == rows
    steady = JsonlItemSource(source.path, item_id_from_row=json.dumps, payload_from_row=lambda row: row)
    assert_resumes_everywhere(steady)


def test_lineage_tells_file_row_and_id(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "id,body\nx,1\ny,2\n")
    second = list(csv_source(path))[1]
    assert second.metadata == {
        LINEAGE_KEY: {"source_ref": str(path), "source_item_index": 1, "source_primary_key": "y"}
    }


def test_the_users_metadata_and_lineage_keys_are_kept(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", '{"id":"x"}\n')
    more = {"day": "monday", LINEAGE_KEY: {"team": "t", "source_primary_key": "mine"}}
    (item,) = jsonl_source(path, metadata_from_row=lambda row: more)
    assert item.metadata["day"] == "monday"
    assert item.metadata[LINEAGE_KEY] == {
        "source_ref": str(path),
        "source_item_index": 0,
        "source_primary_key": "mine",
        "team": "t",
    }
    assert more[LINEAGE_KEY] == {"team": "t", "source_primary_key": "mine"}


@pytest.mark.parametrize("make", [csv_source, jsonl_source])
@pytest.mark.parametrize("encoding", ["utf-8", "UTF8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_a_byte_order_mark_is_no_content(tmp_path: Path, make: Callable[..., Any], encoding: str) -> None:
    text = "id,b\nx,é\n" if make is csv_source else '{"id":"x","b":"é"}\n'
    content = text.encode(encoding) if encoding == "utf-16" else ("\ufeff" + text).encode(encoding.replace("-sig", ""))
    source = make(written(tmp_path / "a", content), encoding=encoding)
    assert payloads(source) == [{"id": "x", "b": "é"}]
    assert_resumes_everywhere(source)


def test_unicode_line_breaks_are_data(tmp_path: Path) -> None:
    odd = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\rh"
    lines = json.dumps({"id": "x", "body": odd}, ensure_ascii=False).replace("\\u", "\\u")
    raw = '{"id":"x","body":"a\u2028b\u2029c\x85d"}\n{"id":"y","body":""}'
    assert [row["id"] for row in payloads(jsonl_source(written(tmp_path / "b", raw)))] == ["x", "y"]
    assert payloads(jsonl_source(written(tmp_path / "a", lines)))[0]["body"] == odd
    quoted = f'id,body\nx,"{odd}"\ny,a\u2028b\n'
    assert payloads(csv_source(written(tmp_path / "c", quoted))) == [
        {"id": "x", "body": odd},
        {"id": "y", "body": "a\u2028b"},
    ]


def test_long_bodies_with_newlines_and_quotes_in_twenty_thousand_rows(tmp_path: Path) -> None:
    dice = random.Random(7)
    words = ['"quoted"', "line\nbreak", "comma,", "plain", "tab\t", "ünï", "a\r\nb", "''"]
    body = " ".join(dice.choice(words) for _ in range(4000))
    huge = body * 10  # far above the csv module's own limit of 131,072 characters
    path = tmp_path / "a.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "body"])
        writer.writerows((str(n), huge if n == 19_990 else body[n : n + 400]) for n in range(20_000))
    limit = csv.field_size_limit(131_072)
    try:
        source = csv_source(path)
        assert [row["body"] for row in payloads(source)][19_990] == huge
        assert [row.item.item_id for row in source.iter_from(19_998)] == ["19998", "19999"]
    finally:
        csv.field_size_limit(limit)


def test_the_fingerprint_follows_the_content_alone(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "id\nx\n")
    first = csv_source(path).source_identity()
    assert (first.source_kind, first.source_ref) == ("csv", str(path))
    os.utime(path, (1, 1))
    assert csv_source(path).source_identity() == first
    path.unlink()
    assert csv_source(written(path, "id\nx\n")).source_identity() == first
    os.utime(path, (1, 1))
    source = csv_source(path)
    assert source.source_identity() == first
    written(path, "id\ny\n")
    os.utime(path, (1, 1))
    assert source.source_identity() != first
    assert csv_source(path).source_identity() != first


def test_a_relative_path_and_a_home_path_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "a.csv", "id\nx\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("a.csv", "~/a.csv", "b/../a.csv"):
        source = csv_source(Path(name))
        assert source.source_identity().source_ref == str(tmp_path / "a.csv")
        assert payloads(source) == [{"id": "x"}]


@pytest.mark.parametrize("make", [csv_source, jsonl_source])
def test_missing_files_folders_and_encodings_are_told_plainly(tmp_path: Path, make: Callable[..., Any]) -> None:
    for call in (list, lambda source: source.source_identity()):
        with pytest.raises(FileNotFoundError, match="There is no file"):
            call(make(tmp_path / "none"))
        with pytest.raises(IsADirectoryError, match="is a folder"):
            call(make(tmp_path))
    with pytest.raises(ValueError, match="no text encoding 'klingon'"):
        make(tmp_path / "none", encoding="klingon")
    with pytest.raises(SourceRowError, match=r"is not utf-8 .*encoding="):
        list(make(written(tmp_path / "latin", "id\né\n".encode("latin-1"))))


def test_an_empty_csv_is_an_error_and_a_header_alone_is_an_empty_source(tmp_path: Path) -> None:
    for nothing in ("", "\ufeff", "\n\n"):
        with pytest.raises(ValueError, match="is empty"):
            list(csv_source(written(tmp_path / "a", nothing)))
    for header in ("id,body", "id,body\n", "\n\nid,body\r\n\r\n"):
        assert payloads(csv_source(written(tmp_path / "a", header))) == []


def test_an_empty_jsonl_file_is_an_empty_source(tmp_path: Path) -> None:
    for nothing in ("", "\n", " \r\n\t\n", "\ufeff"):
        assert payloads(jsonl_source(written(tmp_path / "a", nothing))) == []


def test_a_malformed_json_line_is_named_by_path_and_line(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", '{"id":"x"}\n\n{"id":\n{"id":"z"}\n')
    with pytest.raises(ValueError, match=f"{path}:3") as caught:
        list(jsonl_source(path))
    assert isinstance(caught.value, SourceRowError)
    rows = jsonl_source(path).iter_from(0)
    assert next(rows).item.item_id == "x"


@pytest.mark.parametrize("line", ["nul", "{'a':1}", "[" * 100_000, '{"id":"x"} {}', "1" * 5000])
def test_no_line_raises_anything_but_a_row_error(tmp_path: Path, line: str) -> None:
    with pytest.raises(SourceRowError, match="a:1: row 1 is not JSON"):
        list(jsonl_source(written(tmp_path / "a", line)))


def test_a_short_csv_row_has_none_where_it_ends(tmp_path: Path) -> None:
    assert payloads(csv_source(written(tmp_path / "a", "id,b,c\nx,1\n"))) == [{"id": "x", "b": "1", "c": None}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,b\nx,1\ny,1,2\n", "row 2: it has 3 fields, but the header has 2 columns"),
        ('id,b\nx,1\ny,"open\nz,3\n', "row 2: a quoted field is still open at the end of the file"),
    ],
)
def test_a_broken_csv_row_is_an_error_of_that_row(tmp_path: Path, content: str, message: str) -> None:
    rows = csv_source(written(tmp_path / "a", content)).iter_from(0)
    assert next(rows).item.item_id == "x"
    with pytest.raises(SourceRowError, match=message):
        list(rows)


def test_two_columns_of_one_name_are_refused_unless_unnamed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="more than one column named 'b'"):
        list(csv_source(written(tmp_path / "a", "id,b,b\nx,1,2\n")))
    assert payloads(csv_source(written(tmp_path / "a", "id,,\nx,1,2\n"))) == [{"id": "x", "": "2"}]


@pytest.mark.parametrize(
    ("function", "cause"),
    [
        (lambda row: row["key"], "item_id_from_row asks for column 'key', but the columns are 'id', 'b'"),
        (lambda row: "", "its item id is empty"),
        (lambda row: 7, r"its item id is 7 \(int\), but must be a str"),
        (lambda row: None, "its item id is None"),
        (lambda row: {}["x"], "item_id_from_row asks for column 'x'"),
        (lambda row: 1 / 0, "item_id_from_row raised ZeroDivisionError: division by zero"),
    ],
)
def test_a_bad_item_id_names_file_row_and_cause(tmp_path: Path, function: Callable[..., Any], cause: str) -> None:
    path = written(tmp_path / "a", "id,b\nx,1\n")
    source = CsvItemSource(path, item_id_from_row=function, payload_from_row=dict)
    with pytest.raises(SourceRowError, match=rf"{path}, row 1: {cause}"):
        list(source)


def test_item_ids_are_kept_verbatim(tmp_path: Path) -> None:
    path = written(tmp_path / "a", "id\n X \n x\n")
    assert [item.item_id for item in csv_source(path)] == [" X ", " x"]


@pytest.mark.parametrize(
    ("metadata", "cause"),
    [
        (lambda row: [1], "its metadata is a list, but must be a dict"),
        (lambda row: {LINEAGE_KEY: "x"}, "its metadata has 'batchor_lineage' of type str"),
        (lambda row: row["nope"], "metadata_from_row asks for column 'nope'"),
    ],
)
def test_bad_metadata_names_the_row(tmp_path: Path, metadata: Callable[..., Any], cause: str) -> None:
    source = csv_source(written(tmp_path / "a", "id\nx\n"), metadata_from_row=metadata)
    with pytest.raises(SourceRowError, match=f"row 1: {cause}"):
        list(source)


def test_no_metadata_is_fine(tmp_path: Path) -> None:
    (item,) = csv_source(written(tmp_path / "a", "id\nx\n"), metadata_from_row=lambda row: None)
    assert list(item.metadata) == [LINEAGE_KEY]


def test_skipped_rows_are_neither_parsed_nor_mapped(tmp_path: Path) -> None:
    seen: list[Any] = []
    path = written(tmp_path / "a", "not json\nneither\n[3]\n")
    source = JsonlItemSource(
        path, item_id_from_row=lambda row: seen.append(row) or "x", payload_from_row=lambda row: row
    )
    assert [row.item_index for row in source.iter_from(2)] == [2]
    assert seen == [[3]]


@pytest.mark.parametrize("make", [csv_source, jsonl_source])
def test_the_end_is_known_once_it_was_reached(tmp_path: Path, make: Callable[..., Any]) -> None:
    path = written(tmp_path / "a", "id\nx\ny\n" if make is csv_source else '{"id":"x"}\n{"id":"y"}\n')
    source = make(path)
    assert not source.checkpoint_is_complete(2)
    list(source)
    assert source.checkpoint_is_complete(2)
    assert source.checkpoint_is_complete(9)
    assert not source.checkpoint_is_complete(1)
    with path.open("a") as stream:
        stream.write("z\n" if make is csv_source else '{"id":"z"}\n')
    assert not source.checkpoint_is_complete(2)


@pytest.mark.parametrize("checkpoint", [None, True, "3", 1.0, {}, [1]])
def test_a_checkpoint_of_another_kind_is_refused(tmp_path: Path, checkpoint: Any) -> None:
    source = csv_source(written(tmp_path / "a", "id\nx\n"))
    with pytest.raises(TypeError, match="integer position"):
        list(source.iter_from_checkpoint(checkpoint))


def test_a_negative_position_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="0 or more"):
        list(csv_source(written(tmp_path / "a", "id\nx\n")).iter_from(-1))


def test_what_python_writes_for_a_number_that_is_none_is_null(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"id": "a", "n": [float("nan"), float("inf"), -float("inf"), 1.5]}) + "\n")
    assert [item.payload["n"] for item in jsonl_source(path)] == [[None, None, None, 1.5]]
