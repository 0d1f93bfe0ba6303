"""The quick way reads what the long way would have read, or leaves the line to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchor_engine.core.outcomes import Answer, FileAnomalies, Missing
from batchor_engine.models import RunUsage
from batchor_engine.providers.lines import Line
from batchor_engine.providers.outcome_index import FileOutcomes
from batchor_engine.providers.plain_lines import id_at_front, read_plain
from batchor_engine.providers.wire import id_of, read_object, read_record

Json = dict[str, Any]
USAGE = {
    "input_tokens": 11,
    "input_tokens_details": {"cached_tokens": 4},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 5},
}
CHAT_USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "completion_tokens_details": {"reasoning_tokens": 5}}


def text_part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def response(*items: Any, **more: Any) -> Json:
    return {"id": "resp", "status": "completed", "error": None, "output": list(items), "usage": USAGE, **more}


def chat(content: Any, **more: Any) -> Json:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": content, "refusal": None},
        "finish_reason": "stop",
    }
    return {"id": "chat", "choices": [{**choice, **more}], "usage": CHAT_USAGE}


def line(body: Any, custom_id: str = "a:a1", status: Any = 200, error: Any = None) -> bytes:
    record = {"id": "b", "custom_id": custom_id, "response": {"status_code": status, "body": body}, "error": error}
    return json.dumps(record, ensure_ascii=False).encode()


def the_long_way(raw: bytes) -> Line:
    record = read_object(raw)
    return Line(None, Missing()) if record is None else Line(id_of(record), read_record(record))


MESSAGE = {"type": "message", "status": "completed", "content": [text_part("yes"), text_part(" and no")]}


def test_ordinary_answers_of_both_endpoints_go_the_quick_way() -> None:
    thought = {"type": "reasoning", "summary": []}
    assert read_plain(line(response(thought, MESSAGE))) == ("a:a1", Answer("yes and no", RunUsage(11, 4, 7, 5)))
    assert read_plain(line(chat("yes"))) == ("a:a1", Answer("yes", RunUsage(11, 0, 7, 5)))


@pytest.mark.parametrize("usage", [USAGE, None])
def test_choices_that_are_null_are_no_choices(usage: Json | None) -> None:
    raw = line({**response(MESSAGE), "choices": None, "usage": usage})
    assert (read_plain(raw) is None) == (usage is None)
    outcome = the_long_way(raw).outcome
    assert isinstance(outcome, Answer)
    assert outcome.text == "yes and no"


TEXTS = st.sampled_from(["yes", "", "  \n", "naïve “quotes” 🔥", "a\u2028b", "\\", '{"a": 1}', "\x00"])
ODD = st.sampled_from(
    [None, 0, 1, -1, 2**40, 2**41, 1.0, 1.5, True, "", "x", "stop", "length", "completed", "incomplete", "in_progress",
     "commentary", "message", "output_text", "text", "refusal", "content_filter", [], {}, [1], {"a": 1}]
)  # fmt: skip
PARTS = st.one_of(TEXTS.map(text_part), st.fixed_dictionaries({"type": ODD, "text": ODD}), ODD)
ITEMS = st.one_of(
    st.lists(TEXTS.map(text_part), max_size=3).map(lambda parts: {**MESSAGE, "content": parts}),
    st.fixed_dictionaries(
        {"type": ODD, "content": st.lists(PARTS, max_size=2)}, optional={"status": ODD, "phase": ODD}
    ),
    ODD,
)
BODIES = st.one_of(
    st.lists(ITEMS, max_size=3).map(lambda items: response(*items)),
    st.builds(chat, st.one_of(TEXTS, ODD)),
)
CHANGES = st.dictionaries(
    st.sampled_from(["status", "error", "output", "choices", "usage", "output_text", "incomplete_details"]),
    ODD,
    max_size=2,
)
USAGES = st.dictionaries(st.sampled_from([*USAGE, *CHAT_USAGE, "prompt_tokens_details"]), ODD, max_size=4)


@given(BODIES, CHANGES, st.none() | USAGES, st.sampled_from([200, 200, 200, 201, 500, None, "200", 200.0]), ODD)
def test_what_goes_the_quick_way_is_read_as_by_the_long_way(
    body: Json, changes: Json, usage: Json | None, status: Any, error: Any
) -> None:
    changed = {**body, **changes, **({} if usage is None else {"usage": usage})}
    for raw in (line(changed), line(changed, status=status), line(changed, error=error), line(changed, custom_id="")):
        quick = read_plain(raw)
        if quick is not None:
            assert Line(*quick) == the_long_way(raw)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"yes", b"y\xffs"),
        (b"yes", b"\\ud800"),
        (b"yes", b"y\x01s"),
        (b'"b"', b"NaN"),
        (b"{", b"\xef\xbb\xbf{"),
        (b"7", b"1e999"),
    ],
)
def test_odd_bytes_go_the_long_way(old: bytes, new: bytes) -> None:
    raw = line(response(MESSAGE)).replace(old, new, 1)
    assert raw != line(response(MESSAGE))
    assert read_plain(raw) is None


def test_an_id_is_found_at_the_front_only_where_it_stands_as_the_provider_writes_it() -> None:
    assert id_at_front(line(response(MESSAGE))) == "a:a1"
    assert id_at_front(b'{"id":"b","custom_id":"\xc3\xa4:a1","x') == "ä:a1"
    for odd in (b'{"custom_id":"a"}', b'{"id":"b","custom_id":"a\\u0062"}', b'{"id":"b","custom_id":"\xff"}', b""):
        assert id_at_front(odd) is None


def outcomes(tmp_path: Path, *lines: bytes) -> FileOutcomes:
    path = tmp_path / "output"
    path.write_bytes(b"\n".join(lines))
    return FileOutcomes(output_path=path, error_path=None, known_ids={"a:a1", "c:a1"})


def test_a_line_that_breaks_off_behind_its_id_is_one_unreadable_line_and_a_missing_row(tmp_path: Path) -> None:
    index = outcomes(tmp_path, line(response(MESSAGE))[:-40], line(response(MESSAGE), "c:a1"))
    assert isinstance(index.outcome("c:a1"), Answer)
    assert [index.outcome("a:a1"), index.outcome("a:a1")] == [Missing(), Missing()]
    assert index.anomalies == FileAnomalies(unreadable=1)
    index.close()


@pytest.mark.parametrize("broken_first", [True, False])
def test_a_whole_line_wins_over_a_broken_one_of_the_same_request(tmp_path: Path, broken_first: bool) -> None:
    whole, broken = line(response(MESSAGE)), line(response(MESSAGE))[:-40]
    index = outcomes(tmp_path, *([broken, whole] if broken_first else [whole, broken]))
    assert isinstance(index.outcome("a:a1"), Answer)
    assert index.anomalies == FileAnomalies(unreadable=1)
    index.close()


def test_a_line_whose_id_changes_further_on_answers_nobody(tmp_path: Path) -> None:
    twice = line(response(MESSAGE)).replace(b'"error": null}', b'"error": null, "custom_id": "c:a1"}')
    index = outcomes(tmp_path, twice)
    assert [index.outcome("a:a1"), index.outcome("c:a1")] == [Missing(), Missing()]
    assert index.anomalies == FileAnomalies(unreadable=1)
    index.close()
