"""Results as tables whose schema the model alone decides."""

from __future__ import annotations

import enum
import io
import subprocess
import sys
import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import AwareDatetime, BaseModel, Field, RootModel, create_model

from batchor_engine.models import BatchResultItem, ItemFailure, StructuredItemResult, TextItemResult
from batchor_engine.results.frames import arrow_schema, column_descriptions, record_batches, to_arrow, to_pandas
from batchor_engine.states import ItemStatus


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1


class Place(BaseModel):
    lat: float
    seen: datetime | None = None


class Node(BaseModel):
    name: str
    children: list[Node] = []


class Trivial(BaseModel):
    pass


class Everything(BaseModel):
    text: Annotated[str, Field(max_length=10)]
    whole: int
    real: float
    yes: bool
    day: date
    at: datetime
    aware: AwareDatetime
    exact: Decimal
    key: uuid.UUID
    lasts: timedelta
    color: Color
    level: Level
    one_of: Literal["a", "b"]
    fixed: Literal["a"]
    mixed_literal: Literal["a", 1]
    maybe: int | None
    maybe_color: Color | None
    place: Place
    maybe_place: Place | None
    places: list[Place]
    words: set[str]
    matrix: list[list[int]]
    either: int | str
    number: int | float
    one_model_or_other: Place | Node
    tree: Node
    free: dict[str, int]
    pair: tuple[int, str]
    anything: Any
    nothing_inside: Trivial


TYPES = {
    "text": "string",
    "whole": "int64",
    "real": "double",
    "yes": "bool",
    "day": "date32[day]",
    "at": "timestamp[us, tz=UTC]",
    "aware": "timestamp[us, tz=UTC]",
    "exact": "string",
    "key": "string",
    "lasts": "string",
    "color": "string",
    "level": "int64",
    "one_of": "string",
    "fixed": "string",
    "mixed_literal": "string",
    "maybe": "int64",
    "maybe_color": "string",
    "place": "struct<lat: double, seen: timestamp[us, tz=UTC]>",
    "maybe_place": "struct<lat: double, seen: timestamp[us, tz=UTC]>",
    "places": "list<item: struct<lat: double, seen: timestamp[us, tz=UTC]>>",
    "words": "list<item: string>",
    "matrix": "list<item: list<item: int64>>",
    "either": "string",
    "number": "double",
    "one_model_or_other": "string",
    "tree": "struct<name: string, children: list<item: string>>",
    "free": "string",
    "pair": "string",
    "anything": "string",
    "nothing_inside": "string",
}

VALUE = Everything(
    text="t",
    whole=2**62,
    real=0.5,
    yes=True,
    day=date(2031, 1, 2),
    at=datetime(2031, 1, 2, 3, 4, 5, 6),
    aware=datetime.fromisoformat("2031-01-02T00:00:00+02:00"),
    exact=Decimal("1.50"),
    key=uuid.UUID(int=1),
    lasts=timedelta(seconds=5),
    color=Color.RED,
    level=Level.LOW,
    one_of="b",
    fixed="a",
    mixed_literal=1,
    maybe=None,
    maybe_color=Color.BLUE,
    place=Place(lat=1, seen=datetime(2031, 1, 1, tzinfo=UTC)),
    maybe_place=None,
    places=[Place(lat=2)],
    words={"w"},
    matrix=[[1], []],
    either="x",
    number=1,
    one_model_or_other=Place(lat=3),
    tree=Node(name="r", children=[Node(name="c")]),
    free={"a": 1},
    pair=(1, "b"),
    anything={"z": [None]},
    nothing_inside=Trivial(),
)

