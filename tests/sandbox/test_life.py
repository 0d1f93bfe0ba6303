from __future__ import annotations

import threading
from typing import Any

import openai
import pytest

from batchor_engine.sandbox import Phases

SLOW = {"clock": "manual"}


def test_on_the_polls_clock_each_phase_is_seen_by_so_many_polls(open_shop: Any) -> None:
    shop = open_shop(polls=Phases(2, 3, 1, 1))
    batch = shop.submit(shop.lines(8))
    assert batch.status == "validating"
    seen = [shop.client.batches.retrieve(batch.id) for _ in range(8)]
    assert [one.status for one in seen] == [
        *["validating"] * 2, *["in_progress"] * 3, "finalizing", "completed", "completed",
    ]  # fmt: skip
    assert [one.request_counts.completed for one in seen] == [0, 0, 2, 4, 6, 8, 8, 8]


def test_a_list_counts_as_a_poll_of_each_batch_on_its_page(open_shop: Any) -> None:
    shop = open_shop(polls=Phases(1, 1, 0, 0))
    ids = [shop.submit(shop.lines(1)).id for _ in range(3)]
    for expected in ("validating", "in_progress", "completed"):
        page = shop.client.batches.list()
        assert [(one.id, one.status) for one in page.data] == [(one, expected) for one in ids[::-1]]


def test_the_real_clock_takes_a_batch_to_its_end_by_itself(open_shop: Any) -> None:
    shop = open_shop(clock="real", phases=Phases(0.02, 0.05, 0.02, 0.02))
    batch = shop.submit(shop.lines(4))
    shop.until(lambda: shop.server.batches()[0]["status"] == "completed")
    batch = shop.client.batches.retrieve(batch.id)
    assert batch.status == "completed"
    assert batch.created_at <= batch.in_progress_at <= batch.finalizing_at <= batch.completed_at
    assert batch.expires_at == batch.created_at + 86_400
    assert (batch.failed_at, batch.cancelled_at, batch.expired_at, batch.cancelling_at) == (None,) * 4


def test_on_the_manual_clock_only_advance_moves_a_batch(open_shop: Any) -> None:
    shop = open_shop(**SLOW)
    batch = shop.submit(shop.lines(4))
    seen = []
    for _ in range(4):
        seen.append(shop.client.batches.retrieve(batch.id).status)
        shop.server.advance(batch.id)
    assert seen == ["validating", "in_progress", "finalizing", "completed"]


def test_a_completed_batch_shows_counts_usage_model_and_files(shop: Any) -> None:
    batch = shop.done(shop.lines(5, reasoning={"effort": "high"}), metadata={"run": "7"})
    rows = shop.rows(batch.output_file_id)
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (5, 5, 0)
    assert (batch.model, batch.metadata, batch.error_file_id, batch.errors) == ("gpt-5-mini", {"run": "7"}, None, None)
    usages = [row["response"]["body"]["usage"] for row in rows]
    assert batch.usage.input_tokens == sum(one["input_tokens"] for one in usages)
    assert batch.usage.output_tokens == sum(one["output_tokens"] for one in usages)
    assert batch.usage.output_tokens_details.reasoning_tokens > 0
    assert batch.usage.total_tokens == batch.usage.input_tokens + batch.usage.output_tokens
    assert shop.client.files.retrieve(batch.output_file_id).bytes == len(shop.raw(batch.output_file_id))


def test_output_is_shuffled_and_the_same_for_the_same_seed(open_shop: Any) -> None:
    def order(**config: Any) -> list[str]:
        shop = open_shop(**config)
        return [row["custom_id"] for row in shop.rows(shop.done(shop.lines(50)).output_file_id)]

    first, second, other, plain = order(), order(), order(seed=1), order(shuffle=False)
    assert first == second
    assert len({tuple(first), tuple(other), tuple(plain)}) == 3
    assert sorted(first) == sorted(plain)
    assert plain == [f"r{at}" for at in range(1, 51)]


def test_cancel_keeps_the_answers_already_made(open_shop: Any) -> None:
    shop = open_shop(polls=Phases(0, 2, 1, 1))
    batch = shop.submit(shop.lines(9))
    assert shop.client.batches.retrieve(batch.id).request_counts.completed == 3
    batch = shop.client.batches.cancel(batch.id)
    assert (batch.status, batch.cancelling_at is not None) == ("cancelling", True)
    assert shop.client.batches.cancel(batch.id).status == "cancelling"
    assert shop.client.batches.retrieve(batch.id).status == "cancelling"
    batch = shop.client.batches.retrieve(batch.id)
    assert (batch.status, batch.cancelled_at is not None) == ("cancelled", True)
    done, rest = shop.by_id(batch.output_file_id), shop.by_id(batch.error_file_id)
    assert (len(done), len(rest), done.keys() & rest.keys()) == (3, 6, set())
    assert {row["error"]["code"] for row in rest.values()} == {"batch_cancelled"}
    assert {row["response"] for row in rest.values()} == {None}
    assert shop.server.stats()["paid_lines"] == 3


