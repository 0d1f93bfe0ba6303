"""What an observer is told."""

from __future__ import annotations

import pytest

from batchor_engine import RunEvent, Troubles


def trouble(
    event_type: str, run_id: str = "r", error_class: str = "control_plane_transient", message: str = "We are down."
) -> RunEvent:
    return RunEvent(event_type, run_id, None, {"error_class": error_class, "message": message})


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


def test_what_differs_in_more_than_ids_and_numbers_is_told() -> None:
    told: list[str] = []
    troubles = Troubles(told.append)
    said = [
        "reading batch batch_1a failed (HTTP 503): try again in 5.3s (request req-7)",
        "reading batch batch_2b failed (HTTP 503): try again in 8s (request req-8)",
        "reading batch batch_1a failed (HTTP 403): try again in 5.3s (request req-7)",
        "this process speaks for account a, not for b",
    ]
    for message in said * 2:
        troubles(trouble("batch_poll_retry", message=message))
    assert [one.partition("failed: ")[2] for one in told] == [said[0], said[2], said[3]]


def test_what_could_not_be_told_is_told_the_next_time() -> None:
    told: list[str] = []
    refusals = [OSError("the log is locked")]

    def tell(said: str) -> None:
        if refusals:
            raise refusals.pop()
        told.append(said)

    troubles = Troubles(tell)
    with pytest.raises(OSError, match="locked"):
        troubles(trouble("batch_submit_retry"))
    troubles(trouble("batch_submit_retry"))
    assert told == ["r: a submission failed: We are down."]


def test_what_is_no_trouble_is_not_told_and_one_without_words_by_its_class() -> None:
    told: list[str] = []
    troubles = Troubles(told.append)
    troubles(RunEvent("batch_submitted", "r", None, {"provider_batch_id": "b"}))
    troubles(RunEvent("batch_terminal_failure", "r", None, {"error_class": "batch_terminal_expired"}))
    assert told == ["r: a batch failed: batch_terminal_expired"]