ROW = {
    "text": "t",
    "whole": 2**62,
    "real": 0.5,
    "yes": True,
    "day": date(2031, 1, 2),
    "at": datetime(2031, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    "aware": datetime(2031, 1, 1, 22, tzinfo=UTC),
    "exact": "1.50",
    "key": "00000000-0000-0000-0000-000000000001",
    "lasts": "PT5S",
    "color": "red",
    "level": 1,
    "one_of": "b",
    "fixed": "a",
    "mixed_literal": "1",
    "maybe": None,
    "maybe_color": "blue",
    "place": {"lat": 1.0, "seen": datetime(2031, 1, 1, tzinfo=UTC)},
    "maybe_place": None,
    "places": [{"lat": 2.0, "seen": None}],
    "words": ["w"],
    "matrix": [[1], []],
    "either": '"x"',
    "number": 1.0,
    "one_model_or_other": '{"lat":3.0,"seen":null}',
    "tree": {"name": "r", "children": ['{"name":"c","children":[]}']},
    "free": '{"a":1}',
    "pair": '[1,"b"]',
    "anything": '{"z":[null]}',
    "nothing_inside": "{}",
}

OURS = ["item_id", "status", "attempt_count", "error_class", "error_message"]


def done(output: BaseModel, item_id: str = "a", **more) -> BatchResultItem:
    return StructuredItemResult(item_id, ItemStatus.COMPLETED, 1, output=output, **more)


FAILED = StructuredItemResult("f", ItemStatus.FAILED_PERMANENT, 3, error=ItemFailure("invalid_json", "no", False))


def test_every_kind_of_field_has_its_type() -> None:
    schema = arrow_schema(Everything)
    assert schema.names == [*OURS, *TYPES, "metadata"]
    assert {name: str(schema.field(name).type) for name in TYPES} == TYPES


def test_every_kind_of_value_arrives() -> None:
    (row,) = to_arrow([done(VALUE, metadata={"k": "é"})], Everything).to_pylist()
    assert {name: row[name] for name in ROW} == ROW
    assert [row[name] for name in OURS] == ["a", "completed", 1, None, None]
    assert row["metadata"] == '{"k":"é"}'


@pytest.mark.parametrize("results", [[], [FAILED], [done(VALUE)], [FAILED, done(VALUE)]])
def test_the_schema_is_the_same_whatever_came_back(results: list[BatchResultItem]) -> None:
    table = to_arrow(results, Everything)
    assert table.schema == arrow_schema(Everything)
    table.validate(full=True)
    assert to_pandas(table).dtypes.equals(to_pandas(to_arrow([], Everything)).dtypes)
    sink = io.BytesIO()
    pq.write_table(table, sink)
    assert pq.read_table(io.BytesIO(sink.getvalue())).equals(table)


def test_a_failed_row_has_its_reason_and_nulls() -> None:
    (row,) = to_arrow([FAILED], Everything).to_pylist()
    assert [row[name] for name in OURS] == ["f", "failed_permanent", 3, "invalid_json", "no"]
    assert all(row[name] is None for name in TYPES)


def test_text_jobs_have_one_answer_column() -> None:
    assert arrow_schema(None).names == [*OURS, "output_text", "metadata"]
    table = to_arrow([TextItemResult("a", ItemStatus.COMPLETED, 1, "hi")], None)
    assert table.column("output_text").to_pylist() == ["hi"]


def test_a_lone_surrogate_is_shown_as_a_replacement_mark() -> None:
    table = to_arrow([TextItemResult("\ud800", ItemStatus.COMPLETED, 1, "x\ud83dy\U0001f4a9")], None)
    assert table.to_pylist()[0]["output_text"] == "x\ufffdy\U0001f4a9"
    assert table.to_pylist()[0]["item_id"] == "\ufffd"


def test_field_names_that_are_ours_get_a_prefix() -> None:
    model = create_model("Clash", item_id=(str, ...), status=(int, ...), output_item_id=(str, ...), metadata=(str, ...))
    assert arrow_schema(model).names == [
        *OURS,
        "output_output_item_id",
        "output_status",
        "output_item_id",
        "output_metadata",
        "metadata",
    ]
    (row,) = to_arrow([done(model(item_id="i", status=2, output_item_id="o", metadata="m"))], model).to_pylist()
    assert (row["output_output_item_id"], row["output_status"], row["output_item_id"]) == ("i", 2, "o")
    assert row["item_id"] == "a"


def test_a_recursive_root_is_cut_at_its_recursion() -> None:
    assert str(arrow_schema(Node).field("children").type) == "list<item: string>"


def test_a_model_without_fields_of_its_own_is_one_column() -> None:
    model = RootModel[list[int]]
    assert arrow_schema(model).names == [*OURS, "output", "metadata"]
    assert to_arrow([done(model([1, 2])), FAILED], model).column("output").to_pylist() == [[1, 2], None]


def test_aliases_do_not_rename_columns() -> None:
    model = create_model("Aliased", __config__={"serialize_by_alias": True}, good=(int, Field(alias="bad")))
    assert "good" in arrow_schema(model).names
    assert to_arrow([done(model(bad=3))], model).column("good").to_pylist() == [3]


def test_a_number_beyond_64_bits_names_its_column() -> None:
    model = create_model("Big", n=(int, ...))
    with pytest.raises(ValueError, match="column 'n' of type int64"):
        to_arrow([done(model(n=2**70))], model)


@pytest.mark.parametrize("value", [2**70, [1, 2**70], {"deep": 2**70, "pad": "x" * 500}])
def test_an_answer_that_fits_in_no_cell_is_named_with_its_row_and_the_ways_to_have_it(value: Any) -> None:
    kind: Any = {int: int, list: list[int], dict: create_model("In", deep=(int, ...), pad=(str, ...))}[type(value)]
    model = create_model("Big", n=(kind, ...))
    small: Any = {int: 1, list: [], dict: {"deep": 1, "pad": ""}}[type(value)]
    results = [done(model(n=value if at in (3, 5) else small), str(at)) for at in range(8)]
    with pytest.raises(ValueError, match=r"the answer of item '3', .*118059") as caught:
        to_arrow([FAILED, *results], model)
    assert len(str(caught.value)) < 600
    assert all(way in str(caught.value) for way in ("iter_results()", "export_terminal_results()", "`batchor results`"))


def test_pandas_keeps_integers_and_booleans_with_nulls() -> None:
    frame = to_pandas(to_arrow([done(VALUE), FAILED], Everything))
    kinds = {name: str(frame.dtypes[name]) for name in ("attempt_count", "whole", "yes", "real", "at")}
    assert kinds == {
        "attempt_count": "int64",
        "whole": "Int64",
        "yes": "boolean",
        "real": "float64",
        "at": "datetime64[us, UTC]",
    }
    assert frame["whole"][0] == 2**62


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_batches_hold_as_many_rows_as_asked(size: int) -> None:
    results = [TextItemResult(str(number), ItemStatus.COMPLETED, 1, "x") for number in range(7)]
    batches = list(record_batches(iter(results), None, rows_per_batch=size))
    assert all(batch.num_rows <= size for batch in batches)
    assert pa.Table.from_batches(batches).column("item_id").to_pylist() == [str(number) for number in range(7)]


def test_long_answers_make_batches_of_few_rows() -> None:
    results = [TextItemResult(str(number), ItemStatus.COMPLETED, 1, "x" * 2**19) for number in range(7)]
    batches = list(record_batches(iter(results), None, rows_per_batch=100))
    assert [batch.num_rows for batch in batches] == [2, 2, 2, 1]
    assert pa.Table.from_batches(batches).column("item_id").to_pylist() == [str(number) for number in range(7)]


def test_a_batch_size_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="rows_per_batch"):
        list(record_batches([], None, rows_per_batch=0))


