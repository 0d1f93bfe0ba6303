"""Pause, resume, cancel, retry: what an operator may wish, and what then happens."""

from __future__ import annotations

import pytest

from batchor_engine import (
    BatchItem,
    ChunkPolicy,
    ItemStatus,
    OpenAIConnection,
    OtherAccountError,
    RunControlState,
    RunIngestionSourceRequiredError,
    RunLifecycleStatus,
    RunPausedError,
    RunSubmissionIndeterminateError,
)
from batchor_engine.providers.openai import OpenAIBatchProvider
from batchor_engine.sandbox import SandboxConfig, SandboxServer

from ..stores import is_there
from .conftest import World


def test_a_paused_run_makes_no_call_and_wait_says_so(world: World) -> None:
    run = world.runner().start(world.job(3), run_id="paused")
    run.pause()
    calls = world.stats()["calls_total"]
    run.refresh()
    with pytest.raises(RunPausedError, match="manual"):
        run.wait()
    assert world.stats()["calls_total"] == calls


def test_pause_by_another_process_is_seen_and_resume_goes_on(world: World) -> None:
    run = world.runner().start(world.job(3), run_id="shared")
    assert world.runner().pause_run("shared").control_state is RunControlState.PAUSED
    with pytest.raises(RunPausedError):
        run.wait()
    world.runner().resume_run("shared")
    assert len(run.wait().results()) == 3


def test_collect_brings_in_paid_answers_during_a_pause_and_submits_nothing(world: World) -> None:
    run = world.runner().start(world.job(6, chunk_policy=ChunkPolicy(max_requests=3)), run_id="collecting")
    run.pause()
    world.sandbox.finish()
    submitted = world.stats()["calls"]["batches.create"]
    assert run.collect().completed_items == 6
    assert world.stats()["calls"]["batches.create"] == submitted


def test_cancel_reaches_the_provider_and_keeps_what_was_answered(world: World) -> None:
    runner = world.runner()
    run = runner.start(world.job(6, chunk_policy=ChunkPolicy(max_requests=3)), run_id="cancelled")
    first = world.sandbox.batches()[0]["id"]
    world.sandbox.finish(first)
    run.cancel()
    run.wait()
    results = run.results()
    assert [result.status for result in results] == [ItemStatus.COMPLETED] * 3 + [ItemStatus.FAILED_PERMANENT] * 3
    assert {result.error.error_class for result in results[3:]} == {"run_cancelled"}
    assert {batch["status"] for batch in world.sandbox.batches()} == {"completed", "cancelled"}
    assert run.status is RunLifecycleStatus.COMPLETED_WITH_FAILURES


def test_cancel_with_drain_lets_live_batches_finish(world: World) -> None:
    run = world.runner().start(world.job(3), run_id="draining")
    run.cancel(drain=True)
    assert {result.status for result in run.wait().results()} == {ItemStatus.COMPLETED}
    assert world.stats()["calls"].get("batches.cancel", 0) == 0


def test_a_cancel_after_one_that_drains_stops_what_is_at_the_provider(world: World) -> None:
    world.fault("stuck", times=None)
    run = world.runner().start(world.job(3), run_id="enough")
    run.cancel(drain=True)
    run.refresh()
    assert world.stats()["calls"].get("batches.cancel", 0) == 0
    run.cancel()
    assert world.stats()["calls"]["batches.cancel"] == 1
    run.cancel(drain=True)
    assert set(run.wait().failure_counts()) == {"run_cancelled"}
    assert len(world.happened("run_cancel_requested")) == 2


def test_cancel_is_final_in_any_order(world: World) -> None:
    run = world.runner().start(world.job(3), run_id="final")
    run.pause()
    run.cancel()
    assert run.pause().control_state is RunControlState.CANCEL_REQUESTED
    with pytest.raises(ValueError, match="cancelled"):
        run.resume()
    run.wait()
    with pytest.raises(ValueError, match="cancelled"):
        run.retry_failed()
    assert run.cancel().status is RunLifecycleStatus.COMPLETED_WITH_FAILURES


def test_cancel_without_a_live_batch_needs_no_key_no_source_and_ends_at_once(world: World) -> None:
    def explode(item: BatchItem) -> str:  # type: ignore[type-arg]
        if item.item_id == "row-2":
            raise RuntimeError("no prompt for you")
        return "x"

    world.fault("http_error", on="files.create", status=503, times=None)
    with pytest.raises(RuntimeError, match="row-2"):
        world.runner().start(world.job(5, build_prompt=explode), run_id="half")
    keyless = world.runner(connection=None)
    run = keyless.cancel_run("half")
    assert run.is_finished
    assert [result.error.error_class for result in run.results()] == ["run_cancelled"] * 2


def test_a_run_without_its_source_says_so_instead_of_waiting_for_ever(world: World) -> None:
    def explode(item: BatchItem) -> str:  # type: ignore[type-arg]
        if item.item_id == "row-2":
            raise RuntimeError("later")
        return "x"

    with pytest.raises(RuntimeError, match="later"):
        world.runner().start(world.job(5, build_prompt=explode), run_id="rest")
    run = world.runner().get_run("rest")
    with pytest.raises(RunIngestionSourceRequiredError, match="rest"):
        run.wait()
    assert run.summary().completed_items == 2
    assert len(world.runner().run_and_wait(world.job(5), run_id="rest").results()) == 5


