from __future__ import annotations

import json
from typing import Any

import httpx2
import openai
import pytest

from batchor_engine.sandbox import Fault, SandboxError

HOUR = 3600.0
# Only an answer may not be waited for; a connection on a busy machine may.
IMPATIENT = httpx2.Timeout(20, read=0.1)
ORDER: dict[str, Any] = {"endpoint": "/v1/responses", "completion_window": "24h"}


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (408, openai.APIStatusError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
def test_an_http_error_strikes_before_any_work(shop: Any, status: int, error: type[openai.APIStatusError]) -> None:
    shop.server.faults.add(Fault("http_error", on="files.create", status=status, code="boom", message="told so"))
    with pytest.raises(error, match="told so") as caught:
        shop.upload(shop.lines(1))
    assert (caught.value.status_code, caught.value.code) == (status, "boom")
    assert shop.server.stats()["files"] == 0
    assert shop.upload(shop.lines(1))


def test_retry_after_is_sent_as_a_header(shop: Any) -> None:
    shop.server.faults.add(Fault("http_error", on="batches.list", status=429, retry_after=2.5))
    with pytest.raises(openai.RateLimitError) as caught:
        shop.client.batches.list()
    assert caught.value.response.headers["retry-after"] == "2.5"


def test_insufficient_quota_is_a_429_of_its_own_type(shop: Any) -> None:
    shop.server.faults.add(Fault("http_error", on="batches.create", status=429, code="insufficient_quota"))
    with pytest.raises(openai.RateLimitError) as caught:
        shop.submit(shop.lines(1))
    assert (caught.value.code, caught.value.type) == ("insufficient_quota", "insufficient_quota")
    assert shop.server.batches() == []


def test_an_http_error_after_the_work_leaves_a_batch_behind(shop: Any) -> None:
    shop.server.faults.add(Fault("http_error", on="batches.create", status=500, after_work=True))
    with pytest.raises(openai.InternalServerError):
        shop.submit(shop.lines(1), metadata={"intent": "i1"})
    assert [one["metadata"] for one in shop.server.batches()] == [{"intent": "i1"}]


def test_lost_answer_of_create_leaves_a_batch_behind(shop: Any) -> None:
    shop.server.faults.add(Fault("lost_answer"))
    with pytest.raises(openai.APIConnectionError):
        shop.submit(shop.lines(1), metadata={"intent": "i1"})
    assert [one.metadata for one in shop.client.batches.list()] == [{"intent": "i1"}]
    assert shop.server.journal()[-2]["faults"] == ["lost_answer"]


@pytest.mark.parametrize("operation", ["files.create", "files.delete", "batches.cancel"])
def test_lost_answers_of_other_calls_leave_their_work_done(open_shop: Any, operation: str) -> None:
    shop = open_shop(clock="manual")
    file_id = shop.upload(b"{}\n")
    batch = shop.submit(shop.lines(1))
    shop.server.faults.add(Fault("lost_answer", on=operation))
    calls = {
        "files.create": lambda: shop.upload(b"{}\n"),
        "files.delete": lambda: shop.client.files.delete(file_id),
        "batches.cancel": lambda: shop.client.batches.cancel(batch.id),
    }
    with pytest.raises(openai.APIConnectionError):
        calls[operation]()
    files = {"files.create": 3, "files.delete": 1, "batches.cancel": 2}[operation]
    assert shop.server.stats()["files"] == files
    assert shop.server.batches()[0]["status"] == ("cancelling" if operation == "batches.cancel" else "validating")


def test_a_dropped_call_does_no_work(shop: Any) -> None:
    shop.server.faults.add(Fault("drop", on="batches.create"))
    with pytest.raises(openai.APIConnectionError):
        shop.submit(shop.lines(1))
    assert shop.server.batches() == []


def test_a_delay_before_the_work_outlasts_an_impatient_client(shop: Any) -> None:
    shop.server.faults.add(Fault("delay", on="batches.retrieve", seconds=HOUR))
    batch = shop.submit(shop.lines(1))
    with pytest.raises(openai.APITimeoutError):
        shop.client.with_options(timeout=IMPATIENT).batches.retrieve(batch.id)
    shop.until(lambda: shop.server.faults.listing()[0]["fired"])
    assert shop.client.batches.retrieve(batch.id).id == batch.id


def test_an_answer_held_back_after_the_work_is_a_timeout_with_a_batch(shop: Any) -> None:
    shop.server.faults.add(Fault("delay", on="batches.create", seconds=HOUR, after_work=True))
    file_id = shop.upload(shop.lines(1))
    with pytest.raises(openai.APITimeoutError):
        shop.client.with_options(timeout=IMPATIENT).batches.create(input_file_id=file_id, **ORDER)
    shop.until(shop.server.batches)
    assert len(shop.server.batches()) == 1


def test_a_fresh_file_may_not_be_visible_for_some_calls(shop: Any) -> None:
    shop.server.faults.add(Fault("not_visible", times=2), Fault("not_visible", on="files.content"))
    file_id = shop.upload(shop.lines(1))
    for _ in range(2):
        with pytest.raises(openai.NotFoundError, match="No such File object"):
            shop.client.batches.create(input_file_id=file_id, **ORDER)
    batch = shop.client.batches.create(input_file_id=file_id, **ORDER)
    batch = shop.end(batch)
    with pytest.raises(openai.NotFoundError):
        shop.raw(batch.output_file_id)
    assert shop.raw(batch.output_file_id)


def test_not_visible_counts_for_each_file_apart(shop: Any) -> None:
    shop.server.faults.add(Fault("not_visible", on="files.retrieve"))
    for file_id in (shop.upload(b"1"), shop.upload(b"2")):
        with pytest.raises(openai.NotFoundError):
            shop.client.files.retrieve(file_id)
        assert shop.client.files.retrieve(file_id)


@pytest.mark.parametrize("content_length", [True, False])
def test_a_download_breaks_in_the_middle(shop: Any, content_length: bool) -> None:
    data = bytes(range(256)) * 4000
    file_id = shop.upload(data)
    shop.server.faults.add(Fault("break_download", after_bytes=100_000, content_length=content_length))
    got = bytearray()

    def read() -> None:
        with shop.client.files.with_streaming_response.content(file_id) as answer:
            assert ("content-length" in answer.headers) == content_length
            for block in answer.iter_bytes(10_000):
                got.extend(block)

    with pytest.raises((openai.OpenAIError, httpx2.HTTPError)):
        read()
    assert bytes(got) == data[: len(got)]
    assert len(got) <= 100_000
    assert shop.raw(file_id) == data


def test_a_download_without_length_may_end_too_early_without_an_error(shop: Any) -> None:
    file_id = shop.upload(b"0123456789")
    shop.server.faults.add(Fault("break_download", after_bytes=4, content_length=False, clean=True))
    assert shop.raw(file_id) == b"0123"


def test_a_broken_download_can_be_resumed_by_range(shop: Any) -> None:
    file_id = shop.upload(b"0123456789")
    shop.server.faults.add(Fault("break_download", after_bytes=4, content_length=False, clean=True))
    head = shop.raw(file_id)
    rest = shop.client.files.content(file_id, extra_headers={"Range": f"bytes={len(head)}-"}).content
    assert head + rest == b"0123456789"


def test_a_garbage_html_page_comes_with_status_200(shop: Any) -> None:
    shop.server.faults.add(Fault("html", on="batches.retrieve"))
    batch = shop.submit(shop.lines(1))
    found = shop.client.batches.with_raw_response.retrieve(batch.id)
    assert (found.status_code, found.content.startswith(b"<html>")) == (200, True)


def test_a_raw_body_is_sent_as_it_is(shop: Any) -> None:
    shop.server.faults.add(
        Fault("raw_body", on="batches.retrieve", body="{"), Fault("raw_body", on="batches.retrieve", nth=2, body="{}")
    )
    batch = shop.submit(shop.lines(1))
    with pytest.raises(json.JSONDecodeError):
        shop.client.batches.retrieve(batch.id)
    assert shop.client.batches.retrieve(batch.id).id is None


def test_nth_and_times_choose_the_occurrences(shop: Any) -> None:
    shop.server.faults.add(Fault("http_error", on="batches.list", nth=2, times=2))
    seen = []
    for _ in range(5):
        try:
            shop.client.batches.list()
            seen.append(True)
        except openai.InternalServerError:
            seen.append(False)
    assert seen == [True, False, False, True, True]
    assert shop.server.faults.listing()[0]["fired"] == 2


def test_without_times_a_fault_never_stops_until_it_is_cleared(shop: Any) -> None:
    shop.server.faults.add(Fault("http_error", on="*", times=None))
    for _ in range(3):
        with pytest.raises(openai.InternalServerError):
            shop.client.batches.list()
    shop.server.faults.clear()
    assert shop.client.batches.list().data == []


def test_metadata_and_id_choose_the_target(shop: Any) -> None:
    shop.server.faults.add(Fault("http_error", on="batches.create", metadata={"part": "2"}, times=None))
    one = shop.submit(shop.lines(1), metadata={"part": "1"})
    with pytest.raises(openai.InternalServerError):
        shop.submit(shop.lines(1), metadata={"part": "2"})
    two = shop.submit(shop.lines(1))
    shop.server.faults.add(Fault("http_error", on="batches.retrieve", id=two.id))
    assert shop.client.batches.retrieve(one.id)
    with pytest.raises(openai.InternalServerError):
        shop.client.batches.retrieve(two.id)


def test_faults_are_set_and_read_over_http(shop: Any) -> None:
    url = f"{shop.server.root_url}/sandbox/faults"
    answer = httpx2.post(url, json=[{"kind": "http_error", "on": "batches.list", "status": 429}])
    assert answer.json() == [{"kind": "http_error", "on": "batches.list", "status": 429, "fired": 0}]
    with pytest.raises(openai.RateLimitError):
        shop.client.batches.list()
    assert httpx2.get(url).json()[0]["fired"] == 1
    assert httpx2.delete(url).json() == []
    for bad in (
        {"kind": "nonsense"},
        {"kind": "expire", "lines": None},
        {"kind": "drop", "surprise": 1},
        {"on": "line"},
        5,
    ):
        refused = httpx2.post(url, json=bad)
        assert (refused.status_code, "message" in refused.json()["error"]) == (400, True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "nonsense"},
        {"kind": "drop", "on": "batch"},
        {"kind": "refusal", "on": "files.create"},
        {"kind": "expire", "on": "line"},
        {"kind": "drop", "on": "nowhere"},
    ],
)
def test_a_fault_that_makes_no_sense_cannot_be_written(wrong: dict[str, Any]) -> None:
    with pytest.raises(SandboxError):
        Fault(**wrong)