def test_cancel_before_validation_ends_without_files(open_shop: Any) -> None:
    shop = open_shop(**SLOW)
    batch = shop.submit(shop.lines(2))
    shop.client.batches.cancel(batch.id)
    batch = shop.end(batch)
    assert (batch.status, batch.output_file_id, batch.error_file_id) == ("cancelled", None, None)


def test_an_ended_batch_cannot_be_cancelled(shop: Any) -> None:
    batch = shop.done(shop.lines(1))
    with pytest.raises(openai.ConflictError, match="Cannot cancel a batch with status 'completed'"):
        shop.client.batches.cancel(batch.id)


def test_the_completion_window_expires_what_is_not_answered(open_shop: Any) -> None:
    shop = open_shop(window_sec=0, polls=Phases(0, 2, 0, 0))
    batch = shop.submit(shop.lines(9))
    batch = shop.client.batches.retrieve(batch.id)
    assert batch.status == "expired"
    assert len(shop.rows(batch.output_file_id)) + len(shop.rows(batch.error_file_id)) == 9
    assert {row["error"]["code"] for row in shop.rows(batch.error_file_id)} == {"batch_expired"}


def test_batches_are_listed_newest_first_in_pages_of_at_most_100(shop: Any) -> None:
    file_id = shop.upload(shop.lines(1))
    order = {"input_file_id": file_id, "endpoint": "/v1/responses", "completion_window": "24h"}
    ids = [shop.client.batches.create(**order).id for _ in range(7)]
    page = shop.client.batches.list(limit=3)
    assert ([one.id for one in page.data], page.has_more) == (ids[:3:-1], True)
    assert [one.id for one in shop.client.batches.list(limit=3)] == ids[::-1]
    assert shop.client.batches.list(limit=100, after=ids[0]).data == []
    with pytest.raises(openai.BadRequestError, match="limit"):
        shop.client.batches.list(limit=101)
    with pytest.raises(openai.NotFoundError):
        shop.client.batches.retrieve("batch_nope")


def test_tokens_are_held_from_validation_to_the_end(open_shop: Any) -> None:
    shop = open_shop(clock="manual", enqueued_token_limits={"gpt-5-mini": 90_000})
    big = shop.line("big", "x" * 240_000)
    one, two = shop.submit([big]), shop.submit([big])
    other = shop.submit([shop.line("other", "x" * 240_000, model="gpt-5")])
    for batch in (one, two, other):
        shop.server.advance(batch.id)
    failed = shop.client.batches.retrieve(two.id)
    assert failed.status == "failed"
    assert failed.failed_at is not None
    error = failed.errors.data[0]
    assert error.code == "token_limit_exceeded"
    assert error.message == (
        "Enqueued token limit reached for gpt-5-mini in organization org-sandbox. Limit: 90,000 enqueued tokens. "
        "Please try again once some in_progress batches have been completed."
    )
    assert shop.client.batches.retrieve(other.id).status == "in_progress"
    shop.server.finish(one.id)
    again = shop.submit([big])
    shop.server.advance(again.id)
    assert shop.client.batches.retrieve(again.id).status == "in_progress"


def test_the_organization_header_appears_in_the_limit_message(open_shop: Any) -> None:
    shop = open_shop(enqueued_token_limits={"*": 1})
    shop.client = shop.client.with_options(organization="org-acme")
    assert "in organization org-acme." in shop.done(shop.lines(1)).errors.data[0].message


def test_deleting_the_input_does_not_hurt_a_running_batch(open_shop: Any) -> None:
    shop = open_shop(**SLOW)
    batch = shop.submit(shop.lines(3))
    shop.client.files.delete(batch.input_file_id)
    assert len(shop.rows(shop.end(batch).output_file_id)) == 3


def test_output_expires_after_gives_the_output_an_end(shop: Any) -> None:
    expiry = {"anchor": "created_at", "seconds": 7200}
    batch = shop.done(shop.lines(1), output_expires_after=expiry)
    file = shop.client.files.retrieve(batch.output_file_id)
    assert (file.purpose, file.expires_at) == ("batch_output", file.created_at + 7200)


def test_polls_are_answered_while_a_batch_is_worked_on(open_shop: Any) -> None:
    may_answer = threading.Event()

    def slow(request: Any) -> str:
        assert may_answer.wait(60)
        return request.custom_id

    shop = open_shop(work_wait_sec=0.05, responder=slow)
    batch = shop.submit(shop.lines(4))
    status = shop.client.batches.retrieve(batch.id).status
    may_answer.set()
    assert status == "in_progress"
    assert shop.end(batch).status == "completed"
