from __future__ import annotations

from typing import Any

import pytest

from batchor_engine.core.outcomes import BatchFailure
from batchor_engine.providers.failures import batch_failure


def errors(*entries: Any) -> dict[str, Any]:
    return {"object": "list", "data": list(entries)}


FULL = "Enqueued token limit reached for gpt-5 in organization org-1. Limit: 90,000 enqueued tokens. Please try again."


@pytest.mark.parametrize(
    ("words", "limit"),
    [
        ("Limit: 90,000 enqueued tokens.", 90_000),
        ("Limit: 2M enqueued tokens.", 2_000_000),
        ("limit 1.5 million tokens", 1_500_000),
        ("Limit: 250k.", 250_000),
        ("Limit: 90000", 90_000),
        ("Limit: 25x of before", None),
        ("Limit: 90.000 tokens", None),
        ("Please try again later.", None),
    ],
)
def test_a_limit_is_read_with_its_unit_or_not_at_all(words: str, limit: int | None) -> None:
    found = batch_failure("failed", errors({"code": "token_limit_exceeded", "message": words, "line": None}))
    assert found.enqueued_token_limit == limit


def test_a_full_queue_is_back_pressure_and_names_its_limit() -> None:
    found = batch_failure("failed", errors({"code": "token_limit_exceeded", "message": FULL, "line": None}))
    assert found == BatchFailure("enqueue_token_limit", FULL, curable=True, enqueued_token_limit=90_000)


def test_an_account_without_money_is_no_fault_of_the_rows() -> None:
    found = batch_failure("failed", errors({"code": "insufficient_quota", "message": "You exceeded your quota"}))
    assert (found.error_class, found.curable) == ("openai_insufficient_quota", True)


def test_a_rejected_file_pins_its_lines() -> None:
    found = batch_failure(
        "failed",
        errors(
            {"code": "invalid_json_line", "message": "not JSON", "line": 3},
            {"code": "missing_required_parameter", "message": "no model", "line": 7, "param": "model"},
        ),
    )
    assert found == BatchFailure(
        "batch_validation_failed", "not JSON; no model", curable=False, lines=((3, "not JSON"), (7, "no model"))
    )


@pytest.mark.parametrize("odd", [None, {}, [], "words", {"data": None}, {"data": [None, 3]}, [{"line": True}]])
@pytest.mark.parametrize("status", ["failed", "expired", "cancelled"])
def test_a_batch_that_gives_no_reason_failed_by_its_status(status: str, odd: Any) -> None:
    found = batch_failure(status, odd)
    assert found == BatchFailure(f"batch_terminal_{status}", f"the batch ended as {status}")


def test_the_providers_own_trouble_is_curable() -> None:
    found = batch_failure("failed", errors({"code": "server_error", "message": "try later"}))
    assert found == BatchFailure("batch_terminal_failed", "try later")


def test_an_expired_batch_with_words_is_still_expired() -> None:
    assert batch_failure("expired", errors({"code": "batch_expired", "message": "24h"})).error_class == (
        "batch_terminal_expired"
    )


def test_no_key_is_told() -> None:
    assert "abcdefgh" not in repr(batch_failure("failed", errors({"code": "x", "message": "sk-abcdefgh", "line": 1})))
