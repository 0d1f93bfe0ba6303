"""Names of files are pure functions of ids, and no id can leave its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchor_engine.artifacts import keys
from batchor_engine.artifacts.local import LocalArtifactStore

ids = st.text(st.characters(exclude_categories=()) | st.sampled_from("./%~=\ud800"), min_size=1, max_size=200)
TOKEN = "0123456789abcdef" * 2


def test_layout_is_the_contracts() -> None:
    assert keys.request_key("r1", TOKEN) == f"r1/requests/requests_{TOKEN}.jsonl"
    assert keys.sidecar_key(keys.request_key("r1", TOKEN)) == f"r1/requests/requests_{TOKEN}.items"
    assert keys.output_key("r1", "batch_9") == "r1/outputs/batch_9_output.jsonl"
    assert keys.error_key("r1", "batch_9") == "r1/outputs/batch_9_error.jsonl"
    assert keys.result_key("r1", "s1") == "r1/results/s1.parquet"


@given(ids)
def test_any_id_becomes_one_segment_that_a_file_system_can_hold(text: str) -> None:
    segment = keys.path_segment(text)
    assert segment not in (".", "..")
    assert set(segment).isdisjoint('/\\:\0*?"<>| ')
    assert len(segment.encode()) <= 200


@given(st.lists(ids, min_size=2, max_size=2, unique=True))
def test_two_ids_never_share_a_segment(pair: list[str]) -> None:
    assert keys.path_segment(pair[0]) != keys.path_segment(pair[1])


# A run id never holds a NUL; what a provider calls its batch is its own affair.
@given(ids.filter(lambda text: "\0" not in text), ids)
def test_every_key_is_accepted_by_the_store_and_stays_below_its_run(run_id: str, batch_id: str) -> None:
    store = LocalArtifactStore("/nowhere")
    for key in (keys.output_key(run_id, batch_id), keys.error_key(run_id, batch_id), keys.result_key(run_id, batch_id)):
        assert store.resolve_path(key).is_relative_to(f"/nowhere/{keys.run_prefix(run_id)}")


def test_long_ids_that_differ_at_the_end_differ_in_their_segment() -> None:
    assert keys.path_segment("ä" * 199 + "a") != keys.path_segment("ä" * 199 + "b")


@pytest.mark.parametrize("run_id", ["", "x" * 201])
def test_empty_and_overlong_run_ids_are_refused(run_id: str) -> None:
    with pytest.raises(ValueError, match="run id"):
        keys.run_prefix(run_id)


@pytest.mark.parametrize("hostile", ["..", ".", "../../etc/passwd", "a/b", "a\\b", "a\0b", "~", "C:x"])
def test_a_hostile_provider_batch_id_stays_in_outputs(hostile: str) -> None:
    key = keys.output_key("r", hostile)
    assert key.startswith("r/outputs/")
    assert key.count("/") == 2


def test_a_request_token_that_is_not_hex_is_refused() -> None:
    with pytest.raises(ValueError, match="32 lower-case hex"):
        keys.request_key("r", "../x")
