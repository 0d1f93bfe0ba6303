"""Objects that a user may pass as `client`: only the five calls of the contract, in several spellings."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from batchor_engine.config import OpenAIProviderConfig
from batchor_engine.core.outcomes import Answer, BatchFailure, FileAnomalies, Missing
from batchor_engine.errors import ProviderError, ProviderErrorKind
from batchor_engine.models import PromptParts
from batchor_engine.ports.providers import BatchProvider, StructuredOutputSchema
from batchor_engine.providers.openai import OpenAIBatchProvider

ANSWERS = (
    '{"custom_id":"a","response":{"status_code":200,"body":{"output_text":"one\u2028line"}}}\n'
    "null\n"
    '{"custom_id":"b","response":{"status_code":200,"body":{"output_text":""}}}\n'
)
FAILURES = '{"custom_id":"c","error":{"code":"batch_expired"}}\n{"custom_id":"a","error":{"code":"x"}}\n'


class SmallClient:
    """Nothing but the five calls; `content` and `wrap` choose how it answers."""

    def __init__(self, content: Any = ANSWERS, *, as_dict: bool = False, error: Exception | None = None) -> None:
        self._content, self._as_dict, self._error = content, as_dict, error
        self.uploaded: list[tuple[str, bytes]] = []
        self.created: list[dict[str, Any]] = []
        self.files = SimpleNamespace(create=self._upload, content=self._download, delete=self._delete)
        self.batches = SimpleNamespace(create=self._create, retrieve=self._retrieve)

    def _answer(self, **fields: Any) -> Any:
        if self._error:
            raise self._error
        return fields if self._as_dict else SimpleNamespace(**fields)

    def _upload(self, *, file: Any, purpose: str) -> Any:
        self.uploaded.append((Path(file.name).name, file.read()))
        return self._answer(id="file-1", purpose=purpose)

    def _download(self, file_id: str) -> Any:
        self._answer()
        return self._content

    def _delete(self, file_id: str) -> None:
        raise RuntimeError("cannot delete")

    def _create(self, **fields: Any) -> Any:
        self.created.append(fields)
        return self._answer(id="batch-1", status="validating", **fields)

    def _retrieve(self, batch_id: str) -> Any:
        counts = {"completed": 2, "failed": 1, "total": 3}
        return self._answer(
            id=batch_id,
            status="completed",
            output_file_id="file-2",
            error_file_id="",
            request_counts=counts if self._as_dict else SimpleNamespace(**counts),
            errors=SimpleNamespace(data=[SimpleNamespace(code="x", message="m", line=3, _private=1)]),
        )


def provider(client: Any) -> OpenAIBatchProvider:
    return OpenAIBatchProvider(OpenAIProviderConfig(model="gpt-5-mini"), client=client)


@pytest.mark.parametrize("as_dict", [True, False], ids=["mappings", "objects"])
def test_five_calls_are_enough(tmp_path: Path, as_dict: bool) -> None:
    client = SmallClient(as_dict=as_dict)
    small = provider(client)
    path = tmp_path / "requests.jsonl"
    path.write_bytes(b"{}\n")
    assert small.upload_input_file(path) == "file-1"
    assert client.uploaded == [("requests.jsonl", b"{}\n")]
    created = small.create_batch(input_file_id="file-1", metadata={"run_id": "r"})
    assert created["id"] == "batch-1"  # type: ignore[typeddict-item]
    assert client.created == [
        {
            "input_file_id": "file-1",
            "endpoint": "/v1/responses",
            "completion_window": "24h",
            "metadata": {"run_id": "r"},
        }
    ]
    batch = small.get_batch("batch-1")
    assert batch["output_file_id"] == "file-2"  # type: ignore[typeddict-item]
    assert batch["error_file_id"] is None  # type: ignore[typeddict-item]
    assert batch["request_counts"] == {"completed": 2, "failed": 1, "total": 3}  # type: ignore[typeddict-item]
    assert batch["errors"] == {"data": [{"code": "x", "message": "m", "line": 3}]}  # type: ignore[typeddict-item]
    small.delete_input_file("file-1")


def test_what_a_small_client_cannot_do_is_said_and_not_tried() -> None:
    small = provider(SmallClient())
    assert not small.lists_batches
    assert list(small.list_input_files(name_prefix="")) == []
    assert small.cancel_batch("batch-1") is None
    assert small.account_label == "api.openai.com//"


class _Readable:
    def __init__(self, content: Any) -> None:
        self._content = content

    def read(self) -> Any:
        return self._content


@pytest.mark.parametrize(
    "content",
    [
        ANSWERS,
        ANSWERS.encode(),
        SimpleNamespace(text=ANSWERS),
        SimpleNamespace(content=ANSWERS.encode()),
        SimpleNamespace(content=ANSWERS.encode(), text="another decoding"),
        _Readable(ANSWERS.encode()),
        _Readable(ANSWERS),
    ],
)
def test_file_content_comes_in_any_wrapping(tmp_path: Path, content: Any) -> None:
    small = provider(SmallClient(content))
    assert small.download_file_content("file-2") == ANSWERS
    small.download_file_to("file-2", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == ANSWERS.encode()


def test_content_that_is_none_is_a_transient_error() -> None:
    with pytest.raises(ProviderError) as caught:
        provider(SmallClient(SimpleNamespace())).download_file_content("file-2")
    assert caught.value.kind is ProviderErrorKind.TRANSIENT


@pytest.mark.parametrize(
    "error", [RuntimeError("boom"), ConnectionResetError("gone"), TimeoutError(), ValueError("odd")]
)
def test_any_exception_of_a_client_is_ambiguous_for_what_creates_and_transient_for_what_reads(
    tmp_path: Path, error: Exception
) -> None:
    small = provider(SmallClient(error=error))
    (tmp_path / "in").write_bytes(b"")
    kinds = []
    for call in (
        lambda: small.upload_input_file(tmp_path / "in"),
        lambda: small.create_batch(input_file_id="f"),
        lambda: small.get_batch("b"),
        lambda: small.download_file_content("f"),
    ):
        with pytest.raises(ProviderError) as caught:
            call()
        kinds.append(caught.value.kind)
    assert kinds == [ProviderErrorKind.AMBIGUOUS] * 2 + [ProviderErrorKind.TRANSIENT] * 2


def test_an_exception_with_a_status_is_read_by_its_status() -> None:
    error = RuntimeError("slow down")
    error.response = SimpleNamespace(status_code=429, headers={"retry-after": "Wed, 01 Jan 2031 00:00:00 GMT"})  # type: ignore[attr-defined]
    error.body = {"error": {"code": "rate_limit_exceeded", "message": "slow down"}}  # type: ignore[attr-defined]
    with pytest.raises(ProviderError, match="slow down") as caught:
        provider(SmallClient(error=error)).create_batch(input_file_id="f")
    assert (caught.value.kind, caught.value.code) == (ProviderErrorKind.RATE_LIMITED, "rate_limit_exceeded")
    assert caught.value.retry_after_sec is not None
    assert caught.value.retry_after_sec > 0


def test_a_refused_connection_created_nothing() -> None:
    with pytest.raises(ProviderError) as caught:
        provider(SmallClient(error=ConnectionRefusedError())).create_batch(input_file_id="f")
    assert caught.value.kind is ProviderErrorKind.TRANSIENT


def test_a_defect_of_the_program_is_no_provider_error() -> None:
    with pytest.raises(TypeError):
        provider(SmallClient(error=TypeError("wrong argument"))).get_batch("b")


def test_whole_texts_are_parsed_into_successes_failures_and_records() -> None:
    small = provider(SmallClient())
    successes, errors, records = small.parse_batch_output(output_content=ANSWERS, error_content=FAILURES)
    assert (list(successes), list(errors), len(records)) == (["a"], ["b", "c"], 4)
    assert small.answer_text(successes["a"]) == "one\u2028line"
    assert small.parse_batch_output(output_content=None, error_content=None) == ({}, {}, [])


def test_jsonl_gives_the_well_formed_objects_and_splits_at_newline_only() -> None:
    assert OpenAIBatchProvider.parse_jsonl('{"a":"\u2028\x85"}\r\n\nnull\n[1]\n{"b":\n{"c":3}') == [
        {"a": "\u2028\x85"},
        {"c": 3},
    ]


class EightMethods(BatchProvider):
    """A custom provider with nothing but the contract's eight methods."""

    def build_request_line(
        self, *, custom_id: str, prompt_parts: PromptParts, structured_output: StructuredOutputSchema | None = None
    ) -> Any:
        return {"method": "POST", "url": "/x", "body": {"p": prompt_parts.prompt}, "custom_id": custom_id}

    def upload_input_file(self, input_path: str | Path) -> str:
        return "f"

    def delete_input_file(self, file_id: str) -> None: ...

    def create_batch(self, *, input_file_id: str, metadata: dict[str, str] | None = None) -> Any:
        return {"id": "b"}

    def get_batch(self, batch_id: str) -> Any:
        return {"id": batch_id, "status": "expired", "errors": None}

    def download_file_content(self, file_id: str) -> str:
        return ANSWERS

    def parse_batch_output(self, *, output_content: str | None, error_content: str | None) -> Any:
        return {"a": {"output_text": "yes"}, "x": {"output_text": "stray"}}, {"b": {"why": "no"}}, []

    def estimate_request_tokens(self, request_line: Any, *, chars_per_token: int) -> int:
        return 1


def test_a_provider_with_eight_methods_has_correct_defaults(tmp_path: Path) -> None:
    custom = EightMethods()
    custom.download_file_to("f", tmp_path / "out")
    index = custom.open_outcomes(output_path=tmp_path / "out", error_path=None, known_ids=["a", "b", "c"])
    assert index.outcome("a") == Answer("yes")
    assert index.outcome("c") == Missing()
    assert index.anomalies == FileAnomalies(unknown_ids=1)
    assert custom.explain_failure(custom.get_batch("b")) == BatchFailure(
        "batch_terminal_expired", "the batch ended as expired: None"
    )
    rendered = custom.render_request(custom_id="a", prompt_parts=PromptParts("p"))
    assert rendered == b'{"custom_id":"a","method":"POST","url":"/x","body":{"p":"p"}}'
