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
    OpenAIConnection,
    OpenAIEnqueueLimitConfig,
    OpenAIProviderConfig,
    RetryPolicy,
    RunControlState,
    RunPausedError,
)
from batchor_engine.core.polling import LAST_WORDS
from batchor_engine.core.types import BatchRemoteRecord
from batchor_engine.errors import ArtifactMissingError, ProviderError, ProviderErrorKind
from batchor_engine.ports.providers import RemoteBatchPage
from batchor_engine.providers.openai import OpenAIBatchProvider
from batchor_engine.sandbox import SandboxConfig
from batchor_engine.testing import CrashError, CrashPoints

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
    # Not a missing line: the row's later batches would then have no file at all.
    world.fault("garbage_line", custom_ids=("row-2:*",), times=None)
    run, classes = outcome(world)
    assert classes == {"": 5, "batch_output_missing_row": 1}
    assert len(run.batches()) == 3
    assert run.results()[2].attempt_count == 0


@pytest.mark.parametrize(("allowed", "sent"), [(1, 3), (5, 5), (50, 10)])
def test_a_row_without_a_readable_line_is_paid_as_often_as_its_policy_allows_but_three_to_ten_times(
    world: World, allowed: int, sent: int
) -> None:
    world.fault("garbage_line", times=None)
    job = world.job(1, retry_policy=RetryPolicy(max_attempts=allowed, base_backoff_sec=1.0, max_backoff_sec=8.0))
    assert world.runner().run_and_wait(job).failure_counts() == {"batch_output_missing_row": 1}
    assert world.stats()["paid_lines"] == sent


@pytest.mark.parametrize(("early", "missing", "answered"), [(2, 1, True), (9, 2, True), (2, 3, False)])
def test_batches_that_ended_early_leave_a_row_as_many_missing_lines_as_before(
    world: World, early: int, missing: int, answered: bool
) -> None:
    world.fault("expire", at=0, times=early)
    world.fault("garbage_line", nth=early + 1, times=missing)
    run = world.runner().run_and_wait(world.job(1))
    assert run.failure_counts() == ({} if answered else {"batch_output_missing_row": 1})
    assert world.stats()["paid_lines"] == missing + answered


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


@pytest.mark.parametrize("left_behind", [False, True], ids=["fresh", "left by a crash"])
def test_a_url_without_its_path_ends_the_attempt_and_the_right_one_goes_on(world: World, left_behind: bool) -> None:
    wrong = OpenAIConnection(api_key="sk-test", base_url=world.sandbox.base_url.removesuffix("/v1"))
    if left_behind:
        crashed = world.runner()
        CrashPoints({"submit.intended": 1}).install(crashed)
        with pytest.raises(CrashError):
            crashed.start(world.job(4), run_id="r")
    asked = world.clock.now()
    with pytest.raises(ProviderError, match=rf"HTTP 404.* no such API at {wrong.base_url}: check base_url") as caught:
        world.runner(connection=wrong).start(world.job(4), run_id="r").wait()
    assert caught.value.kind is ProviderErrorKind.NOT_FOUND
    assert world.clock.now() == asked
    run = world.runner().get_run("r")
    # What a crash left is looked for in a listing first, which fails in the same way, and stays as it was.
    waits = ItemStatus.QUEUED_LOCAL if left_behind else ItemStatus.PENDING
    assert (run.control_state, run.summary().status_counts) == (RunControlState.RUNNING, {waits: 4})
    assert {result.attempt_count for result in run.wait().results()} == {1}
    assert world.stats()["paid_lines"] == 4


def test_a_file_that_is_not_yet_visible_is_waited_for(world: World) -> None:
    world.fault("not_visible", times=3)
    _, classes = outcome(world)
    assert classes == {"": 6}
    assert world.stats()["calls"]["files.create"] == 1


NOT_PROCESSED = "The input file file-1 is not in a processed state yet (status: pending). Please try again later."


def test_a_file_that_is_not_processed_yet_is_waited_for(world: World) -> None:
    world.fault("http_error", on="batches.create", status=400, message=NOT_PROCESSED, times=12)
    _, classes = outcome(world)
    assert classes == {"": 6}
    assert world.stats()["calls"]["files.create"] == 1
    assert world.stats()["calls"]["batches.create"] == 13


