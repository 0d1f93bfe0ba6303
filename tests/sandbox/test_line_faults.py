from __future__ import annotations

import json
from typing import Any

import pytest

from batchor_engine.sandbox import Fault

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}},
    "required": ["name"],
    "additionalProperties": False,
}


def strike(shop: Any, kind: str, lines: list[Any] | None = None, **fields: Any) -> tuple[Any, bytes]:
    """A batch of four lines of which r2 is struck, and the bytes of its output."""
    shop.server.faults.add(Fault(kind, **{"custom_ids": ("r2",), **fields}))
    batch = shop.done(lines or shop.lines(4))
    return batch, shop.raw(batch.output_file_id)


def parsed(raw: bytes) -> dict[str, Any]:
    return {row["custom_id"]: row for row in map(json.loads, raw.splitlines())}


def paid_and_dropped(shop: Any) -> tuple[int, int]:
    stats = shop.server.stats()
    return stats["paid_lines"], stats["dropped_lines"]


def test_a_missing_line_is_paid_and_dropped(shop: Any) -> None:
    _, raw = strike(shop, "missing_line")
    assert set(parsed(raw)) == {"r1", "r3", "r4"}
    assert paid_and_dropped(shop) == (4, 1)
    assert [one["custom_id"] for one in shop.server.paid() if one["dropped"] == "missing_line"] == ["r2"]


def test_a_duplicated_line_comes_twice(shop: Any) -> None:
    _, raw = strike(shop, "duplicate_line")
    assert sorted(json.loads(one)["custom_id"] for one in raw.splitlines()) == ["r1", "r2", "r2", "r3", "r4"]
    assert paid_and_dropped(shop) == (4, 0)


@pytest.mark.parametrize("kind", ["garbage_line", "null_line", "non_object_line"])
def test_a_strange_line_stands_in_place_of_an_answer(shop: Any, kind: str) -> None:
    _, raw = strike(shop, kind)
    odd = [one for one in raw.split(b"\n")[:-1] if not one.startswith(b'{"id"')]
    expected = {"null_line": b"null", "non_object_line": b'["not", "an", "object"]'}
    assert len(odd) == 1
    assert odd[0] == expected.get(kind, odd[0])
    assert raw.count(b"\n") == 4
    assert paid_and_dropped(shop) == (4, 1)


def test_garbage_is_not_even_utf8(shop: Any) -> None:
    _, raw = strike(shop, "garbage_line")
    with pytest.raises(UnicodeDecodeError):
        raw.decode("utf-8")


@pytest.mark.parametrize("kind", ["garbage_line", "null_line", "non_object_line"])
def test_a_strange_line_may_be_inserted_beside_the_answers(shop: Any, kind: str) -> None:
    _, raw = strike(shop, kind, insert=True)
    assert raw.count(b"\n") == 5
    assert paid_and_dropped(shop) == (4, 0)


def test_a_line_of_an_unknown_id_is_added(shop: Any) -> None:
    _, raw = strike(shop, "unknown_id_line")
    assert len(parsed(raw)) == 5
    assert set(parsed(raw)) > {"r1", "r2", "r3", "r4"}


def test_status_codes_may_be_zero_or_text(shop: Any) -> None:
    _, raw = strike(shop, "status_zero")
    assert parsed(raw)["r2"]["response"] == {"status_code": 0, "request_id": "", "body": None}
    _, raw = strike(shop, "status_string")
    assert parsed(raw)["r2"]["response"]["status_code"] == "200"


def test_a_response_may_be_missing_or_null(shop: Any) -> None:
    _, raw = strike(shop, "missing_response")
    assert "response" not in parsed(raw)["r2"]
    _, raw = strike(shop, "null_response")
    assert parsed(raw)["r2"]["response"] is None
    assert shop.server.stats()["dropped_lines"] == 2


def test_a_body_may_be_a_json_string(shop: Any) -> None:
    _, raw = strike(shop, "body_string")
    assert json.loads(parsed(raw)["r2"]["response"]["body"])["object"] == "response"


