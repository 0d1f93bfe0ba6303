from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchor_engine.core.outcomes import Answer, FileAnomalies, LineRef, Missing, Rejection
from batchor_engine.providers.outcome_index import FileOutcomes

Json = dict[str, Any]


def good(custom_id: Any, text: str = "yes") -> Json:
    body = {"output": [{"type": "message", "content": [{"type": "output_text", "text": text}]}]}
    return {"custom_id": custom_id, "response": {"status_code": 200, "body": body}, "error": None}


def bad(custom_id: str) -> Json:
    return {"custom_id": custom_id, "response": {"status_code": 500, "body": {"error": {"message": "oops"}}}}


def jsonl(*rows: Any) -> bytes:
    return b"\n".join(row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode() for row in rows)


Opener = Callable[..., FileOutcomes]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opener]:
    held: list[FileOutcomes] = []

    def make(output: bytes | None, error: bytes | None = None, **options: Any) -> FileOutcomes:
        paths: dict[str, Path | None] = {}
        for name, content in (("output", output), ("error", error)):
            paths[f"{name}_path"] = None if content is None else tmp_path / f"{name}{len(held)}"
            if content is not None:
                (tmp_path / f"{name}{len(held)}").write_bytes(content)
        held.append(FileOutcomes(**paths, **options))
        return held[-1]

    yield make
    for one in held:
        one.close()


def test_each_request_finds_its_line_in_either_file(opened: Opener) -> None:
    index = opened(jsonl(good("a"), good("b", "b's")), jsonl(bad("c")))
    b, c = index.outcome("b"), index.outcome("c")
    assert isinstance(b, Answer)
    assert b.text == "b's"
    assert isinstance(c, Rejection)
    assert c.error_class == "provider_item_error"
    assert index.outcome("d") == Missing()
    assert index.anomalies == FileAnomalies()


def test_a_reference_leads_to_the_lines_bytes(opened: Opener) -> None:
    output = b"\xef\xbb\xbf\n\r\n" + jsonl(good("a"), good("b", "\u2028 and \x85"), good("c")) + b"\r\n\r\n"
    index = opened(output)
    for custom_id in "abc":
        ref = index.outcome(custom_id).ref  # type: ignore[union-attr]
        assert isinstance(ref, LineRef)
        assert ref.file == "output"
        assert json.loads(output[ref.offset : ref.offset + ref.length])["custom_id"] == custom_id


@pytest.mark.parametrize(
    "rows",
    [(good("a"), bad("a")), (bad("a"), good("a")), (bad("a"), bad("a"), good("a"), good("a", "later"))],
)
def test_of_duplicates_the_first_success_wins(opened: Opener, rows: tuple[Json, ...]) -> None:
    index = opened(jsonl(*rows))
    answer = index.outcome("a")
    assert isinstance(answer, Answer)
    assert answer.text == "yes"
    assert index.anomalies.duplicates == len(rows) - 1


def test_a_success_in_one_file_beats_a_failure_in_the_other(opened: Opener) -> None:
    assert isinstance(opened(jsonl(bad("a")), jsonl(good("a"))).outcome("a"), Answer)


def test_of_two_failures_the_first_is_kept(opened: Opener) -> None:
    index = opened(None, jsonl(bad("a"), {"custom_id": "a", "error": {"code": "batch_expired"}}))
    outcome = index.outcome("a")
    assert isinstance(outcome, Rejection)
    assert outcome.error_class == "provider_item_error"


def test_unknown_ids_are_counted_and_not_kept(opened: Opener) -> None:
    index = opened(jsonl(good("a"), good("x"), good("y")), known_ids=["a", "b"])
    assert index.anomalies == FileAnomalies(unknown_ids=2)
    assert index.outcome("x") == Missing()


def test_a_broken_line_costs_only_its_own_row(opened: Opener) -> None:
    whole = jsonl(good("a"), b"null", b"[]", b"{not json", good(None), b'{"id":"no custom id"}', good("b"))
    index = opened(whole + b'\n{"custom_id": "c", "response": {"status_c')
    assert isinstance(index.outcome("a"), Answer)
    assert isinstance(index.outcome("b"), Answer)
    assert index.outcome("c") == Missing()
    assert index.anomalies == FileAnomalies(unreadable=6)


@pytest.mark.parametrize("content", [None, b"", b"\n\n", b"\xef\xbb\xbf"])
def test_a_file_without_lines_answers_nothing(opened: Opener, content: bytes | None) -> None:
    index = opened(content, content)
    assert index.outcome("a") == Missing()


def test_closing_twice_is_harmless(opened: Opener) -> None:
    index = opened(jsonl(good("a")))
    index.close()
    index.close()


@given(
    st.dictionaries(st.text(min_size=1), st.text().filter(str.strip), max_size=8),
    st.lists(st.binary(max_size=20).filter(lambda noise: b"\n" not in noise), max_size=4),
)
def test_every_answer_is_found_among_any_noise(
    tmp_path_factory: pytest.TempPathFactory, answers: dict[str, str], noise: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("noise") / "out"
    rows = [json.dumps(good(custom_id, text)).encode() for custom_id, text in answers.items()]
    path.write_bytes(b"\n".join([*noise, *rows, *noise]))
    index = FileOutcomes(output_path=path, error_path=None, known_ids=answers)
    try:
        for custom_id, text in answers.items():
            outcome = index.outcome(custom_id)
            assert isinstance(outcome, Answer)
            assert outcome.text == text
        assert index.anomalies.duplicates == 0
    finally:
        index.close()