def test_a_file_that_is_never_processed_pauses_the_run(world: World) -> None:
    world.fault("http_error", on="batches.create", status=400, message=NOT_PROCESSED, times=None)
    run = world.runner().start(world.job(3), run_id="pending")
    with pytest.raises(RunPausedError):
        run.wait()
    assert world.stats()["calls"]["batches.create"] == 100
    world.sandbox.faults.clear()
    run.resume()
    assert len(run.wait().results()) == 3
    assert world.stats()["calls"]["files.create"] == 1


def test_a_broken_download_is_resumed_or_repeated(world: World) -> None:
    world.fault("break_download", after_bytes=100, times=1)
    assert outcome(world)[1] == {"": 6}


# Looking once a second for an hour would only take long.
SLOW = OpenAIProviderConfig(model="gpt-5-mini", poll_interval_sec=60)


@pytest.mark.parametrize("kind", ["null_file_id", "empty_file_id"])
def test_completed_without_a_file_is_asked_again_and_what_it_counts_as_answered_is_not_paid_again(
    world: World, kind: str
) -> None:
    world.fault(kind, times=1)
    run, classes = outcome(world, provider_config=SLOW)
    assert classes == {"batch_output_lost": 6}
    assert world.stats()["calls"]["batches.retrieve"] >= 2
    assert world.stats()["paid_lines"] == 6
    run.retry_failed()
    assert {result.status for result in run.wait().results()} == {ItemStatus.COMPLETED}


def test_answers_that_are_counted_in_a_file_without_a_name_are_not_paid_again(world: World) -> None:
    world.fault("null_file_id", times=1)
    world.fault("line_error", lines=(2,), status=400)
    _, classes = outcome(world, provider_config=SLOW)
    assert classes == {"batch_output_lost": 5, "provider_item_error": 1}
    assert world.stats()["calls"]["batches.create"] == 1


def test_a_batch_that_completed_without_files_or_answers_is_sent_again(world: World) -> None:
    world.fault("null_file_id", times=1)
    world.fault("counts_lie", times=1)
    run, classes = outcome(world)
    assert classes == {"": 6}
    assert [batch.items for batch in run.batches()] == [6, 6]


class Late(OpenAIBatchProvider):
    """A provider that names a batch's files only when it is asked for the second time after the end."""

    def __init__(self, config: OpenAIProviderConfig, seen: set[str]) -> None:
        super().__init__(config)
        self._seen = seen

    def get_batch(self, batch_id: str) -> BatchRemoteRecord:
        return self._late(super().get_batch(batch_id))

    def list_batches(self, *, after: str | None = None, limit: int = 100) -> RemoteBatchPage:
        page = super().list_batches(after=after, limit=limit)
        return RemoteBatchPage([self._late(record) for record in page.records], page.next_after)

    def _late(self, record: BatchRemoteRecord) -> BatchRemoteRecord:
        if record["status"] not in LAST_WORDS or record["id"] in self._seen:
            return record
        self._seen.add(record["id"])
        return {**record, "output_file_id": None, "error_file_id": None}


@pytest.mark.parametrize("end", ["expire", "cancel"])
def test_files_that_get_their_names_after_an_early_end_are_read_and_their_rows_not_paid_again(
    world: World, end: str
) -> None:
    world.fault(end, at=4)
    seen: set[str] = set()
    runner = world.runner(provider_factory=lambda config: Late(config, seen))
    run = runner.run_and_wait(world.job(6))
    assert {result.status for result in run.results()} == {ItemStatus.COMPLETED}
    assert world.stats()["paid_twice"] == []
    assert world.stats()["paid_lines"] == 6


def test_files_that_get_their_names_late_are_deleted_at_the_provider_with_the_others(world: World) -> None:
    world.fault("line_error", lines=(2,), status=400)
    seen: set[str] = set()
    runner = world.runner(provider_factory=lambda config: Late(config, seen), remote_cleanup="all")
    runner.run_and_wait(world.job(6))
    assert seen
    assert world.stats()["files"] == 0


def ended(world: World, count: int = 6) -> tuple[Any, Any]:
    """A run whose only batch has ended and is not collected, and that batch."""
    runner = world.runner()
    run = runner.start(world.job(count, provider_config=SLOW), run_id="ended")
    while [batch.state for batch in runner.storage.batches()] != ["ended"]:
        runner.poll()
    return run, runner.storage.batches()[0]


def test_output_that_is_gone_fails_its_rows_and_is_not_paid_again(world: World) -> None:
    world.fault("output_gone")
    run, classes = outcome(world, provider_config=SLOW)
    assert classes == {"batch_output_lost": 6}
    assert [batch.state for batch in run.batches()] == ["lost"]
    assert world.stats()["paid_lines"] == 6


