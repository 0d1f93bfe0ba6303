"""A plan tells what start() would do, and does none of it."""

from __future__ import annotations

import json
import tracemalloc
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel

from batchor_engine import (
    BatchItem,
    ChunkPolicy,
    JsonlItemSource,
    OpenAIEndpoint,
    OpenAIEnqueueLimitConfig,
    OpenAIProviderConfig,
    PromptParts,
)
from batchor_engine.core.records import ScopeRecord
from batchor_engine.core.tokens import PROCESS_TOKENIZERS
from batchor_engine.runtime.estimate import JobPlan, estimate

from .conftest import World


class Sighting(BaseModel):
    species: str
    count: int


class Open(BaseModel):
    anything: dict[str, Any]


@pytest.fixture(autouse=True)
def no_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without network: what is planned here must not depend on a download."""
    monkeypatch.setattr(PROCESS_TOKENIZERS, "_unavailable", True)
    monkeypatch.setattr(PROCESS_TOKENIZERS, "_known", {})


def plan(world: World, job: Any, **options: Any) -> JobPlan:
    return estimate(world.runner(connection=None).host, job, **options)


def test_a_plan_stores_nothing_sends_nothing_and_needs_no_key(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    found = plan(world, world.job(5))
    assert (found.rows, found.request_files, found.can_start) == (5, 1, True)
    assert world.stats()["calls_total"] == 0
    assert not list(world.folder.iterdir())


def test_planned_files_bytes_and_rows_are_those_that_are_sent(world: World) -> None:
    job = world.job(
        [BatchItem(f"row-{n}", {"text": "x" * (n * 37 % 200)}) for n in range(40)],
        chunk_policy=ChunkPolicy(max_requests=13, max_file_bytes=2_600),
    )
    found = plan(world, job)
    runner = world.runner()
    run = runner.run_and_wait(job)
    stored = runner.storage.run(run.run_id)
    assert stored is not None
    batches = runner.storage.batches(run_pk=stored.pk)
    assert found.request_files == len(batches) > 3
    assert found.request_bytes == sum(batch.bytes for batch in batches)
    assert found.rows == sum(batch.items for batch in batches) == 40


def test_samples_are_the_very_requests(world: World) -> None:
    job = world.job(3, structured_output=Sighting)
    found = plan(world, job, sample=2)
    runner = world.runner()
    run = runner.run_and_wait(job)
    stored = runner.storage.run(run.run_id)
    assert stored is not None
    part = runner.storage.parts(stored.pk)[0]
    with runner.host.artifacts(stored).local_file(part.key) as path:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert list(found.samples) == lines[:2]
    assert found.schema is not None
    assert found.schema.schema == lines[0]["body"]["text"]["format"]["schema"]


def test_tokens_by_ratio_are_called_a_ratio(world: World) -> None:
    found = plan(world, world.job(2))
    assert found.tokens_counted_by.startswith("a ratio of 4 characters a token")
    assert found.input_tokens == pytest.approx(found.request_bytes / 4, abs=4)


def test_the_input_is_the_lower_bound_and_an_answer_without_a_limit_has_no_upper_one(world: World) -> None:
    found = plan(world, world.job(100))
    assert found.cost_low.is_batch_price
    assert found.cost_low.amount_usd == Decimal("0.125") * found.input_tokens / 1_000_000
    assert found.cost_high is None
    assert "no limit" in found.cost_words


@pytest.mark.parametrize(
    ("endpoint", "options", "longest"),
    [
        (OpenAIEndpoint.RESPONSES, {"max_output_tokens": 50}, 50),
        (OpenAIEndpoint.CHAT_COMPLETIONS, {"max_completion_tokens": 30, "n": 2}, 60),
    ],
)
def test_a_limit_on_the_answer_gives_an_upper_bound(
    world: World, endpoint: OpenAIEndpoint, options: dict[str, Any], longest: int
) -> None:
    config = OpenAIProviderConfig(model="gpt-5-mini", endpoint=endpoint, request_options=options)
    found = plan(world, world.job(100, provider_config=config))
    assert found.cost_high is not None
    assert found.cost_high.amount_usd is not None
    assert found.cost_low.amount_usd is not None
    assert found.cost_high.amount_usd - found.cost_low.amount_usd == Decimal(1) * 100 * longest / 1_000_000
    assert "at most $" in found.cost_words


def test_one_row_without_a_limit_takes_the_upper_bound_away(world: World) -> None:
    def build(item: BatchItem[Any]) -> PromptParts:
        limited: Any = {} if item.item_id == "row-1" else {"max_output_tokens": 5}
        return PromptParts("say", request_options=limited)

    assert plan(world, world.job(3, build_prompt=build)).cost_high is None


def test_an_unknown_price_is_said_and_the_rest_is_planned(world: World) -> None:
    found = plan(world, world.job(3, provider_config=OpenAIProviderConfig(model="my-own")))
    assert (found.cost_low.amount_usd, found.cost_high) == (None, None)
    assert "unknown price" in found.cost_words
    assert found.request_files == 1


def test_rows_too_large_are_named_with_the_limit_they_pass(world: World) -> None:
    items = [BatchItem(f"row-{n}", "x" * (5000 if n in {1, 4} else 5)) for n in range(6)]
    found = plan(world, world.job(items, chunk_policy=ChunkPolicy(max_file_bytes=2000)))
    assert [row.item_id for row in found.too_large] == ["row-1", "row-4"]
    assert "max_file_bytes" in found.too_large[0].reason
    assert found.too_large_count == 2
    assert found.can_start
    assert any("2 rows too large" in warning for warning in found.warnings)


def test_duplicate_ids_are_found_before_a_run_is_begun(world: World) -> None:
    items = [BatchItem(f"row-{n % 4}", n) for n in range(6)]
    found = plan(world, world.job(items))
    assert (found.duplicate_ids, found.duplicate_count) == (("row-0", "row-1"), 2)
    assert not found.can_start


def test_an_id_that_no_store_can_hold_is_refused_as_start_refuses_it(world: World) -> None:
    with pytest.raises(ValueError, match="surrogate"):
        plan(world, world.job([BatchItem("\ud800", 1)]))


def test_a_model_that_cannot_be_strict_blocks_and_names_the_path(world: World) -> None:
    found = plan(world, world.job(2, structured_output=Open))
    assert found.schema is not None
    assert found.schema.error
    assert "anything" in found.blockers[0]
    assert found.rows == 2


def test_rows_that_build_prompt_refuses_are_all_listed(world: World) -> None:
    def build(item: BatchItem[Any]) -> Any:
        if item.payload["n"] % 2:
            raise KeyError("body")
        return "fine"

    found = plan(world, world.job(5, build_prompt=build))
    assert [row.item_id for row in found.unbuildable] == ["row-1", "row-3"]
    assert "KeyError" in found.unbuildable[0].reason
    assert (found.rows, found.can_start) == (5, False)


def test_metadata_that_would_hide_ours_blocks(world: World) -> None:
    assert "run_id" in plan(world, world.job(1, batch_metadata={"run_id": "mine"})).blockers[0]


def test_a_budget_that_makes_tiny_batches_is_warned_of(world: World) -> None:
    limits = OpenAIEnqueueLimitConfig(enqueued_token_limit=100, target_ratio=1.0)
    found = plan(world, world.job(20, provider_config=OpenAIProviderConfig(model="gpt-5-mini", enqueue_limits=limits)))
    text = " ".join(found.warnings)
    assert "token budget of 100 a batch makes" in text
    assert "may be enqueued at once" in text


def test_a_limit_the_provider_taught_this_store_is_planned_with(world: World) -> None:
    runner = world.runner()
    provider = runner.host.provider(world.job().provider_config)
    before = estimate(runner.host, world.job(20)).request_files
    runner.storage.learn(ScopeRecord(f"{provider.account_label}|gpt-5-mini", 0, 200))
    assert (before, estimate(runner.host, world.job(20)).request_files > 1) == (1, True)


def test_one_row_a_file_is_warned_of(world: World) -> None:
    found = plan(world, world.job(4, chunk_policy=ChunkPolicy(max_requests=1)))
    assert found.request_files == 4
    assert any("with one row only" in warning for warning in found.warnings)


def test_limits_above_the_providers_are_warned_of(world: World) -> None:
    policy = ChunkPolicy(max_requests=60_000, max_file_bytes=300 * 1024 * 1024)
    assert len(plan(world, world.job(1, chunk_policy=policy)).warnings) == 2


def test_an_iterator_is_refused_because_planning_would_use_it_up(world: World) -> None:
    rows = iter([BatchItem("a", 1)])
    with pytest.raises(ValueError, match="use it up"):
        plan(world, world.job(rows))
    assert next(rows).item_id == "a"


def test_an_empty_source_is_a_warning(world: World) -> None:
    found = plan(world, world.job([]))
    assert (found.rows, found.request_files, found.warnings) == (0, 0, ("the source has no rows",))
    assert found.cost_low.amount_usd == 0


def test_a_plan_is_json(world: World) -> None:
    payload = plan(world, world.job(2, structured_output=Sighting)).to_payload()
    assert json.loads(json.dumps(payload))["cost_low"]["amount_usd"]
    assert payload["can_start"] is True


def test_a_file_can_be_planned_and_then_started(world: World) -> None:
    path = world.folder / "rows.jsonl"
    path.write_text("".join(json.dumps({"id": f"r{n}"}) + "\n" for n in range(7)))
    source = JsonlItemSource(path, item_id_from_row=lambda row: row["id"], payload_from_row=dict)  # type: ignore[index]
    assert plan(world, world.job(source)).rows == 7
    assert len(world.runner().run_and_wait(world.job(source)).results()) == 7


def test_memory_stays_flat_in_the_number_of_rows(world: World) -> None:
    def peak(rows: int) -> int:
        class Many:
            def __iter__(self) -> Any:
                return (BatchItem(f"a-row-with-a-rather-long-id-{n:020d}", n) for n in range(rows))

        tracemalloc.start()
        try:
            assert plan(world, world.job(Many(), build_prompt=lambda item: "hi")).rows == rows
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(8000) < peak(500) + 200_000