def test_pause_and_cancel_of_a_finished_run_change_nothing(world: World) -> None:
    run = world.runner().run_and_wait(world.job(2))
    before = run.summary()
    assert run.pause() == run.cancel() == run.resume() == before


def test_retry_failed_supersedes_old_results_with_new_sequences(world: World) -> None:
    world.fault("line_error", custom_ids=("row-1:*",), status=400, times=1)
    run = world.runner().run_and_wait(world.job(3), run_id="again")
    assert run.failure_counts() == {"provider_item_error": 1}
    cursor = run.read_terminal_results().next_after_sequence
    summary = run.retry_failed()
    assert summary.status is RunLifecycleStatus.RUNNING
    assert [item.item_id for item in run.read_terminal_results().items] == ["row-0", "row-2"]
    run.wait()
    assert run.failure_counts() == {}
    assert [result.status for result in run.results()] == [ItemStatus.COMPLETED] * 3
    assert run.results()[1].attempt_count == 2
    later = run.read_terminal_results(after_sequence=cursor)
    assert [item.item_id for item in later.items] == ["row-1"]
    assert later.next_after_sequence == cursor + 1


class Unlisting(OpenAIBatchProvider):
    """A provider that cannot say which batches exist."""

    @property
    def lists_batches(self) -> bool:
        return False


def test_an_intent_that_nobody_can_look_up_blocks_only_itself_until_an_operator_decides(world: World) -> None:
    world.fault("lost_answer", on="batches.create")
    runner = world.runner(provider_factory=Unlisting)
    run = runner.start(world.job(6, chunk_policy=ChunkPolicy(max_requests=3)), run_id="unsure")
    with pytest.raises(RunSubmissionIndeterminateError, match="batchor resolve") as caught:
        run.wait()
    assert run.summary().completed_items == 3
    found = world.sandbox.batches()[0]["id"]
    run.resolve_indeterminate_submission_as_created(provider_batch_id=found, intent_id=caught.value.intent_id)
    assert len(run.wait().results()) == 6
    assert world.stats()["paid_lines"] == 6


def test_an_intent_resolved_as_not_created_is_sent_again(world: World) -> None:
    world.fault("drop", on="batches.create")
    run = world.runner(provider_factory=Unlisting).start(world.job(3), run_id="never")
    with pytest.raises(RunSubmissionIndeterminateError):
        run.wait()
    run.resolve_indeterminate_submission_as_not_created()
    assert {result.attempt_count for result in run.wait().results()} == {1}
    assert world.stats()["paid_lines"] == 3


def test_cancel_without_a_key_records_the_wish_and_the_next_cycle_with_one_asks(world: World) -> None:
    world.runner().start(world.job(3), run_id="keyless")
    keyless = world.runner(connection=OpenAIConnection(base_url=world.sandbox.base_url))
    assert keyless.cancel_run("keyless").control_state is RunControlState.CANCEL_REQUESTED
    assert world.stats()["calls"].get("batches.cancel", 0) == 0
    run = world.runner().get_run("keyless").wait()
    assert world.stats()["calls"]["batches.cancel"] == 1
    assert run.is_finished


@pytest.mark.parametrize("connection", [{}, {"api_key": "sk", "base_url": None}])
def test_a_start_that_could_only_fail_stores_nothing(
    world: World, connection: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_BASE_URL", "ftp://127.0.0.1/v1")
    with pytest.raises(ValueError, match=r"OPENAI_API_KEY|http"):
        world.runner(connection=OpenAIConnection(**connection)).start(world.job(3))
    assert not is_there(world.store_url)


def test_waiting_for_batches_of_another_account_is_an_error_not_an_endless_wait(world: World) -> None:
    world.runner().start(world.job(3), run_id="theirs")
    elsewhere = OpenAIConnection(api_key="sk-test", base_url=world.sandbox.base_url, project="other")
    with pytest.raises(OtherAccountError, match="quota_scope"):
        world.runner(connection=elsewhere).get_run("theirs").wait()
    assert len(world.runner().get_run("theirs").wait().results()) == 3


def test_an_ended_batch_of_another_account_is_left_to_a_client_of_that_account(world: World) -> None:
    runner = world.runner()
    runner.start(world.job(3), run_id="theirs")
    while [batch.state for batch in runner.storage.batches()] != ["ended"]:
        runner.poll()
    with SandboxServer(SandboxConfig(clock="polls")) as other:
        elsewhere = world.runner(connection=OpenAIConnection(api_key="sk-test", base_url=other.base_url))
        elsewhere.get_run("theirs").collect()
        with pytest.raises(OtherAccountError, match="quota_scope"):
            elsewhere.get_run("theirs").wait()
    assert [batch.state for batch in runner.storage.batches()] == ["ended"]
    assert {result.status for result in runner.get_run("theirs").wait().results()} == {ItemStatus.COMPLETED}