@pytest.mark.parametrize(("status", "code"), [
    (400, "invalid_request"), (429, "rate_limit_exceeded"), (500, "server_error"), (429, "insufficient_quota"),
])  # fmt: skip
def test_a_line_error_lies_in_the_error_file_and_is_not_paid(shop: Any, status: int, code: str) -> None:
    batch, raw = strike(shop, "line_error", status=status, code=code)
    assert "r2" not in parsed(raw)
    row = shop.by_id(batch.error_file_id)["r2"]
    assert (row["response"]["status_code"], row["response"]["body"]["error"]["code"]) == (status, code)
    assert (batch.request_counts.failed, paid_and_dropped(shop)) == (1, (3, 0))


def test_a_refusal_is_no_text(shop: Any) -> None:
    _, raw = strike(shop, "refusal")
    content = parsed(raw)["r2"]["response"]["body"]["output"][0]["content"]
    assert [one["type"] for one in content] == ["refusal"]


def test_a_refusal_in_chat_has_null_content(shop: Any) -> None:
    shop.server.faults.add(Fault("refusal"))
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    url = "/v1/chat/completions"
    batch = shop.done([{"custom_id": "a", "method": "POST", "url": url, "body": body}], url)
    message = shop.rows(batch.output_file_id)[0]["response"]["body"]["choices"][0]["message"]
    assert (message["content"], bool(message["refusal"])) == (None, True)


def test_an_incomplete_answer_says_so(shop: Any) -> None:
    _, raw = strike(shop, "incomplete")
    body = parsed(raw)["r2"]["response"]["body"]
    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})


def test_an_empty_answer_is_an_empty_text(shop: Any) -> None:
    _, raw = strike(shop, "empty_answer")
    assert shop.text(parsed(raw)["r2"]) == ""


def test_an_answer_may_be_broken_json_or_break_its_schema(shop: Any) -> None:
    lines = [shop.structured(f"r{at}", SCHEMA) for at in range(1, 5)]
    _, raw = strike(shop, "invalid_json", lines)
    with pytest.raises(json.JSONDecodeError):
        json.loads(shop.text(parsed(raw)["r2"]))
    _, raw = strike(shop, "break_schema", lines)
    assert "name" not in json.loads(shop.text(parsed(raw)["r2"]))


def test_odd_text_is_raw_unicode_inside_one_line(shop: Any) -> None:
    _, raw = strike(shop, "odd_text", [shop.structured("r2", SCHEMA), shop.line("r1")], custom_ids=())
    assert (raw.count(b"\n"), len(raw.decode().splitlines()) > 2) == (2, True)
    rows = {row["custom_id"]: row for row in map(json.loads, raw.split(b"\n")[:-1])}
    for text in (json.loads(shop.text(rows["r2"]))["name"], shop.text(rows["r1"])):
        assert "\u2028" in text
        assert "\u0085" in text
        assert "\U0001f98a" in text


def test_lines_are_chosen_by_number_glob_period_or_prompt(shop: Any) -> None:
    for selector, expected in (
        ({"lines": (1, 4)}, {"r1", "r4"}),
        ({"custom_ids": ("r?",)}, {"r1", "r2", "r3", "r4"}),
        ({"custom_ids": (), "every": 2}, {"r2", "r4"}),
        ({"custom_ids": (), "contains": "about r3."}, {"r3"}),
        ({"custom_ids": ()}, {"r1", "r2", "r3", "r4"}),
    ):
        shop.server.faults.add(Fault("line_error", **{"custom_ids": (), **selector}))
        batch = shop.done(shop.lines(4))
        assert set(shop.by_id(batch.error_file_id)) == expected
        shop.server.faults.clear()


def test_a_line_fault_strikes_one_batch_and_not_its_retry(shop: Any) -> None:
    shop.server.faults.add(Fault("line_error", custom_ids=("r2",)))
    assert shop.done([shop.line("r1")]).request_counts.failed == 0
    assert shop.done(shop.lines(4)).request_counts.failed == 1
    assert shop.done(shop.lines(4)).request_counts.failed == 0


def test_completed_with_only_an_error_file(shop: Any) -> None:
    shop.server.faults.add(Fault("line_error", status=500))
    batch = shop.done(shop.lines(3))
    assert (batch.status, batch.output_file_id, len(shop.rows(batch.error_file_id))) == ("completed", None, 3)
