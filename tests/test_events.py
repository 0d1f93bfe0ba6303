"""What an observer is told."""

from __future__ import annotations

from batchor_engine import RunEvent, Troubles


def trouble(event_type: str, run_id: str = "r", error_class: str = "control_plane_transient") -> RunEvent:
    return RunEvent(event_type, run_id, None, {"error_class": error_class, "message": "We are down."})


def test_a_provider_that_is_down_for_every_call_is_told_once_for_each_kind_of_call() -> None:
    told: list[str] = []
    troubles = Troubles(told.append)
    for _ in range(5):
        troubles(trouble("batch_poll_retry"))
        troubles(trouble("batch_submit_retry"))
    assert told == ["r: a look at the provider failed: We are down.", "r: a submission failed: We are down."]


def test_another_class_and_another_run_are_told_apart() -> None:
    told: list[str] = []
    troubles = Troubles(told.append)
    troubles(trouble("batch_submit_retry"))
    troubles(trouble("batch_submit_retry", error_class="file_storage_full"))
    troubles(trouble("batch_submit_retry", run_id="other"))
    assert len(told) == 3


def test_what_is_no_trouble_is_not_told_and_one_without_words_by_its_class() -> None:
    told: list[str] = []
    troubles = Troubles(told.append)
    troubles(RunEvent("batch_submitted", "r", None, {"provider_batch_id": "b"}))
    troubles(RunEvent("batch_terminal_failure", "r", None, {"error_class": "batch_terminal_expired"}))
    assert told == ["r: a batch failed: batch_terminal_expired"]
