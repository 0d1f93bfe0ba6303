"""Several sources as one: their order is the identity, their ids never meet."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchor_engine.models import LINEAGE_KEY, BatchItem
from batchor_engine.sources.base import CheckpointedBatchItem, CheckpointedItemSource, SourceIdentity
from batchor_engine.sources.composite import CompositeItemSource
from batchor_engine.sources.files import CsvItemSource, JsonlItemSource


class Letters(CheckpointedItemSource[Any]):
    """A source of a user's own: its checkpoint is a text."""

    def __init__(self, letters: str, ref: str = "here") -> None:
        self.letters = letters
        self.ref = ref

    def source_identity(self) -> SourceIdentity:
        return SourceIdentity("letters", self.ref, self.letters)

    def initial_checkpoint(self) -> Any:
        return ""

    def iter_from_checkpoint(self, checkpoint: Any) -> Iterator[CheckpointedBatchItem[Any]]:
        for place in range(len(checkpoint), len(self.letters)):
            yield CheckpointedBatchItem(self.letters[: place + 1], BatchItem(self.letters[place], place))

    def checkpoint_is_complete(self, checkpoint: Any) -> bool:
        return checkpoint == self.letters


nested = st.recursive(
    st.text("abc", max_size=3).map(Letters), lambda inner: st.lists(inner, max_size=3).map(CompositeItemSource)
)


@given(st.lists(nested, max_size=4).map(CompositeItemSource))
def test_resumed_items_are_the_tail_at_every_position(source: CompositeItemSource) -> None:
    rows = list(source.iter_from_checkpoint(source.initial_checkpoint()))
    checkpoints = [source.initial_checkpoint(), *(row.next_checkpoint for row in rows)]
    for done, checkpoint in enumerate(checkpoints):
        assert list(source.iter_from_checkpoint(json.loads(json.dumps(checkpoint)))) == rows[done:]
        if source.checkpoint_is_complete(checkpoint):
            assert done == len(rows)
    assert list(source) == [row.item for row in rows]


def test_checkpoint_and_completeness() -> None:
    source = CompositeItemSource([Letters("a"), Letters("b")])
    assert source.initial_checkpoint() == {"source_index": 0, "child_checkpoint": ""}
    first, last = source.iter_from_checkpoint(source.initial_checkpoint())
    assert first.next_checkpoint == {"source_index": 0, "child_checkpoint": "a"}
    assert last.next_checkpoint == {"source_index": 1, "child_checkpoint": "b"}
    assert not source.checkpoint_is_complete(first.next_checkpoint)
    assert source.checkpoint_is_complete(last.next_checkpoint)
    assert source.checkpoint_is_complete({"source_index": 7, "child_checkpoint": None})
    assert list(source.iter_from_checkpoint({"source_index": 7, "child_checkpoint": None})) == []


def test_an_empty_list_is_an_empty_source() -> None:
    source = CompositeItemSource([])
    assert list(source) == []
    assert source.checkpoint_is_complete(source.initial_checkpoint())
    assert source.source_identity() == SourceIdentity("composite", "[]", hashlib.sha256(b"[]").hexdigest())


def test_identity_is_the_children_in_their_order() -> None:
    source = CompositeItemSource([Letters("a"), Letters("b")]).source_identity()
    children = json.loads(source.source_ref)
    assert children == [
        {"source_kind": "letters", "source_ref": "here", "source_fingerprint": "a"},
        {"source_kind": "letters", "source_ref": "here", "source_fingerprint": "b"},
    ]
    assert source.source_ref == json.dumps(children, sort_keys=True, separators=(",", ":"))
    assert source.source_fingerprint == hashlib.sha256(source.source_ref.encode()).hexdigest()
    assert CompositeItemSource([Letters("b"), Letters("a")]).source_identity() != source


def test_the_same_id_in_two_children_is_two_items() -> None:
    child = Letters("a")
    items = list(CompositeItemSource([child, child, Letters("a", "there")]))
    ids = [item.item_id for item in items]
    assert len(set(ids)) == 3
    for item in items:
        lineage = item.metadata[LINEAGE_KEY]
        assert item.item_id == f"{lineage['source_namespace']}__a"
        assert lineage["source_primary_key"] == "a"
        assert len(lineage["source_namespace"]) == len("src_") + 12


def test_the_namespace_follows_position_kind_and_ref_but_not_content() -> None:
    (before,) = CompositeItemSource([Letters("a")])
    (after, _) = CompositeItemSource([Letters("ab")])
    assert before.item_id == after.item_id


def test_files_keep_their_lineage_and_ids(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("tag\nx\n")
    (tmp_path / "b.jsonl").write_text('{"tag":"x"}\n')
    coast = CsvItemSource(tmp_path / "a.csv", item_id_from_row=lambda r: r["tag"], payload_from_row=dict)
    ocean = JsonlItemSource(
        tmp_path / "b.jsonl",
        item_id_from_row=lambda r: r["tag"],
        payload_from_row=dict,
        metadata_from_row=lambda r: {
            "k": 1,
            LINEAGE_KEY: {"source_namespace": "mine", "source_primary_key": "mine", "team": "t"},
        },
    )
    first, second = CompositeItemSource([coast, ocean])
    assert first.metadata[LINEAGE_KEY]["source_ref"] == str(tmp_path / "a.csv")
    assert second.metadata["k"] == 1
    assert second.metadata[LINEAGE_KEY] == {
        "source_ref": str(tmp_path / "b.jsonl"),
        "source_item_index": 0,
        "source_primary_key": "x",
        "source_namespace": second.item_id.removesuffix("__x"),
        "team": "t",
    }


def test_nesting_keeps_the_innermost_row_id() -> None:
    (item,) = CompositeItemSource([CompositeItemSource([CompositeItemSource([Letters("a")])])])
    lineage = item.metadata[LINEAGE_KEY]
    assert lineage["source_primary_key"] == "a"
    assert item.item_id.startswith(lineage["source_namespace"] + "__src_")
    assert item.item_id.endswith("__a")


@pytest.mark.parametrize("child", [[], [BatchItem("a", 1)], "path.csv", None])
def test_a_child_that_cannot_be_resumed_is_refused(child: Any) -> None:
    with pytest.raises(TypeError, match="source 1 of a CompositeItemSource"):
        CompositeItemSource([Letters("a"), child])


@pytest.mark.parametrize("checkpoint", [None, 0, {}, {"source_index": 0}, {"source_index": -1, "child_checkpoint": 0}])
def test_a_checkpoint_of_another_kind_is_refused(checkpoint: Any) -> None:
    with pytest.raises(TypeError, match="source_index"):
        list(CompositeItemSource([Letters("a")]).iter_from_checkpoint(checkpoint))
