"""Endpoints that answer with data: a vector or a verdict for each row, from the prompt to the table."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel

import batchor_engine
from batchor_engine import (
    BatchItem,
    ChunkPolicy,
    EmbeddingItemResult,
    ItemStatus,
    Moderation,
    OpenAIEndpoint,
    OpenAIEnqueueLimitConfig,
    OpenAIProviderConfig,
    PromptBuildError,
    PromptParts,
    Run,
    StructuredItemResult,
)
from batchor_engine.results.segments import read_rows
from batchor_engine.sandbox import SandboxAnswer, SandboxConfig, SandboxRequest

from .conftest import World

Vectors = list[EmbeddingItemResult]


class Sighting(BaseModel):
    species: str


def embedder(**options: Any) -> OpenAIProviderConfig:
    wanted = {"request_options": {"dimensions": 8}, "endpoint": OpenAIEndpoint.EMBEDDINGS, **options}
    return OpenAIProviderConfig(model="text-embedding-3-small", **wanted)


def embed(world: World, rows: Any = 3, run_id: str = "vectors", **options: Any) -> Run:
    settings = {"provider_config": embedder(), "build_prompt": lambda item: f"Row {item.payload}", **options}
    return world.runner().run_and_wait(world.job(rows, **settings), run_id=run_id)


def sent(world: World) -> list[dict[str, Any]]:
    texts = [file.read_bytes().decode() for file in world.files("*/requests/*.jsonl")]
    return [json.loads(line)["body"] for text in texts for line in text.split("\n") if line]


def test_every_text_has_its_vector_of_32_bit_floats(world: World) -> None:
    run = embed(world)
    for result in run.results():
        assert isinstance(result, EmbeddingItemResult)
        body: Any = (result.raw_response or {})["response"]
        packed = base64.b64decode(body["body"]["data"][0]["embedding"])
        assert result.embedding is not None
        assert tuple(result.embedding) == struct.unpack("<8f", packed)
        assert np.asarray(result.embedding).dtype == np.float32
        assert result.output_text is None
    assert sent(world)[1] == {
        "model": "text-embedding-3-small",
        "input": "Row {'n': 1}",
        "dimensions": 8,
        "encoding_format": "base64",
    }


def test_vectors_sent_as_numbers_are_the_same_vectors(world: World) -> None:
    packed = embed(world).results()
    options = {"dimensions": 8, "encoding_format": "float"}
    plain = embed(world, run_id="plain", provider_config=embedder(request_options=options)).results()
    assert sorted(body["encoding_format"] for body in sent(world)) == ["base64"] * 3 + ["float"] * 3
    for one, other in zip(packed, plain, strict=True):
        assert isinstance(one, EmbeddingItemResult)
        assert isinstance(other, EmbeddingItemResult)
        assert one.embedding == other.embedding


def test_tables_hold_vectors_as_lists_of_32_bit_floats_and_null_where_a_row_failed(
    world: World, tmp_path: Path
) -> None:
    world.fault("line_error", lines=(2,), status=400)
    embed(world)
    run = world.runner().get_run("vectors")
    table = run.to_arrow()
    table.validate(full=True)
    vectors: Any = [result.embedding for result in run.iter_results()]  # type: ignore[union-attr]
    assert table.schema.field("embedding").type == pa.list_(pa.float32())
    assert table["embedding"].to_pylist() == [list(vectors[0]), None, list(vectors[2])]
    assert pq.read_table(run.write_parquet(tmp_path / "v.parquet")).equals(table)
    frame = run.to_pandas()
    assert frame["embedding"][0].dtype == np.float32
    assert np.stack(frame["embedding"].dropna()).shape == (2, 8)  # type: ignore[call-overload]


def test_an_empty_run_has_the_same_columns(world: World) -> None:
    assert embed(world, 0).to_arrow().schema == embed(world, 1, run_id="one").to_arrow().schema


def test_result_lines_hold_the_numbers_and_need_no_model(world: World, tmp_path: Path) -> None:
    embed(world)
    run = world.runner().get_run("vectors")
    run.export_terminal_results(tmp_path / "v.jsonl")
    lines = {line["item_id"]: line for line in map(json.loads, (tmp_path / "v.jsonl").read_text().splitlines())}
    for result in run.results():
        assert isinstance(result, EmbeddingItemResult)
        assert lines[result.item_id]["embedding"] == list(result.embedding or ())
        assert lines[result.item_id]["output_text"] is None
        assert "output_json" not in lines[result.item_id]
    exported = run.export_artifacts(tmp_path / "export")
    assert json.loads(Path(exported.results_path).read_text().splitlines()[0])["embedding"]


def test_a_segment_keeps_the_packed_vector_and_nothing_else_of_the_answer(world: World) -> None:
    embed(world)
    file = world.file("*/results/*.parquet")
    with file.store.local_file(file.key) as path:
        assert {len(base64.b64decode(row.text or "")) for row in read_rows(path)} == {8 * 4}


def test_vectors_cost_input_tokens_only(world: World) -> None:
    usage = embed(world).usage()
    assert usage.input_tokens > 0
    assert (usage.cached_tokens, usage.output_tokens, usage.reasoning_tokens) == (0, 0, 0)


def test_a_model_of_ones_own_is_refused_before_anything_is_stored(world: World) -> None:
    job = world.job(3, provider_config=embedder(), structured_output=Sighting)
    runner = world.runner()
    with pytest.raises(ValueError, match="structured_output=Sighting needs an endpoint that answers with text"):
        runner.start(job, run_id="refused")
    assert runner.find_runs() == []
    assert world.stats()["calls"] == {}
    plan = runner.plan(job)
    assert not plan.can_start
    assert "answers with text" in plan.blockers[0]


@pytest.mark.parametrize(
    ("parts", "words"),
    [(PromptParts("x", "be brief"), "system_prompt"), (PromptParts("", messages=[{"role": "user"}]), "one input")],
)
def test_what_an_embedding_has_no_place_for_is_said_at_the_first_row(
    world: World, parts: PromptParts, words: str
) -> None:
    with pytest.raises(PromptBuildError, match=words):
        embed(world, build_prompt=lambda _: parts)


def test_options_that_collide_with_the_input_are_refused(world: World) -> None:
    with pytest.raises(PromptBuildError, match="'input' is set by the engine"):
        embed(world, provider_config=embedder(request_options={"input": "y"}))
    with pytest.raises(ValueError, match="takes no reasoning_effort"):
        embedder(reasoning_effort="low")


def answer_of(vectors: list[Any]) -> dict[str, Any]:
    data = [{"object": "embedding", "index": at, "embedding": one} for at, one in enumerate(vectors)]
    return {"object": "list", "data": data, "model": "m", "usage": {"prompt_tokens": 2, "total_tokens": 2}}


BODIES: dict[str, dict[str, Any]] = {
    "good": answer_of([[0.5, 1]]),
    "none": answer_of([]),
    "two": answer_of([[0.5], [0.5]]),
    "empty": answer_of([[]]),
    "text": answer_of([["0.5"]]),
    "torn": answer_of(["AAA="]),
    "null": answer_of([None]),
    "odd": {"object": "list", "data": [7]},
    "chat": {
        "choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 2, "completion_tokens": 1},
    },
}


def answered_as_asked(request: SandboxRequest) -> SandboxAnswer:
    return SandboxAnswer(body=BODIES[request.prompt])


@pytest.mark.parametrize("sandbox_config", [SandboxConfig(clock="polls", responder=answered_as_asked)])
def test_an_answer_without_exactly_one_vector_fails_its_row_alone(world: World) -> None:
    rows = [BatchItem(name, name) for name in BODIES]
    run = embed(world, rows, build_prompt=lambda item: item.payload)
    results = {result.item_id: result for result in run.results()}
    good: Any = results.pop("good")
    assert good.embedding.tolist() == [0.5, 1.0]
    for result in results.values():
        assert (result.status, result.attempt_count) == (ItemStatus.FAILED_PERMANENT, 3)
        assert result.error is not None
        assert result.error.error_class == "invalid_embedding"
    assert "2 embeddings for one input" in results["two"].error.message  # type: ignore[union-attr]


@pytest.mark.parametrize("sandbox_config", [SandboxConfig(clock="polls", max_embedding_inputs=3)])
def test_a_file_never_holds_more_inputs_than_the_policy_allows(world: World) -> None:
    run = embed(world, 7, chunk_policy=ChunkPolicy(max_requests=3))
    assert [batch.items for batch in run.batches()] == [3, 3, 1]
    assert run.summary().completed_items == 7


def test_a_token_budget_holds_for_vectors_too(world: World) -> None:
    limits = OpenAIEnqueueLimitConfig(enqueued_token_limit=200, target_ratio=1.0)
    run = embed(world, 9, provider_config=embedder(enqueue_limits=limits))
    assert len(run.batches()) > 1
    assert run.summary().completed_items == 9


def test_a_plan_of_vectors_counts_no_output(world: World) -> None:
    plan = world.runner().plan(world.job(4, provider_config=embedder()))
    assert (plan.can_start, plan.rows, plan.request_files) == (True, 4, 1)
    assert plan.cost_high is not None
    assert plan.cost_high.amount_usd == plan.cost_low.amount_usd
    assert plan.samples[0]["url"] == "/v1/embeddings"


def moderate(world: World, texts: list[Any], **options: Any) -> Run:
    config = OpenAIProviderConfig(model="omni-moderation-latest", endpoint=OpenAIEndpoint.MODERATIONS)
    rows = [BatchItem(f"row-{at}", text) for at, text in enumerate(texts)]
    settings = {"provider_config": config, "build_prompt": lambda item: item.payload, **options}
    return world.runner().run_and_wait(world.job(rows, **settings), run_id="verdicts")


def test_moderations_are_verdicts_by_category(world: World, tmp_path: Path) -> None:
    moderate(world, ["hello", "I will kill you"])
    run = world.runner().get_run("verdicts")
    for result, flagged in zip(run.results(), (False, True), strict=True):
        assert isinstance(result, StructuredItemResult)
        assert isinstance(result.output, Moderation)
        assert result.output.flagged is result.output.categories["violence"] is flagged
        assert ((result.output.category_scores["violence"] or 0) > 0.5) is flagged
    table = run.to_arrow()
    assert table["flagged"].to_pylist() == [False, True]
    assert json.loads(table["category_scores"][1].as_py())["violence"] == 0.93
    run.export_terminal_results(tmp_path / "m.jsonl")
    line = json.loads((tmp_path / "m.jsonl").read_text().splitlines()[0])
    assert "category_applied_input_types" in line["output_json"]


def test_the_parts_of_a_moderation_are_one_input(world: World) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    parts = PromptParts("unused", messages=[{"type": "text", "text": "kill"}, image])
    (result,) = moderate(world, ["x"], build_prompt=lambda _: parts).results()
    assert isinstance(result, StructuredItemResult)
    assert result.output is not None
    assert result.output.flagged
    assert sent(world)[0]["input"] == parts.messages


VERDICTS: dict[str, dict[str, Any]] = {
    "two": {"results": [{"flagged": False}, {"flagged": True}]},
    "none": {"results": []},
    "bare": {"results": [{"flagged": True}]},
}


def judged_as_asked(request: SandboxRequest) -> SandboxAnswer:
    return SandboxAnswer(body=VERDICTS[request.prompt])


@pytest.mark.parametrize("sandbox_config", [SandboxConfig(clock="polls", responder=judged_as_asked)])
def test_a_verdict_that_is_none_fails_its_row(world: World) -> None:
    classes = [result.error and result.error.error_class for result in moderate(world, list(VERDICTS)).results()]
    assert classes == ["invalid_moderation", "invalid_moderation", "structured_output_validation_failed"]


def test_the_example_of_the_providers_page_runs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs/providers.md").read_text()
    example = page.partition("```python\n")[2].partition("```")[0]
    monkeypatch.setenv("HOME", str(world.folder))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("OPENAI_BASE_URL", world.sandbox.base_url)
    names: dict[str, Any] = {**vars(batchor_engine), "numpy": np, "rows": [BatchItem("a", "x"), BatchItem("b", "y")]}
    exec(example, names)
    assert names["matrix"].shape == (2, 512)
    assert names["matrix"].dtype == np.float32
