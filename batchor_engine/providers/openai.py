"""The OpenAI Batch API, and every server that speaks it, through the official client or an object shaped like it.

Law: a call that creates something is sent once; its answer, or its failure, is told as it is. The key is looked up when
a remote call is about to happen and appears in nothing that leaves this module.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Collection, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from batchor_engine.config import OpenAIProviderConfig, check_base_url
from batchor_engine.core.outcomes import Answer, BatchFailure, Rejection
from batchor_engine.core.tokens import estimate_tokens
from batchor_engine.core.types import BatchRemoteRecord, BatchRequestLine
from batchor_engine.errors import ProviderError, ProviderErrorKind
from batchor_engine.models import JSONObject, PromptParts
from batchor_engine.ports.providers import (
    BatchProvider,
    OutcomeIndex,
    RemoteBatchPage,
    RemoteFile,
    StructuredOutputSchema,
)
from batchor_engine.providers.clients import SharedClients
from batchor_engine.providers.credentials import headers_of, resolve_openai_api_key, secrets_of
from batchor_engine.providers.downloads import fetch
from batchor_engine.providers.failures import batch_failure
from batchor_engine.providers.faults import about_place, malformed, provider_call
from batchor_engine.providers.records import batch_record, field_of, file_size, page_rows, remote_file
from batchor_engine.providers.wire import RequestWriter, id_of, read_object, read_record

_URL_VARIABLE = "OPENAI_BASE_URL"
_DEFAULT_BASE_URL = "https://api.openai.com/v1"
_PAGE = 100
_FILES_PAGE = 1000
_FILES_PAGES = 10
# A slow line still carries this much; the server answers only after the last byte of an upload.
_SLOWEST_BYTES_PER_SEC = 1_000_000


class OpenAIBatchProvider(BatchProvider):
    """One OpenAI account and model; `client` needs files.create/content/delete and batches.create/retrieve only."""

    def __init__(self, config: OpenAIProviderConfig, client: Any = None) -> None:
        self._config = config
        self._given, self._client = client, client and _without_retries(client)
        self._lock = threading.Lock()
        self._writer = RequestWriter(config)
        self._shared: SharedClients | None = None

    @classmethod
    def sharing(cls, config: OpenAIProviderConfig, clients: SharedClients) -> OpenAIBatchProvider:
        """A provider whose client others of the same connection use too."""
        provider = cls(config)
        provider._shared = clients
        return provider

    def __repr__(self) -> str:
        return f"OpenAIBatchProvider(model={str(self._config.model)!r}, account={self.account_label!r})"

    # Lines out.

    def build_request_line(
        self, *, custom_id: str, prompt_parts: PromptParts, structured_output: StructuredOutputSchema | None = None
    ) -> BatchRequestLine:
        return self._writer.line(custom_id, prompt_parts, structured_output)

    def render_request(
        self, *, custom_id: str, prompt_parts: PromptParts, structured_output: StructuredOutputSchema | None = None
    ) -> bytes:
        return self._writer.render(custom_id, prompt_parts, structured_output)

    def estimate_request_tokens(self, request_line: BatchRequestLine, *, chars_per_token: int) -> int:
        text = json.dumps(request_line, ensure_ascii=False, separators=(",", ":"))
        return estimate_tokens(text, model=str(self._config.model), chars_per_token=chars_per_token)

    # The account.

    @property
    def account_label(self) -> str:
        """Host, organization and project, or the quota scope; the same for every key of one account."""
        if scope := self._config.enqueue_limits.quota_scope:
            return scope
        parts = urlsplit(self._server())
        host = f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
        organization = self._account_part("organization", "OPENAI_ORG_ID")
        return "/".join((host, organization, self._account_part("project", "OPENAI_PROJECT_ID")))

    def _account_part(self, name: str, variable: str) -> str:
        if self._given is not None:
            return str(field_of(self._given, name) or "")
        return str(field_of(self._config, name) or os.environ.get(variable) or "")

    def _server(self) -> str:
        return str(field_of(self._given, "base_url") or self._base_url())

    def _base_url(self) -> str:
        return self._config.base_url or os.environ.get(_URL_VARIABLE) or _DEFAULT_BASE_URL

    def _checked_base_url(self) -> str:
        """Where calls go; ValueError where the environment names no such place (the config has checked its own)."""
        if not self._config.base_url:
            check_base_url(os.environ.get(_URL_VARIABLE), f"the environment variable {_URL_VARIABLE}")
        return self._base_url()

    def check_ready(self) -> None:
        """ApiKeyMissingError or ValueError where a first call could only fail for want of a key or a proper URL."""
        if self._given is None:
            resolve_openai_api_key(self._config)
            headers_of(self._config)
            self._checked_base_url()

    # Files and batches.

    def upload_input_file(self, input_path: str | Path) -> str:
        """Upload a request file under its own name and return the remote file id."""
        path, what = Path(input_path), "the upload of a request file"
        with path.open("rb") as stream:
            slow = {} if self._given is not None else {"timeout": self._upload_timeout(path.stat().st_size)}
            expiry = self._expiry("expires_after", "input_expires_after_sec")
            try:
                with self._call(what, creates=True) as client:
                    # An open file is sent in blocks, and its name becomes the remote one.
                    uploaded = client.files.create(file=stream, purpose="batch", **expiry, **slow)
            except ProviderError as error:
                raise about_place(error, self._server()) from None
        file = remote_file(uploaded)
        if file is None:
            raise self._malformed(what, uploaded, creates=True)
        return file.id

    def delete_input_file(self, file_id: str) -> None:
        with suppress(Exception):
            self._connected().files.delete(file_id)

    def delete_file(self, file_id: str) -> None:
        try:
            with self._call(f"deleting file {file_id}") as client:
                client.files.delete(file_id)
        except ProviderError as error:
            if error.kind is not ProviderErrorKind.NOT_FOUND:
                raise

    def create_batch(self, *, input_file_id: str, metadata: dict[str, str] | None = None) -> BatchRemoteRecord:
        what = "the creation of a batch"
        with self._call(what, creates=True) as client:
            created = client.batches.create(
                input_file_id=input_file_id,
                endpoint=field_of(self._config, "batch_endpoint") or str(self._config.endpoint),
                completion_window=self._config.completion_window,
                metadata=metadata or {},
                **self._expiry("output_expires_after", "output_expires_after_sec"),
            )
        return self._expect_batch(created, what, creates=True)

    def _expiry(self, parameter: str, name: str) -> dict[str, Any]:
        """The config's wish for how long files live; a server of another kind may not know the parameter."""
        seconds = field_of(self._config, name)
        return {parameter: {"anchor": "created_at", "seconds": seconds}} if seconds else {}

    def get_batch(self, batch_id: str) -> BatchRemoteRecord:
        what = f"reading batch {batch_id}"
        with self._call(what) as client:
            found = client.batches.retrieve(batch_id)
        return self._expect_batch(found, what)

    def cancel_batch(self, batch_id: str) -> BatchRemoteRecord | None:
        """Ask for a cancel and return the batch as it is then; a batch that is over already is returned as it is."""
        what = f"cancelling batch {batch_id}"
        try:
            with self._call(what) as client:
                if not hasattr(client.batches, "cancel"):
                    return None
                cancelled = client.batches.cancel(batch_id)
        except ProviderError as error:
            if error.kind is not ProviderErrorKind.REJECTED and error.status_code != 409:
                raise
            return self.get_batch(batch_id)
        return self._expect_batch(cancelled, what)

    @property
    def lists_batches(self) -> bool:
        return self._given is None or hasattr(self._given.batches, "list")

    def list_batches(self, *, after: str | None = None, limit: int = _PAGE) -> RemoteBatchPage:
        what, size = "listing batches", min(limit, _PAGE)
        try:
            with self._call(what) as client:
                page = client.batches.list(limit=size, **({"after": after} if after else {}))
        except ProviderError as error:
            raise error if after else about_place(error, self._server()) from None
        rows = page_rows(page)
        if rows is None:
            raise self._malformed(what, page)
        records = [self._expect_batch(row, what) for row in rows]
        more = field_of(page, "has_more")
        goes_on = bool(records) and (len(records) >= size if more is None else bool(more))
        return RemoteBatchPage(records, records[-1].get("id") if goes_on else None)

    def list_input_files(self, *, name_prefix: str) -> Iterator[RemoteFile]:
        """Remote batch files whose name starts with `name_prefix`, newest first, among the newest ten thousand."""
        after: str | None = None
        for _ in range(_FILES_PAGES):
            rows, more = self._files_page(after)
            files = [file for row in rows if (file := remote_file(row)) is not None]
            yield from (file for file in files if file.filename.startswith(name_prefix))
            if not more or not files or files[-1].id == after:
                return
            after = files[-1].id

    def _files_page(self, after: str | None) -> tuple[list[Any], bool]:
        what = "listing files"
        with self._call(what) as client:
            if not hasattr(client.files, "list"):
                return [], False
            place = {"after": after} if after else {}
            page = client.files.list(purpose="batch", limit=_FILES_PAGE, order="desc", **place)
        rows = page_rows(page)
        if rows is None:
            raise self._malformed(what, page)
        return rows, bool(field_of(page, "has_more"))

    # Answers in.

    def download_file_content(self, file_id: str) -> str:
        return self._content(file_id).decode("utf-8", "replace")

    def download_file_to(self, file_id: str, path: str | Path) -> None:
        """Stream a remote file to `path`, resuming where the stream breaks; ProviderError where it stays short."""
        if not hasattr(self._connected().files, "with_streaming_response"):
            Path(path).write_bytes(self._content(file_id))
            return
        what = f"the download of file {file_id}"

        @contextmanager
        def opening(headers: Mapping[str, str]) -> Generator[Any]:
            with ExitStack() as stack:
                with self._call(what) as client:
                    stream = client.files.with_streaming_response.content(file_id, extra_headers=dict(headers))
                    response = stack.enter_context(stream)
                yield response

        fetch(opening, Path(path), what=what, size=self._size(file_id))

    def _size(self, file_id: str) -> int | None:
        with self._call(f"reading file {file_id}") as client:
            return file_size(client.files.retrieve(file_id)) if hasattr(client.files, "retrieve") else None

    def _content(self, file_id: str) -> bytes:
        what = f"the download of file {file_id}"
        with self._call(what) as client:
            content = client.files.content(file_id)
            for name in ("content", "text"):
                content = content if isinstance(content, (str, bytes)) else getattr(content, name, content)
            if not isinstance(content, (str, bytes)) and hasattr(content, "read"):
                content = content.read()
        if not isinstance(content, (str, bytes)):
            raise self._malformed(what, content)
        return content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content

    @staticmethod
    def parse_jsonl(content: str) -> list[JSONObject]:
        """The well-formed objects of a JSONL text, whose lines end at newline and nowhere else."""
        found = (read_object(line.encode("utf-8", "surrogatepass")) for line in content.split("\n") if line.strip())
        return [record for record in found if record is not None]

    def parse_batch_output(
        self, *, output_content: str | None, error_content: str | None
    ) -> tuple[dict[str, JSONObject], dict[str, JSONObject], list[JSONObject]]:
        """Successes by custom id, failures by custom id, all records; of several answers the first success wins."""
        records = [*self.parse_jsonl(output_content or ""), *self.parse_jsonl(error_content or "")]
        successes: dict[str, JSONObject] = {}
        errors: dict[str, JSONObject] = {}
        for record in records:
            if custom_id := id_of(record):
                side = successes if isinstance(self._read(record), Answer) else errors
                side.setdefault(custom_id, record)
        return successes, {key: value for key, value in errors.items() if key not in successes}, records

    def answer_text(self, record: JSONObject) -> str | None:
        return self._read(record).text

    def _read(self, record: JSONObject) -> Answer | Rejection:
        return read_record(record, self._config.endpoint)

    def open_outcomes(
        self, *, output_path: Path | None, error_path: Path | None, known_ids: Collection[str] | None = None
    ) -> OutcomeIndex:
        from batchor_engine.providers.outcome_index import FileOutcomes

        return FileOutcomes(
            output_path=output_path, error_path=error_path, known_ids=known_ids, endpoint=self._config.endpoint
        )

    def explain_failure(self, record: BatchRemoteRecord) -> BatchFailure:
        return batch_failure(record.get("status", ""), record.get("errors"))

    # The client.

    def close(self) -> None:
        """Close the client that this provider opened itself; one that was given or is shared stays its owner's."""
        with self._lock:
            if self._given is None and self._client is not None:
                if self._shared is None:
                    self._client.close()
                self._client = None

    @contextmanager
    def _call(self, what: str, *, creates: bool = False) -> Generator[Any]:
        client = self._connected()
        with provider_call(what, creates=creates, secrets=self._secrets):
            yield client

    def _expect_batch(self, remote: object, what: str, *, creates: bool = False) -> BatchRemoteRecord:
        record = batch_record(remote, self._secrets)
        if record is None:
            raise self._malformed(what, remote, creates=creates)
        return record

    def _malformed(self, what: str, got: object, *, creates: bool = False) -> ProviderError:
        return malformed(what, got, creates=creates, secrets=self._secrets())

    def _secrets(self) -> list[str]:
        return secrets_of(self._config, self._given)

    def _connected(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = self._official_client(resolve_openai_api_key(self._config))
            return self._client

    def _official_client(self, key: str) -> Any:
        from openai import OpenAI

        settings: dict[str, Any] = {
            "api_key": key,
            "base_url": self._checked_base_url(),
            # What is not in the config is taken from the environment, as the client itself would.
            "organization": self._config.organization or os.environ.get("OPENAI_ORG_ID"),
            "project": self._config.project or os.environ.get("OPENAI_PROJECT_ID"),
            "timeout": float(self._config.request_timeout_sec),
            "default_headers": headers_of(self._config) or None,
            # Retries are the runtime's: durable, and never of a call that may have created something.
            "max_retries": 0,
        }
        return OpenAI(**settings) if self._shared is None else self._shared.get(settings, OpenAI)

    def _upload_timeout(self, size: int) -> float:
        return float(self._config.request_timeout_sec + size // _SLOWEST_BYTES_PER_SEC)


def _without_retries(client: Any) -> Any:
    """The client with its own retries off, where it has such a switch."""
    if not hasattr(client, "with_options"):
        return client
    adjusted: AbstractContextManager[Any] = client.with_options(max_retries=0)
    return adjusted
