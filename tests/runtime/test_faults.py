"""What a run does when the provider, the network or an answer misbehaves. Every case: rows in = rows out."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from pydantic import BaseModel

from batchor_engine import (
    BatchItem,
    ChunkPolicy,
    ItemStatus,
    OpenAIEnqueueLimitConfig,
    OpenAIProviderConfig,
    RetryPolicy,
    RunControlState,
    RunPausedError,
)

from .conftest import World

pytestmark = pytest.mark.every_store


class Reading(BaseModel):
    depth: int


def outcome(world: World, count: int = 6, **options: Any) -> tuple[Any, Counter[str]]:
    """Run to the end; the run, and its results counted by class of failure ("" for success)."""
    run = world.runner().run_and_wait(world.job(count, **options))
    results = run.results()
    assert [result.item_id for result in results] == [f"row-{n}" for n in range(count)]
    return run, Counter(result.error.error_class if result.error else "" for result in results)


@pytest.mark.parametrize("kind", ["missing_line", "garbage_line", "null_line", "non_object_line"])
def test_a_row_without_a_readable_line_goes_again_alone(world: World, kind: str) -> None:
    world.fault(kind, lines=(2,))
    run, classes = outcome(world)
    assert classes == {"": 6}
    assert [batch.items for batch in run.batches()] == [6, 1]
    # The row was never answered, so the second sending is its first attempt, under the same custom id.
    assert {result.attempt_count for result in run.results()} == {1}


def test_a_line_for_nobody_changes_nothing(world: World) -> None:
    world.fault("unknown_id_line", lines=(2,))
    run, classes = outcome(world)
    assert classes == {"": 6}
    assert [batch.items for batch in run.batches()] == [6]


def test_a_row_that_never_gets_a_line_fails_at_a_cap(world: World) -> None:
    world.fault("missing_line", custom_ids=("row-2:*",), times=None)
    run, classes = outcome(world)
    assert classes == {"": 5, "batch_output_missing_row": 1}
    assert len(run.batches()) == 10
    assert run.results()[2].attempt_count == 0


@pytest.mark.parametrize(
    ("kind", "error_class"),
    [
        ("status_zero", "provider_item_error"),
        ("null_response", "provider_item_error"),
        ("missing_response", "provider_item_error"),
        ("empty_answer", "empty_response_text"),
        ("incomplete", "incomplete_answer"),
    ],
)
def test_a_curable_failure_is_counted_and_tried_again(world: World, kind: str, error_class: str) -> None:
    world.fault(kind, custom_ids=("row-1:a1", "row-4:*"), times=None)
    run, classes = outcome(world)
    assert classes == {"": 5, error_class: 1}
    by_id = {result.item_id: result for result in run.results()}
    assert by_id["row-1"].attempt_count == 2
    assert by_id["row-4"].attempt_count == 3
    assert by_id["row-4"].status is ItemStatus.FAILED_PERMANENT
    assert not by_id["row-4"].error.retryable


@pytest.mark.parametrize(
    ("kind", "error_class"),
    [("invalid_json", "invalid_json"), ("break_schema", "structured_output_validation_failed")],
)
def test_an_answer_that_is_not_the_model_keeps_its_text(world: World, kind: str, error_class: str) -> None:
    world.fault(kind, custom_ids=("row-3:*",), times=None)
    run, classes = outcome(world, structured_output=Reading)
    assert classes == {"": 5, error_class: 1}
    failed = run.results()[3]
    assert failed.output is None
    assert failed.output_text


def test_a_refusal_is_paid_once_and_not_asked_again(world: World) -> None:
    world.fault("refusal", custom_ids=("row-0:*",), times=None)
    run, classes = outcome(world)
    assert classes == {"": 5, "refusal": 1}
    assert len(run.batches()) == 1
    assert world.stats()["paid_lines"] == 6


def test_a_status_that_no_retry_cures_fails_at_once(world: World) -> None:
    world.fault("line_error", custom_ids=("row-5:*",), status=400, times=None)
    run, classes = outcome(world)
    assert classes == {"": 5, "provider_item_error": 1}
    assert run.results()[5].attempt_count == 1
    assert run.results()[5].error.raw_error is not None
    assert len(run.batches()) == 1


def test_a_status_sent_as_text_is_read_as_a_number(world: World) -> None:
    world.fault("status_string", times=None)
    assert outcome(world)[1] == {"": 6}


def test_a_duplicated_line_counts_once(world: World) -> None:
    world.fault("duplicate_line", lines=(0, 1))
    run, classes = outcome(world)
    assert classes == {"": 6}
    assert len(run.batches()) == 1


def test_a_truncated_last_line_costs_one_row(world: World) -> None:
    world.fault("truncated_last_line")
    run, classes = outcome(world)
    assert classes == {"": 6}
    assert [batch.items for batch in run.batches()] == [6, 1]


@pytest.mark.parametrize("kind", ["expire", "cancel"])
def test_a_batch_that_ends_early_keeps_its_paid_rows(world: World, kind: str) -> None:
    world.fault(kind, at=4)
    run, classes = outcome(world)
    assert classes == {"": 6}
    assert [batch.items for batch in run.batches()] == [6, 2]
    assert world.stats()["paid_twice"] == []
    assert {result.attempt_count for result in run.results()} == {1}


def test_batches_that_always_expire_end_at_a_cap(world: World) -> None:
    world.fault("expire", at=0, times=None)
    run, classes = outcome(world, count=2)
    assert classes == {"batch_terminal_expired": 2}
    assert len(run.batches()) == 10


def test_validation_pins_its_lines_and_resends_the_others(world: World) -> None:
    world.fault("validation_failed", lines=(2, 5))
    run, classes = outcome(world)
    assert classes == {"": 4, "batch_validation_failed": 2}
    failed = [result.item_id for result in run.results() if result.error]
    assert failed == ["row-1", "row-4"]


def test_token_limit_exceeded_is_back_pressure_not_a_failure(world: World) -> None:
    world.fault("token_limit_exceeded", times=2)
    run, classes = outcome(world)
    assert classes == {"": 6}
    assert {result.attempt_count for result in run.results()} == {1}
    assert run.summary().backoff_remaining_sec == 0.0
    assert len(run.batches()) == 3


def test_an_exhausted_quota_pauses_the_run_and_resume_goes_on(world: World) -> None:
    world.fault("http_error", on="batches.create", status=429, code="insufficient_quota")
    runner = world.runner()
    run = runner.start(world.job(3), run_id="poor")
    assert run.control_state is RunControlState.PAUSED
    assert run.control_reason == "openai_insufficient_quota"
    with pytest.raises(RunPausedError, match="insufficient_quota"):
        run.wait()
    assert [event.data["phase"] for event in world.happened("run_auto_paused")] == ["submit"]
    run.resume()
    assert {result.attempt_count for result in run.wait().results()} == {1}


# As OpenAI and Azure have been seen to say it, the former under the code of any wrong request.
FULL_STORE = [
    {"message": "You have exceeded your file storage quota. Organizations are limited to 100 GB of files."},
    {"code": "quotaExceeded", "message": "The quota for files without expiry is reached. The maximum is 500."},
]


@pytest.mark.parametrize("words", FULL_STORE, ids=["openai", "azure"])
def test_a_full_file_store_pauses_the_run_and_resume_goes_on(world: World, words: dict[str, str]) -> None:
    world.fault("http_error", on="files.create", status=400, **words)
    run = world.runner().start(world.job(3), run_id="full")
    assert (run.control_state, run.control_reason) == (RunControlState.PAUSED, "file_storage_full")
    assert run.summary().status_counts == {ItemStatus.PENDING: 3}
    with pytest.raises(RunPausedError, match="file_storage_full"):
        run.wait()
    (told,) = world.happened("batch_submit_retry")
    assert words["message"] in str(told.data["message"])
    run.resume()
    assert {result.attempt_count for result in run.wait().results()} == {1}


@pytest.mark.parametrize(
    ("status", "code"), [(400, None), (400, "invalid_file"), (413, "file_too_large"), (422, "unprocessable")]
)
def test_a_file_that_is_refused_for_itself_fails_its_rows_at_once(world: World, status: int, code: str | None) -> None:
    world.fault("http_error", on="files.create", status=status, code=code, times=None)
    _, classes = outcome(world)
    assert classes == {"batch_error": 6}


def test_a_batch_is_active_from_the_providers_word_on(world: World) -> None:
    world.fault("drop", on="batches.create")
    run = world.runner().start(world.job(3), run_id="r")
    assert [batch.state for batch in run.batches()] == ["uploaded"]
    assert run.summary().active_batches == 0
    while run.batches()[0].state == "uploaded":
        world.clock.sleep(60)
        run.refresh()
    assert run.summary().active_batches == 1
    assert run.wait().summary().active_batches == 0


@pytest.mark.parametrize("status", [429, 409])
def test_a_refused_create_waits_and_tries_again(world: World, status: int) -> None:
    world.fault("http_error", on="batches.create", status=status, retry_after=20)
    start = world.clock.now()
    run, classes = outcome(world)
    assert classes == {"": 6}
    assert world.stats()["paid_lines"] == 6
    if status == 429:
        assert (world.clock.now() - start).total_seconds() >= 20
    assert len(world.happened("batch_submit_retry")) == 1
    assert [batch.state for batch in run.batches()] == ["rejected", "collected"]


def test_a_refused_batch_fails_its_rows_at_once(world: World) -> None:
    world.fault("http_error", on="batches.create", status=400, times=None)
    _, classes = outcome(world)
    assert classes == {"batch_error": 6}
    assert world.stats()["files"] == 0


@pytest.mark.parametrize("kind", ["lost_answer", "drop"])
def test_a_lost_answer_to_create_never_pays_twice(world: World, kind: str) -> None:
    world.fault(kind, on="batches.create")
    run, classes = outcome(world)
    assert classes == {"": 6}
    stats = world.stats()
    assert stats["paid_lines"] == 6
    assert len(stats["batches"]) == 1
    assert [batch.state for batch in run.batches()] == ["collected"]


@pytest.mark.parametrize("status", [408, 500, 503])
def test_an_ambiguous_create_that_did_nothing_is_repeated_after_looking(world: World, status: int) -> None:
    world.fault("http_error", on="batches.create", status=status)
    _, classes = outcome(world)
    assert classes == {"": 6}
    assert len(world.stats()["batches"]) == 1
    assert world.stats()["calls"]["batches.list"] >= 1


@pytest.mark.parametrize("on", ["files.create", "batches.retrieve", "batches.list", "files.content"])
@pytest.mark.parametrize("kind", ["http_error", "drop", "html"])
def test_trouble_with_any_call_is_waited_out(world: World, on: str, kind: str) -> None:
    options: dict[str, Any] = {"status": 500} if kind == "http_error" else {}
    world.fault(kind, on=on, times=2, **options)
    run, classes = outcome(world, chunk_policy=ChunkPolicy(max_requests=3))
    assert classes == {"": 6}
    assert world.stats()["paid_twice"] == []
    assert {result.attempt_count for result in run.results()} == {1}


def test_a_file_that_is_not_yet_visible_is_waited_for(world: World) -> None:
    world.fault("not_visible", times=3)
    _, classes = outcome(world)
    assert classes == {"": 6}
    assert world.stats()["calls"]["files.create"] == 1


def test_a_broken_download_is_resumed_or_repeated(world: World) -> None:
    world.fault("break_download", after_bytes=100, times=1)
    assert outcome(world)[1] == {"": 6}


@pytest.mark.parametrize("kind", ["null_file_id", "empty_file_id"])
def test_completed_without_a_file_is_asked_again_before_rows_are_resent(world: World, kind: str) -> None:
    world.fault(kind, times=1)
    run, classes = outcome(world)
    assert classes == {"": 6}
    assert world.stats()["calls"]["batches.retrieve"] >= 2
    assert len(run.results()) == 6


def test_output_that_is_gone_fails_its_rows_and_is_not_paid_again(world: World) -> None:
    world.fault("output_gone")
    run, classes = outcome(world)
    assert classes == {"batch_output_lost": 6}
    assert [batch.state for batch in run.batches()] == ["lost"]
    assert world.stats()["paid_lines"] == 6


def test_an_unknown_status_means_still_running(world: World) -> None:
    world.fault("odd_status", times=1)
    assert outcome(world)[1] == {"": 6}


def test_an_oversize_row_fails_alone_and_is_never_sent(world: World) -> None:
    items = [*world.job(3).items]
    items.insert(1, BatchItem("huge", {"n": "x" * 5000}))
    run = world.runner().run_and_wait(world.job(items, chunk_policy=ChunkPolicy(max_file_bytes=2000)))
    by_id = {result.item_id: result for result in run.results()}
    assert by_id["huge"].error.error_class == "request_exceeds_file_limit"
    assert [run.results()[n].item_id for n in range(4)] == ["row-0", "huge", "row-1", "row-2"]
    assert world.stats()["paid_lines"] == 3


def test_back_off_grows_while_nothing_gets_through(world: World) -> None:
    world.fault("http_error", on="files.create", status=503, times=5)
    policy = RetryPolicy(base_backoff_sec=10, max_backoff_sec=60)
    start = world.clock.now()
    outcome(world, retry_policy=policy)
    assert (world.clock.now() - start).total_seconds() >= 10 + 20 + 40 + 60 + 60


@pytest.mark.parametrize("kind", ["token_limit_exceeded", "batch_failed"])
def test_back_off_grows_while_batches_are_taken_and_fail(world: World, kind: str) -> None:
    """A creation that succeeds is no progress when what was created before has failed."""
    world.fault(kind, **({"code": "server_error"} if kind == "batch_failed" else {}), times=6)
    # A call that fails in between neither restarts the count.
    world.fault("http_error", on="batches.create", status=429, nth=4)
    run, classes = outcome(world, retry_policy=RetryPolicy(base_backoff_sec=10, max_backoff_sec=600))
    assert classes == {"": 6}
    claimed = [batch.created_at for batch in world.runner().storage.batches()]
    gaps = [later - earlier for earlier, later in pairwise(claimed)]
    for gap, delay in zip(gaps, [10, 20, 40, 80, 160, 320, 600], strict=True):
        assert delay <= gap < delay * 1.5
    assert world.runner().storage.run(run.run_id).backoff.consecutive == 0


def test_back_off_of_calls_restarts_once_a_batch_is_created(world: World) -> None:
    world.fault("http_error", on="batches.create", status=409, times=3)
    run = world.runner().start(world.job(3), run_id="r")
    while not run.summary().active_batches:
        world.clock.sleep(10)
        run.refresh()
    stored = world.runner().storage.run("r")
    assert (stored.backoff.consecutive, stored.backoff.total) == (0, 3)


def test_a_file_that_is_not_yet_visible_is_waited_for_after_batches_that_failed(world: World) -> None:
    world.fault("batch_failed", code="server_error", times=7)
    world.fault("http_error", on="batches.create", status=404, nth=8)
    _, classes = outcome(world)
    assert classes == {"": 6}
    assert world.stats()["calls"]["files.create"] == 8
    assert world.stats()["calls"]["batches.create"] == 9


def test_budget_sends_no_more_than_fits_and_all_in_the_end(world: World) -> None:
    limits = OpenAIEnqueueLimitConfig(enqueued_token_limit=100, target_ratio=1.0, max_batch_enqueued_tokens=60)
    config = OpenAIProviderConfig(model="gpt-5-mini", enqueue_limits=limits)
    run, classes = outcome(world, count=8, provider_config=config)
    assert classes == {"": 8}
    assert len(run.batches()) > 2
    assert world.runner().storage.scope(f"{_account(world)}|gpt-5-mini").reserved == 0


def _account(world: World) -> str:
    return world.runner().storage.batches()[0].account