def test_only_the_rows_of_the_file_that_is_gone_are_lost(world: World) -> None:
    world.fault("line_error", lines=(2,), status=400)
    run, batch = ended(world)
    world.sandbox.desk.state.drop_file(batch.error_file_id)
    results = run.wait().results()
    classes = [result.error.error_class if result.error else "" for result in results]
    assert classes == ["", "batch_output_lost", "", "", "", ""]
    assert [batch.state for batch in run.batches()] == ["collected"]
    assert world.stats()["calls"]["batches.create"] == 1


def test_a_file_that_is_missing_for_a_while_is_waited_for(world: World) -> None:
    run, _ = ended(world)
    world.fault("http_error", on="files.retrieve", status=404, times=11)
    assert {result.status for result in run.wait().results()} == {ItemStatus.COMPLETED}


@pytest.mark.parametrize("trouble", [0, 20])
def test_a_file_is_missed_for_an_hour_however_long_ago_its_batch_ended_and_whatever_came_before(
    world: World, trouble: int
) -> None:
    run, batch = ended(world)
    world.clock.advance(24 * 3600.0)
    world.fault("http_error", on="files.retrieve", status=503, times=trouble)
    while trouble and world.stats()["calls"].get("files.retrieve", 0) < trouble:
        run.refresh()
        world.clock.advance(10.0)
    world.sandbox.desk.state.drop_file(batch.output_file_id)
    start = world.clock.now()
    assert set(run.wait().failure_counts()) == {"batch_output_lost"}
    assert (world.clock.now() - start).total_seconds() > 3500


@pytest.mark.parametrize("sandbox_config", [SandboxConfig(clock="polls", scoped=True)])
def test_a_key_that_cannot_see_an_ended_batch_says_so_and_gives_nothing_up(world: World) -> None:
    run, batch = ended(world)
    scope = OpenAIConnection(
        api_key="sk-test", base_url=world.sandbox.base_url, project="p2", quota_scope=batch.account
    )
    elsewhere = world.runner(connection=scope).get_run("ended")
    for _ in range(15):
        with pytest.raises(ProviderError, match="key of the project") as caught:
            elsewhere.refresh()
        assert caught.value.kind is ProviderErrorKind.AUTH
        world.clock.advance(3600.0)
    assert {result.status for result in run.wait().results()} == {ItemStatus.COMPLETED}


def test_a_batch_that_cannot_be_collected_keeps_no_other_one_out(world: World) -> None:
    runner = world.runner()
    run = runner.start(world.job(6, chunk_policy=ChunkPolicy(max_requests=2)), run_id="r")
    sidecar = world.files("requests_*.items")[0]
    kept = sidecar.read_bytes()
    sidecar.unlink()
    while {batch.state for batch in runner.storage.batches()} != {"ended"}:
        runner.poll()
    with pytest.raises(ArtifactMissingError, match=sidecar.name):
        run.refresh()
    assert run.summary().completed_items == 4
    sidecar.write_bytes(kept)
    assert {result.status for result in run.wait().results()} == {ItemStatus.COMPLETED}


def test_a_collection_that_another_worker_took_over_is_no_error(world: World) -> None:
    runner, other = world.runner(), world.runner()
    run = runner.start(world.job(3), run_id="r")
    taken: list[str] = []

    def reached(point: str) -> None:
        if point == "collect.downloaded" and not taken:
            taken.append(point)
            world.clock.advance(8 * 3600.0)
            other.get_run("r").collect()

    runner.host.reached = reached
    assert {result.status for result in run.wait().results()} == {ItemStatus.COMPLETED}
    assert taken


@pytest.mark.parametrize("sandbox_config", [SandboxConfig(clock="polls", max_validation_errors=1)])
def test_rows_are_not_to_blame_for_the_bad_ones_that_validation_names_one_at_a_time(world: World) -> None:
    for nth in range(1, 13):
        world.fault("validation_failed", lines=(1,), nth=nth)
    _, classes = outcome(world, count=16)
    assert classes == {"": 4, "batch_validation_failed": 12}


def test_a_validation_that_names_a_line_which_was_not_sent_ends_at_a_cap(world: World) -> None:
    world.fault("validation_failed", lines=(99,), times=None)
    run, classes = outcome(world)
    assert classes == {"batch_terminal_failed": 6}
    assert len(run.batches()) == 10


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
