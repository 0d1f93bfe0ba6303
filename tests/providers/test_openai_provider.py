"""The official client against the sandbox over a real socket, with every fault that a call can meet."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from openai import OpenAI

from batchor_engine.config import OpenAIEndpoint, OpenAIProviderConfig
from batchor_engine.core.outcomes import Answer, Missing, Rejection
from batchor_engine.errors import ProviderError, ProviderErrorKind
from batchor_engine.models import PromptParts
from batchor_engine.providers.openai import OpenAIBatchProvider
from batchor_engine.sandbox import Fault, Phases, SandboxServer

KEY = "sk-test-DO-NOT-SHOW-1234"
KIND = ProviderErrorKind


class Desk:
    """A sandbox, a provider that speaks to it, and the few moves every test makes."""

    def __init__(self, server: SandboxServer, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.provider = self.another()

    def another(self, **config: Any) -> OpenAIBatchProvider:
        given = {"model": "gpt-5-mini", "api_key": KEY, "base_url": self.server.base_url, **config}
        return OpenAIBatchProvider(OpenAIProviderConfig(**given))

    def requests(self, *ids: str, provider: OpenAIBatchProvider | None = None) -> Path:
        maker = provider or self.provider
        path = self.folder / "batchor-run-1-intent-1.jsonl"
        lines = [maker.render_request(custom_id=one, prompt_parts=PromptParts(f"say {one}")) for one in ids]
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        return path

    def submit(self, *ids: str, provider: OpenAIBatchProvider | None = None) -> str:
        maker = provider or self.provider
        file_id = maker.upload_input_file(self.requests(*ids, provider=maker))
        return maker.create_batch(input_file_id=file_id, metadata={"run_id": "run-1"})["id"]  # type: ignore[typeddict-item]

    def ended(self, *ids: str, provider: OpenAIBatchProvider | None = None) -> Any:
        batch_id = self.submit(*ids, provider=provider)
        self.server.finish(batch_id)
        return self.provider.get_batch(batch_id)

    def fail(self, kind: str, on: str, **more: Any) -> None:
        self.server.faults.add(Fault(kind, on=on, **more))

    def calls(self, operation: str) -> int:
        return sum(1 for one in self.server.journal() if one["operation"] == operation)


OpenDesk = Callable[..., Desk]


@pytest.fixture
def open_desk(tmp_path: Path) -> Iterator[OpenDesk]:
    opened: list[Desk] = []

    def make(**config: Any) -> Desk:
        server = SandboxServer(**{"clock": "polls", "polls": Phases(0, 0, 0, 0), **config}).start()
        opened.append(Desk(server, tmp_path))
        return opened[-1]

    yield make
    for desk in opened:
        desk.provider.close()
        desk.server.stop()


@pytest.fixture
def desk(open_desk: OpenDesk) -> Desk:
    return open_desk()


@pytest.mark.parametrize("endpoint", list(OpenAIEndpoint))
def test_a_batch_goes_out_and_its_answers_come_in(desk: Desk, endpoint: OpenAIEndpoint) -> None:
    provider = desk.another(endpoint=endpoint)
    batch = desk.ended("a:a1", "b:a1", provider=provider)
    assert batch["status"] == "completed"
    assert batch["metadata"]["run_id"] == "run-1"
    target = desk.folder / "out.jsonl"
    provider.download_file_to(batch["output_file_id"], target)
    index = provider.open_outcomes(output_path=target, error_path=None, known_ids={"a:a1", "b:a1"})
    outcomes = [index.outcome(one) for one in ("a:a1", "b:a1", "c:a1")]
    index.close()
    assert [type(one) for one in outcomes] == [Answer, Answer, Missing]
    is_billed = outcomes[0].usage is not None  # type: ignore[union-attr]
    assert is_billed is (endpoint is not OpenAIEndpoint.MODERATIONS)
    assert provider.download_file_content(batch["output_file_id"]).encode() == target.read_bytes()
    provider.close()


def test_the_remote_file_is_called_like_the_local_one(desk: Desk) -> None:
    file_id = desk.provider.upload_input_file(desk.requests("a:a1"))
    found = list(desk.provider.list_input_files(name_prefix="batchor-run-1"))
    assert [(one.id, one.filename) for one in found] == [(file_id, "batchor-run-1-intent-1.jsonl")]
    assert list(desk.provider.list_input_files(name_prefix="batchor-run-2")) == []


def test_listing_pages_newest_first(desk: Desk) -> None:
    made = [desk.submit("a:a1") for _ in range(5)]
    first = desk.provider.list_batches(limit=2)
    second = desk.provider.list_batches(limit=2, after=first.next_after)
    last = desk.provider.list_batches(limit=2, after=second.next_after)
    assert [one["id"] for page in (first, second, last) for one in page.records] == made[::-1]  # type: ignore[typeddict-item]
    assert last.next_after is None
    assert desk.provider.lists_batches


def test_an_empty_account_lists_one_empty_page(desk: Desk) -> None:
    assert desk.provider.list_batches() == ([], None)


def test_a_cancel_is_asked_for_and_a_second_one_tells_the_state(open_desk: OpenDesk) -> None:
    desk = open_desk(clock="manual")
    batch_id = desk.submit("a:a1")
    first = desk.provider.cancel_batch(batch_id)
    assert first is not None
    assert first["status"] in {"cancelling", "cancelled"}  # type: ignore[typeddict-item]
    desk.server.finish(batch_id)
    again = desk.provider.cancel_batch(batch_id)
    assert again is not None
    assert again["status"] == "cancelled"  # type: ignore[typeddict-item]


def test_deleting_never_raises(desk: Desk) -> None:
    file_id = desk.provider.upload_input_file(desk.requests("a:a1"))
    desk.provider.delete_input_file(file_id)
    desk.provider.delete_input_file(file_id)
    desk.provider.delete_input_file("file-nowhere")
    assert list(desk.provider.list_input_files(name_prefix="")) == []


def test_an_upload_to_a_wrong_path_names_the_url_without_its_secrets(desk: Desk) -> None:
    place = desk.server.base_url.removeprefix("http://").removesuffix("/v1")
    with OpenAI(api_key=KEY, base_url=f"http://me:hush@{place}/v2", max_retries=0) as client:
        provider = OpenAIBatchProvider(OpenAIProviderConfig(model="m"), client)
        with pytest.raises(
            ProviderError, match=rf"HTTP 404.* no such API at http://{place}/v2.*: check base_url"
        ) as told:
            provider.upload_input_file(desk.requests("a:a1"))
    assert told.value.kind is KIND.NOT_FOUND
    assert "hush" not in str(told.value)


CREATE_FAULTS: list[tuple[dict[str, Any], ProviderErrorKind]] = [
    ({"kind": "http_error", "status": 400}, KIND.REJECTED),
    ({"kind": "http_error", "status": 401}, KIND.AUTH),
    ({"kind": "http_error", "status": 403}, KIND.AUTH),
    ({"kind": "http_error", "status": 404}, KIND.NOT_FOUND),
    ({"kind": "http_error", "status": 402}, KIND.QUOTA),
    ({"kind": "http_error", "status": 408}, KIND.AMBIGUOUS),
    ({"kind": "http_error", "status": 409}, KIND.TRANSIENT),
    ({"kind": "http_error", "status": 413}, KIND.REJECTED),
    ({"kind": "http_error", "status": 422}, KIND.REJECTED),
    ({"kind": "http_error", "status": 429}, KIND.RATE_LIMITED),
    ({"kind": "http_error", "status": 429, "code": "insufficient_quota"}, KIND.QUOTA),
    ({"kind": "http_error", "status": 400, "code": "quotaExceeded"}, KIND.FILE_STORAGE),
    ({"kind": "http_error", "status": 400, "message": "You have exceeded your file storage quota."}, KIND.FILE_STORAGE),
    ({"kind": "http_error", "status": 429, "code": "token_limit_exceeded"}, KIND.ENQUEUE_LIMIT),
    ({"kind": "http_error", "status": 400, "message": "File file-1 is not processed yet."}, KIND.FILE_PENDING),
    (
        {"kind": "http_error", "status": 400, "message": "The input file is not in a processed state (pending)."},
        KIND.FILE_PENDING,
    ),
    ({"kind": "http_error", "status": 400, "message": "The file is still being processed."}, KIND.FILE_PENDING),
    ({"kind": "http_error", "status": 400, "message": "The file could not be processed."}, KIND.REJECTED),
    ({"kind": "http_error", "status": 500}, KIND.AMBIGUOUS),
    ({"kind": "http_error", "status": 503}, KIND.AMBIGUOUS),
    ({"kind": "lost_answer"}, KIND.AMBIGUOUS),
    ({"kind": "drop"}, KIND.AMBIGUOUS),
    ({"kind": "html"}, KIND.AMBIGUOUS),
    ({"kind": "raw_body", "body": "{not json"}, KIND.AMBIGUOUS),
    ({"kind": "raw_body", "body": "{}"}, KIND.AMBIGUOUS),
    ({"kind": "raw_body", "body": "null"}, KIND.AMBIGUOUS),
    ({"kind": "raw_body", "body": '"text"'}, KIND.AMBIGUOUS),
    ({"kind": "raw_body", "body": "[1]"}, KIND.AMBIGUOUS),
]
READ_KINDS = {KIND.AMBIGUOUS: KIND.TRANSIENT}


@pytest.mark.parametrize(("fault", "kind"), CREATE_FAULTS)
def test_a_failed_creation_says_whether_a_batch_may_exist_and_is_sent_once(
    desk: Desk, fault: dict[str, Any], kind: ProviderErrorKind
) -> None:
    file_id = desk.provider.upload_input_file(desk.requests("a:a1"))
    desk.fail(on="batches.create", **fault)
    with pytest.raises(ProviderError, match="creation of a batch") as caught:
        desk.provider.create_batch(input_file_id=file_id)
    assert caught.value.kind is kind
    assert desk.calls("batches.create") == 1


@pytest.mark.parametrize(("fault", "kind"), CREATE_FAULTS)
def test_a_failed_upload_says_whether_a_file_may_exist_and_is_sent_once(
    desk: Desk, fault: dict[str, Any], kind: ProviderErrorKind
) -> None:
    desk.fail(on="files.create", **fault)
    with pytest.raises(ProviderError, match="upload") as caught:
        desk.provider.upload_input_file(desk.requests("a:a1"))
    assert caught.value.kind is kind
    assert desk.calls("files.create") == 1


@pytest.mark.parametrize(("fault", "kind"), CREATE_FAULTS)
def test_a_failed_read_is_transient_where_a_creation_would_be_ambiguous(
    desk: Desk, fault: dict[str, Any], kind: ProviderErrorKind
) -> None:
    batch_id = desk.submit("a:a1")
    for operation, call in (
        ("batches.retrieve", lambda: desk.provider.get_batch(batch_id)),
        ("batches.list", desk.provider.list_batches),
        ("files.list", lambda: list(desk.provider.list_input_files(name_prefix=""))),
    ):
        desk.fail(on=operation, **fault)
        with pytest.raises(ProviderError) as caught:
            call()
        assert caught.value.kind is READ_KINDS.get(kind, kind)
        assert desk.calls(operation) == 1


def test_a_wish_to_wait_is_told(desk: Desk) -> None:
    desk.fail("http_error", "batches.list", status=429, retry_after=7)
    with pytest.raises(ProviderError) as caught:
        desk.provider.list_batches()
    assert (caught.value.retry_after_sec, caught.value.status_code) == (7.0, 429)


def test_a_server_that_is_not_there_created_nothing(desk: Desk) -> None:
    path = desk.requests("a:a1")
    desk.server.stop()
    with pytest.raises(ProviderError) as caught:
        desk.provider.upload_input_file(path)
    assert caught.value.kind is KIND.TRANSIENT


def test_an_answer_that_does_not_come_in_time_is_ambiguous(desk: Desk) -> None:
    file_id = desk.provider.upload_input_file(desk.requests("a:a1"))
    desk.fail("delay", "batches.create", seconds=3600)
    impatient = httpx2.Timeout(20, read=0.2)
    with OpenAI(api_key=KEY, base_url=desk.server.base_url, timeout=impatient) as client:
        hasty = OpenAIBatchProvider(OpenAIProviderConfig(model="gpt-5-mini"), client)
        with pytest.raises(ProviderError, match="Timeout") as caught:
            hasty.create_batch(input_file_id=file_id)
    assert caught.value.kind is KIND.AMBIGUOUS


def test_a_given_official_client_is_used_without_its_retries(desk: Desk) -> None:
    with OpenAI(api_key=KEY, base_url=desk.server.base_url, organization="org-9", max_retries=5) as client:
        given = OpenAIBatchProvider(OpenAIProviderConfig(model="gpt-5-mini"), client)
        assert given.account_label == f"127.0.0.1:{desk.server.port}/org-9/"
        desk.fail("http_error", "batches.create", status=500)
        with pytest.raises(ProviderError):
            given.create_batch(input_file_id="file-1")
    assert desk.calls("batches.create") == 1


def test_a_file_that_is_not_there_is_no_provider_error(desk: Desk) -> None:
    with pytest.raises(FileNotFoundError):
        desk.provider.upload_input_file(desk.folder / "nowhere.jsonl")


@pytest.mark.parametrize("content_length", [True, False], ids=["with_length", "chunked"])
@pytest.mark.parametrize("clean", [True, False], ids=["clean_end", "reset"])
def test_a_broken_download_is_resumed_to_the_last_byte(desk: Desk, content_length: bool, clean: bool) -> None:
    batch = desk.ended(*(f"r{at}:a1" for at in range(40)))
    whole = desk.provider.download_file_content(batch["output_file_id"]).encode()
    desk.fail("break_download", "files.content", after_bytes=3000, content_length=content_length, clean=clean)
    target = desk.folder / "out.jsonl"
    desk.provider.download_file_to(batch["output_file_id"], target)
    assert target.read_bytes() == whole
    assert sorted(one.name for one in desk.folder.iterdir()) == ["batchor-run-1-intent-1.jsonl", "out.jsonl"]


@pytest.mark.parametrize("clean", [True, False], ids=["clean_end", "reset"])
def test_a_download_that_never_gets_whole_leaves_no_file_and_is_transient(desk: Desk, clean: bool) -> None:
    batch = desk.ended("a:a1", "b:a1")
    desk.fail("break_download", "files.content", after_bytes=0, content_length=False, clean=clean, times=None)
    target = desk.folder / "out.jsonl"
    with pytest.raises(ProviderError, match=r"broke off after 0 of \d+ bytes") as caught:
        desk.provider.download_file_to(batch["output_file_id"], target)
    assert caught.value.kind is KIND.TRANSIENT
    assert not target.exists()
    assert [one.name for one in desk.folder.iterdir()] == ["batchor-run-1-intent-1.jsonl"]


def test_a_web_page_instead_of_a_file_is_no_file(desk: Desk) -> None:
    batch = desk.ended("a:a1")
    desk.fail("html", "files.content", times=None)
    with pytest.raises(ProviderError) as caught:
        desk.provider.download_file_to(batch["output_file_id"], desk.folder / "out.jsonl")
    assert caught.value.kind is KIND.TRANSIENT


@pytest.mark.parametrize("operation", ["files.retrieve", "files.content"])
def test_a_file_that_is_gone_is_not_found(desk: Desk, operation: str) -> None:
    batch = desk.ended("a:a1")
    desk.fail("http_error", operation, status=404)
    with pytest.raises(ProviderError) as caught:
        desk.provider.download_file_to(batch["output_file_id"], desk.folder / "out.jsonl")
    assert caught.value.kind is KIND.NOT_FOUND


def test_a_full_queue_is_explained_with_its_limit(desk: Desk) -> None:
    desk.server.faults.add(Fault("token_limit_exceeded", limit=90_000))
    batch = desk.ended("a:a1")
    found = desk.provider.explain_failure(batch)
    assert (found.error_class, found.enqueued_token_limit) == ("enqueue_token_limit", 90_000)


def test_a_rejected_file_is_explained_by_its_lines(desk: Desk) -> None:
    path = desk.requests("a:a1", "b:a1")
    path.write_bytes(path.read_bytes() + b"{not json\n")
    file_id = desk.provider.upload_input_file(path)
    batch_id = desk.provider.create_batch(input_file_id=file_id)["id"]  # type: ignore[typeddict-item]
    desk.server.finish(batch_id)
    found = desk.provider.explain_failure(desk.provider.get_batch(batch_id))
    assert (found.error_class, found.curable) == ("batch_validation_failed", False)
    assert [number for number, _ in found.lines] == [3]


def test_an_unknown_status_passes(open_desk: OpenDesk) -> None:
    desk = open_desk(clock="manual")
    desk.server.faults.add(Fault("odd_status", word="scheduling", phase="validating"))
    assert desk.provider.get_batch(desk.submit("a:a1"))["status"] == "scheduling"  # type: ignore[typeddict-item]


@pytest.mark.parametrize("kind", ["null_file_id", "empty_file_id"])
def test_a_missing_file_id_is_none(desk: Desk, kind: str) -> None:
    desk.server.faults.add(Fault(kind))
    assert desk.ended("a:a1")["output_file_id"] is None


LINE_FAULTS = [
    ("missing_line", Missing, None),
    ("duplicate_line", Answer, None),
    ("garbage_line", Missing, None),
    ("null_line", Missing, None),
    ("non_object_line", Missing, None),
    ("unknown_id_line", Answer, None),
    ("status_zero", Rejection, "provider_item_error"),
    ("status_string", Answer, None),
    ("missing_response", Rejection, "provider_item_error"),
    ("null_response", Rejection, "provider_item_error"),
    ("body_string", Answer, None),
    ("line_error", Rejection, "provider_item_error"),
    ("refusal", Rejection, "refusal"),
    ("incomplete", Rejection, "incomplete_answer"),
    ("empty_answer", Rejection, "empty_response_text"),
    ("odd_text", Answer, None),
]


@pytest.mark.parametrize("endpoint", [OpenAIEndpoint.RESPONSES, OpenAIEndpoint.CHAT_COMPLETIONS])
@pytest.mark.parametrize(("kind", "outcome", "error_class"), LINE_FAULTS)
def test_a_faulty_line_costs_only_its_own_row(
    desk: Desk, kind: str, outcome: type, error_class: str | None, endpoint: OpenAIEndpoint
) -> None:
    provider = desk.another(endpoint=endpoint)
    desk.server.faults.add(Fault(kind, custom_ids=("b:a1",)))
    batch = desk.ended("a:a1", "b:a1", "c:a1", provider=provider)
    paths: dict[str, Path | None] = {}
    for name in ("output", "error"):
        paths[f"{name}_path"] = desk.folder / name if batch[f"{name}_file_id"] else None
        if batch[f"{name}_file_id"]:
            provider.download_file_to(batch[f"{name}_file_id"], desk.folder / name)
    provider.close()
    index = provider.open_outcomes(**paths, known_ids={"a:a1", "b:a1", "c:a1"})
    a, b, c = (index.outcome(one) for one in ("a:a1", "b:a1", "c:a1"))
    index.close()
    assert isinstance(a, Answer)
    assert isinstance(c, Answer)
    assert isinstance(b, outcome)
    assert getattr(b, "error_class", None) == error_class


def test_the_key_is_in_no_error_log_or_repr(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    desk.fail("http_error", "batches.list", status=401, message=f"Incorrect API key provided: {KEY}")
    with pytest.raises(ProviderError) as caught:
        desk.provider.list_batches()
    error = pickle.loads(pickle.dumps(caught.value))
    assert error.kind is KIND.AUTH
    shown = [str(error), repr(error), json.dumps(error.__dict__), repr(desk.provider), desk.provider.account_label]
    assert not any(KEY in text for text in [*shown, caplog.text])


def test_an_environments_key_is_in_no_error(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    # A key of another shape than OpenAI's, as gateways give them.
    monkeypatch.setenv("OPENAI_API_KEY", "plainkey77")
    desk.fail("http_error", "batches.list", status=401, message="who is plainkey77?")
    provider = desk.another(api_key="")
    with pytest.raises(ProviderError, match=r"who is \[redacted\]\?"):
        provider.list_batches()
    provider.close()
