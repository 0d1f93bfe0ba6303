from __future__ import annotations

import json
from typing import Any

import openai
import pytest

GOOD: dict[str, Any] = {"endpoint": "/v1/responses", "completion_window": "24h"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"endpoint": "/v1/completely/else"}, "Supported values"),
        ({"completion_window": "48h"}, "24h"),
        ({"metadata": {str(at): "x" for at in range(17)}}, "at most 16 properties"),
        ({"metadata": {"k" * 65: "x"}}, "at most 64 characters"),
        ({"metadata": {"k": "x" * 513}}, "at most 512 characters"),
        ({"metadata": {"k": 5}}, "expected a string"),
        ({"metadata": {"k": None}}, "expected a string"),
        ({"extra_body": {"surprise": 1}}, "Unknown parameter: 'surprise'"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 59}}, "seconds"),
        ({"input_file_id": None}, "Missing required parameter: 'input_file_id'"),
    ],
)
def test_a_bad_creation_is_refused_at_once(shop: Any, changes: dict[str, Any], words: str) -> None:
    order = {"input_file_id": shop.upload(shop.lines(1)), **GOOD, **changes}
    with pytest.raises(openai.BadRequestError, match=words):
        shop.client.batches.create(**order)
    assert shop.server.batches() == []


def test_metadata_at_its_limits_is_accepted(shop: Any) -> None:
    metadata = {f"{at:064d}": "é" * 512 for at in range(16)}
    assert shop.submit(shop.lines(1), metadata=metadata).metadata == metadata


def test_a_batch_needs_a_file_that_exists_and_is_meant_for_batches(shop: Any) -> None:
    with pytest.raises(openai.NotFoundError, match="No such File object: file-nope"):
        shop.client.batches.create(input_file_id="file-nope", **GOOD)
    other = shop.client.files.create(file=("a.jsonl", b"{}"), purpose="user_data").id
    with pytest.raises(openai.BadRequestError, match="purpose"):
        shop.client.batches.create(input_file_id=other, **GOOD)


def edit(line: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {key: value for key, value in (line | changes).items() if value is not ...}


BAD_LINES: list[tuple[str, dict[str, Any], str]] = [
    ("duplicate", {"custom_id": "r1"}, "duplicate_custom_id"),
    ("empty id", {"custom_id": ""}, "invalid_custom_id"),
    ("number as id", {"custom_id": 7}, "invalid_custom_id"),
    ("no id", {"custom_id": ...}, "missing_required_parameter"),
    ("GET", {"method": "GET"}, "invalid_method"),
    ("other endpoint", {"url": "/v1/chat/completions"}, "mismatched_url"),
    ("no endpoint", {"url": "/v1/nonsense"}, "invalid_url"),
    ("other model", {"body": {"model": "other", "input": "x"}}, "mismatched_model"),
    ("no model", {"body": {"input": "x"}}, "missing_required_parameter"),
    ("no body", {"body": ...}, "missing_required_parameter"),
    ("list as body", {"body": []}, "invalid_request"),
    ("extra key", {"priority": 1}, "unknown_parameter"),
]


@pytest.mark.parametrize(("changes", "code"), [one[1:] for one in BAD_LINES], ids=[one[0] for one in BAD_LINES])
def test_a_bad_line_fails_the_batch_later_and_names_its_number(shop: Any, changes: dict[str, Any], code: str) -> None:
    lines = shop.lines(3)
    lines[1] = edit(lines[1], **changes)
    batch = shop.submit(lines)
    assert (batch.status, batch.errors) == ("validating", None)
    batch = shop.end(batch)
    assert (batch.status, batch.errors.object) == ("failed", "list")
    assert [(one.code, one.line) for one in batch.errors.data] == [(code, 2)]
    assert (batch.output_file_id, batch.error_file_id) == (None, None)
    assert shop.server.stats()["paid_lines"] == 0


@pytest.mark.parametrize(
    ("raw", "code", "line"),
    [
        (b"", "empty_file", None),
        (b"\n\n", "empty_file", None),
        (b"not json\n", "invalid_json_line", 1),
        (b"[1]\n", "invalid_json_line", 1),
        (b'{"custom_id": NaN}\n', "invalid_json_line", 1),
        (b'\xff\xfe{"a": 1}\n', "invalid_json_line", 1),
    ],
)
def test_a_file_that_is_not_jsonl_fails_validation(shop: Any, raw: bytes, code: str, line: int | None) -> None:
    batch = shop.done(raw)
    assert batch.status == "failed"
    assert (batch.errors.data[0].code, batch.errors.data[0].line) == (code, line)


def test_a_blank_line_between_rows_fails_but_not_at_the_end(shop: Any) -> None:
    one, two = (json.dumps(line).encode() for line in shop.lines(2))
    assert shop.done(one + b"\n" + two + b"\n\n\n").request_counts.total == 2
    assert [one.line for one in shop.done(one + b"\n\n" + two).errors.data] == [2]


def test_u2028_in_a_line_is_content_and_no_line_break(shop: Any) -> None:
    line = json.dumps(shop.line("r1", "a\u2028b\u0085c"), ensure_ascii=False).encode()
    assert shop.done(line).request_counts.completed == 1


def test_more_lines_than_allowed_are_too_many_tasks(open_shop: Any) -> None:
    shop = open_shop(max_lines=3)
    assert shop.done(shop.lines(3)).status == "completed"
    assert shop.done(shop.lines(4)).errors.data[0].code == "too_many_tasks"


def test_embedding_inputs_are_counted_over_the_whole_file(open_shop: Any) -> None:
    shop = open_shop(max_embedding_inputs=3)
    url = "/v1/embeddings"

    def line(custom_id: str, texts: Any) -> dict[str, Any]:
        return {"custom_id": custom_id, "method": "POST", "url": url, "body": {"model": "m", "input": texts}}

    assert shop.done([line("a", ["x", "y"]), line("b", "z")], url).status == "completed"
    assert shop.done([line("a", ["x", "y"]), line("b", ["x", "y"])], url).errors.data[0].code == "too_many_inputs"


def test_an_unknown_model_fails_validation_when_models_are_listed(open_shop: Any) -> None:
    shop = open_shop(models=("gpt-5",))
    assert shop.done(shop.lines(1)).errors.data[0].code == "model_not_found"


def test_the_official_limits_are_the_defaults() -> None:
    from batchor_engine.sandbox import SandboxConfig

    config = SandboxConfig()
    assert (config.max_lines, config.max_file_bytes, config.window_sec) == (50_000, 200_000_000, 86_400)