def test_batches_are_built_as_they_are_asked_for() -> None:
    def endless():
        while True:
            yield TextItemResult("a", ItemStatus.COMPLETED, 1, "x")

    assert next(record_batches(endless(), None, rows_per_batch=5)).num_rows == 5


def test_columns_are_described_for_people() -> None:
    class Report(BaseModel):
        risk: int | None = Field(description="0 to 10")
        where: list[Place]

    described = {column.name: column for column in column_descriptions(Report)}
    assert list(described) == arrow_schema(Report).names
    assert (described["risk"].type, described["risk"].nullable) == ("int64", True)
    assert described["risk"].description == "0 to 10"
    assert described["where"].type == "list<struct<lat: float64, seen: timestamp[us, UTC]>>"
    assert not described["where"].nullable
    assert described["metadata"].type == "json"
    assert all(described[name].description for name in [*OURS, "metadata"])


def test_describing_columns_imports_no_heavy_library() -> None:
    code = (
        "import sys; from batchor_engine.results import frames, segments, merge, items; "
        "frames.column_descriptions(None); "
        "sys.exit(any(name in sys.modules for name in ('pyarrow', 'pandas', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_lone_surrogates_deep_inside_a_model_are_replaced_too() -> None:
    model = create_model("Deep", words=(list[str], ...), free=(dict[str, str], ...))
    (row,) = to_arrow([done(model.model_construct(words=["x\ud800"], free={"k": "\udfff"}))], model).to_pylist()
    assert row["words"] == ["x\ufffd"]
    assert row["free"] == '{"k":"\ufffd"}'