def test_calls_are_counted_and_noted_with_their_outcome(shop: Any) -> None:
    batch = shop.done(shop.lines(2))
    with pytest.raises(openai.NotFoundError):
        shop.client.files.retrieve("file-nope")
    stats = httpx2.get(f"{shop.server.root_url}/sandbox/stats").json()
    assert stats == shop.server.stats()
    assert stats["calls"] == {"files.create": 1, "batches.create": 1, "batches.retrieve": 1, "files.retrieve": 1}
    assert stats["batches"] == [
        {
            "id": batch.id,
            "status": "completed",
            "metadata": None,
            "input_file_id": batch.input_file_id,
            "endpoint": "/v1/responses",
            "lines": 2,
            "paid": 2,
            "dropped": 0,
        }
    ]
    last = httpx2.get(f"{shop.server.root_url}/sandbox/journal").json()[-1]
    assert (last["operation"], last["status"], last["target"]) == ("files.retrieve", 404, "file-nope")


def test_a_line_paid_in_two_batches_is_reported(shop: Any) -> None:
    shop.done(shop.lines(2))
    shop.done(shop.lines(1))
    assert (shop.server.stats()["paid_lines"], shop.server.stats()["paid_twice"]) == (3, ["r1"])


def test_a_batch_can_be_advanced_over_http(open_shop: Any) -> None:
    shop = open_shop(clock="manual")
    shop.submit(shop.lines(1))
    url = f"{shop.server.root_url}/sandbox/advance"
    assert httpx2.post(url, json={"steps": 1}).json()["batches"][0]["status"] == "in_progress"
    assert httpx2.post(url, json={"to": "end"}).json()["batches"][0]["status"] == "completed"


def test_a_delay_does_not_hold_up_other_calls(shop: Any) -> None:
    shop.server.faults.add(Fault("delay", on="batches.list", seconds=HOUR))
    with pytest.raises(openai.APITimeoutError):
        shop.client.with_options(timeout=IMPATIENT).batches.list()
    shop.until(lambda: shop.server.faults.listing()[0]["fired"])
    assert shop.client.files.list().data == []
