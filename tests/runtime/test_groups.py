"""Several jobs in one run: sent together, read back apart, each under its own ids."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from batchor_engine import BatchItem, BatchJob, OpenAIProviderConfig, PromptParts, RetryPolicy, grouped_job
from tests.runtime.conftest import World


def job(world: World, *ids: str, word: str = "Say", **options: Any) -> BatchJob[Any, Any]:
    seen = [BatchItem(one, {"id": one}, {"from": word}) for one in ids]

    def build(item: BatchItem[Any]) -> PromptParts:
        assert item.item_id == item.payload["id"]
        return PromptParts(f"{word} {item.item_id} {sorted(item.metadata)}")

    return world.job(seen, build_prompt=build, **options)


def finished(world: World, jobs: dict[int, BatchJob[Any, Any]]) -> Any:
    run = world.runner().start(grouped_job(jobs), run_id="grouped").wait()
    return world.runner().get_run(run.run_id)


def test_groups_travel_in_one_batch_and_are_read_apart(world: World) -> None:
    run = finished(world, {1: job(world, "a", "b", word="Say"), 2: job(world, "a", word="Sing")})
    groups = run.by_group()
    assert len(run.batches()) == 1
    assert {n: [(one.item_id, one.metadata) for one in group.results()] for n, group in groups.items()} == {
        1: [("a", {"from": "Say"}), ("b", {"from": "Say"})],
        2: [("a", {"from": "Sing"})],
    }
    assert {one.item_id for one in run.results()} == {"1__a", "1__b", "2__a"}


def test_each_row_is_asked_by_its_own_job_with_its_own_id(world: World) -> None:
    grouped = grouped_job({1: job(world, "a", word="Say"), 2: job(world, "a", word="Sing")})
    asked = [grouped.build_prompt(item) for item in grouped.items]
    assert asked == [PromptParts("Say a ['from']"), PromptParts("Sing a ['from']")]


def test_what_groups_come_to_adds_up_to_the_run(world: World) -> None:
    world.fault("refusal", custom_ids="2__a:a1")
    policy = RetryPolicy(max_attempts=1)
    run = finished(world, {n: job(world, "a", "b", retry_policy=policy) for n in (1, 2)})
    groups = list(run.by_group().values())
    assert [(one.summary().completed_items, one.summary().failed_items) for one in groups] == [(2, 0), (1, 1)]
    assert [one.status.value for one in groups] == ["completed", "completed_with_failures"]
    assert [one.failure_counts() for one in groups] == [{}, run.failure_counts()]
    assert [one.failures().column("item_id").to_pylist() for one in groups] == [[], ["a"]]
    assert [[result.item_id for result in one.iter_failures()] for one in groups] == [[], ["a"]]
    assert sum(one.usage().input_tokens for one in groups) == run.usage().input_tokens > 0
    assert sum(one.attempts() for one in groups) == run.attempts() == 4
    assert sum(one.estimate().input_tokens for one in groups) == run.estimate().input_tokens
    amounts = [one.cost().amount_usd or Decimal(0) for one in groups]
    assert sum(amounts) == run.cost().amount_usd
    assert [one.to_arrow().num_rows for one in groups] == [2, 2]


def test_pages_and_exported_lines_of_a_group_hold_its_own_rows_under_their_own_ids(
    world: World, tmp_path: Path
) -> None:
    run = finished(world, {1: job(world, "a", "b", word="Say"), 2: job(world, "a", "c", "d", word="Sing")})
    wanted = {1: {"a", "b"}, 2: {"a", "c", "d"}}
    for number, group in run.by_group().items():
        page = group.read_terminal_results()
        assert {one.item_id for one in page.items} == {one.item_id for one in group.snapshot().items} == wanted[number]
        assert all(set(one.metadata) == {"from"} and one.raw_response for one in page.items)
        written = group.export_terminal_results(tmp_path / f"{number}.jsonl")
        lines = [json.loads(line) for line in (tmp_path / f"{number}.jsonl").read_text().splitlines()]
        assert [line["item_id"] for line in lines] == [one.item_id for one in page.items]
        assert (written.exported_count, written.next_after_sequence) == (len(lines), page.next_after_sequence)


def test_a_cursor_walks_a_group_page_by_page_and_meets_each_row_once(world: World) -> None:
    group = finished(world, {1: job(world, "a", "b", "c"), 2: job(world, "a", "b", "c")}).group(2)
    met, cursor = list[str](), 0
    while (page := group.read_terminal_results(after_sequence=cursor, limit=2)).items:
        met += [one.item_id for one in page.items]
        cursor = page.next_after_sequence
    assert sorted(met) == ["a", "b", "c"]
    assert page.next_after_sequence == cursor


def test_a_superseded_failure_leaves_its_group_alone(world: World) -> None:
    world.fault("refusal", custom_ids="1__a:a1")
    run = finished(world, {n: job(world, "a", retry_policy=RetryPolicy(max_attempts=1)) for n in (1, 2)})
    assert run.by_group()[1].failure_counts()
    run = world.runner().get_run(run.run_id)
    run.retry_failed()
    run.wait()
    assert [one.failure_counts() for one in run.by_group().values()] == [{}, {}]
    assert [[item.item_id for item in one.results()] for one in run.by_group().values()] == [["a"], ["a"]]


def test_the_same_jobs_resume_and_other_rows_are_refused(world: World) -> None:
    jobs = {1: job(world, "a"), 2: job(world, "b")}
    finished(world, jobs)
    assert world.runner().start(grouped_job(jobs), run_id="grouped").is_finished
    assert len(world.sandbox.paid()) == 2


def test_jobs_of_another_model_do_not_share_a_run(world: World) -> None:
    other = job(world, "b", provider_config=OpenAIProviderConfig(model="gpt-5-nano"))
    with pytest.raises(ValueError, match="the jobs of groups 1 and 2 differ in provider_config"):
        grouped_job({1: job(world, "a"), 2: other})


@pytest.mark.parametrize(("numbers", "sentence"), [([], "at least one job"), ([0, 1], "1 or more, not 0")])
def test_group_numbers_begin_at_one(world: World, numbers: list[int], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        grouped_job({number: job(world, "a") for number in numbers})
