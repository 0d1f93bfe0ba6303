"""Arrow arrays from Python lists are those that pyarrow makes, without what pyarrow imports for it."""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchor_engine.results.buffers import array_of

SCALARS: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.string(), st.text()),
    (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    (pa.float64(), st.floats(allow_nan=False)),
    (pa.bool_(), st.booleans()),
    (pa.date32(), st.dates()),
]
Case = tuple[pa.DataType, st.SearchStrategy[Any]]


def listed(one: Case) -> Case:
    kind, values = one
    return pa.list_(kind), st.lists(st.none() | values, max_size=4)


def structured(fields: list[Case]) -> Case:
    names = [f"f{at}" for at in range(len(fields))]
    kind = pa.struct([(name, kind) for name, (kind, _) in zip(names, fields, strict=True)])
    cells = {name: st.none() | values for name, (_, values) in zip(names, fields, strict=True)}
    return kind, st.fixed_dictionaries({}, optional=cells)


CASES = st.recursive(
    st.sampled_from(SCALARS),
    lambda inner: inner.map(listed) | st.lists(inner, max_size=3).map(structured),
    max_leaves=5,
)


@given(data=st.data(), case=CASES)
def test_an_array_is_the_one_that_pyarrow_makes(data: st.DataObject, case: Case) -> None:
    kind, values = case
    column = data.draw(st.lists(st.none() | values, max_size=12))
    made = array_of(kind, column)
    made.validate(full=True)
    assert made.equals(pa.array(column, type=kind))
    assert made.to_pylist() == pa.array(column, type=kind).to_pylist()


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.int64(), [2**63]),
        (pa.int64(), ["1"]),
        (pa.string(), [1]),
        (pa.struct([("a", pa.int64())]), [{"a": "x"}]),
        (pa.bool_(), [1]),
        (pa.date32(), ["2026-11-21"]),
    ],
)
def test_what_a_type_cannot_hold_is_an_error_and_never_another_value(kind: pa.DataType, values: list[Any]) -> None:
    with pytest.raises((ValueError, TypeError, OverflowError)):
        array_of(kind, values)


def test_numbers_of_the_other_sort_are_taken_as_pyarrow_takes_them() -> None:
    assert array_of(pa.float64(), [1, 2.5]).to_pylist() == [1.0, 2.5]
    assert array_of(pa.date32(), [date(2026, 11, 21), None]).to_pylist() == [date(2026, 11, 21), None]


def test_half_a_character_becomes_a_mark_wherever_it_stands() -> None:
    kind = pa.list_(pa.struct([("a", pa.string())]))
    assert array_of(kind, [[{"a": "x\ud800"}]]).to_pylist() == [[{"a": "x\ufffd"}]]


def test_a_table_of_usual_columns_is_written_without_pandas(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from pydantic import BaseModel\n"
        "from batchor_engine.models import StructuredItemResult\n"
        "from batchor_engine.results.parquet import write_file\n"
        "from batchor_engine.states import ItemStatus\n"
        "class Inner(BaseModel):\n    words: list[str]\n    share: float | None\n    good: bool\n"
        "class Model(BaseModel):\n    name: str\n    count: int\n    inner: list[Inner]\n"
        "model = Model(name='a', count=1, inner=[Inner(words=['b'], share=None, good=True)])\n"
        "rows = [StructuredItemResult('r', ItemStatus.COMPLETED, 1, model)]\n"
        "assert write_file(Path(sys.argv[1]), rows, Model) == 1\n"
        "assert 'pyarrow' in sys.modules and 'pandas' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "t")], check=True, cwd=Path(__file__).parents[2])
