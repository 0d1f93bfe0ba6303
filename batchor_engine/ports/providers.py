"""What a provider must be able to do.

Law: runtime/ knows only this class. The eight abstract methods suffice; every other method has a default that is
correct, if slower or less safe.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

from pydantic_core import to_json

from batchor_engine.config import ProviderConfig
from batchor_engine.core.outcomes import Answer, BatchFailure, FileAnomalies, Missing, Outcome, Rejection
from batchor_engine.core.types import BatchRemoteRecord, BatchRequestLine
from batchor_engine.models import JSONObject, JSONValue, PromptParts


@dataclass(frozen=True)
class StructuredOutputSchema:
    """A schema in the provider's strict subset, with the name it is sent under."""

    name: str
    schema: JSONObject


class RemoteBatchPage(NamedTuple):
    """One page of remote batches, newest first; `next_after` is the cursor of the next page or None at the end."""

    records: list[BatchRemoteRecord]
    next_after: str | None


class RemoteFile(NamedTuple):
    """A file at the provider; `created_at` in epoch seconds."""

    id: str
    filename: str
    created_at: float | None


class OutcomeIndex(Protocol):
    """The answers of one ended batch, by custom id, read from disk one at a time."""

    @property
    def anomalies(self) -> FileAnomalies:
        """Lines that answered no row, or one row twice."""
        ...

    def outcome(self, custom_id: str) -> Outcome:
        """What became of the request `custom_id`; Missing() where no line answers it."""
        ...

    def close(self) -> None:
        """Let go of open files."""
        ...


class BatchProvider(ABC):
    """A batch API. The eight abstract methods suffice; the others make it cheaper, safer or both."""

    @abstractmethod
    def build_request_line(
        self, *, custom_id: str, prompt_parts: PromptParts, structured_output: StructuredOutputSchema | None = None
    ) -> BatchRequestLine:
        """One JSON-serialisable line of the input file."""

    @abstractmethod
    def upload_input_file(self, input_path: str | Path) -> str:
        """Upload a request file and return the remote file id."""

    @abstractmethod
    def delete_input_file(self, file_id: str) -> None:
        """Delete a remote file as well as can be; never raises."""

    @abstractmethod
    def create_batch(self, *, input_file_id: str, metadata: dict[str, str] | None = None) -> BatchRemoteRecord:
        """Create a remote batch. Must not repeat the call by itself: a lost answer may hide a paid batch."""

    @abstractmethod
    def get_batch(self, batch_id: str) -> BatchRemoteRecord:
        """The remote batch as it is now."""

    @abstractmethod
    def download_file_content(self, file_id: str) -> str:
        """The text of a remote file."""

    @abstractmethod
    def parse_batch_output(
        self, *, output_content: str | None, error_content: str | None
    ) -> tuple[dict[str, JSONObject], dict[str, JSONObject], list[JSONObject]]:
        """Successes by custom id, errors by custom id, and all records."""

    @abstractmethod
    def estimate_request_tokens(self, request_line: BatchRequestLine, *, chars_per_token: int) -> int:
        """Prompt tokens of a request, at least 0."""

    # The rest has defaults.

    def check_ready(self) -> None:  # noqa: B027 - a provider without credentials is always ready
        """Raise where the first remote call could only fail, before anything is stored; makes no call itself."""

    @property
    def account_label(self) -> str:
        """Which account this client speaks for; only a client with the same label may declare an intent unknown."""
        return "default"

    @property
    def lists_batches(self) -> bool:
        """Whether list_batches() works; without it a lost answer to create cannot be settled by itself."""
        return False

    def list_batches(self, *, after: str | None = None, limit: int = 100) -> RemoteBatchPage:
        """A page of remote batches, newest first."""
        raise NotImplementedError(f"{type(self).__name__} cannot list batches")

    def list_input_files(self, *, name_prefix: str) -> Iterator[RemoteFile]:
        """Remote input files whose name starts with `name_prefix`, newest first; none where that cannot be listed."""
        del name_prefix
        return iter(())

    def cancel_batch(self, batch_id: str) -> BatchRemoteRecord | None:
        """Ask the provider to cancel; None where it cannot."""
        del batch_id
        return None

    def delete_file(self, file_id: str) -> None:
        """Delete a remote file of any kind, or find it gone; ProviderError where it may still be there."""
        self.delete_input_file(file_id)

    def download_file_to(self, file_id: str, path: str | Path) -> None:
        """Write a remote file to `path`, whole or not at all as far as this call can tell."""
        Path(path).write_text(self.download_file_content(file_id), encoding="utf-8", newline="")

    def close(self) -> None:
        """Let go of connections; a later call may open them again."""
        return

    def render_request(
        self, *, custom_id: str, prompt_parts: PromptParts, structured_output: StructuredOutputSchema | None = None
    ) -> bytes:
        """The request line as the bytes that are sent, without the newline; "custom_id" is its first key."""
        line = self.build_request_line(
            custom_id=custom_id, prompt_parts=prompt_parts, structured_output=structured_output
        )
        return to_json({"custom_id": custom_id, **{key: value for key, value in line.items() if key != "custom_id"}})

    def answer_text(self, record: JSONObject) -> str | None:
        """The answer's text in a success record of parse_batch_output."""
        text = record.get("output_text")
        return text if isinstance(text, str) else None

    def explain_failure(self, record: BatchRemoteRecord) -> BatchFailure:
        """Why a batch that failed, expired or was cancelled did so; by default its status is all that is told."""
        status = record.get("status", "")
        return BatchFailure(f"batch_terminal_{status}", f"the batch ended as {status}: {record.get('errors')}"[:500])

    def open_outcomes(
        self, *, output_path: Path | None, error_path: Path | None, known_ids: Collection[str] | None = None
    ) -> OutcomeIndex:
        """The outcomes of downloaded files; this default holds one batch in memory.

        With `known_ids`, the custom ids that were sent, every other id is counted as unknown and not kept.
        """
        output = output_path.read_text(encoding="utf-8") if output_path else None
        error = error_path.read_text(encoding="utf-8") if error_path else None
        successes, errors, _ = self.parse_batch_output(output_content=output, error_content=error)
        return _ParsedOutcomes(self, successes, errors, known_ids)


class _ParsedOutcomes:
    """The outcomes of a provider that parses whole files."""

    def __init__(
        self,
        provider: BatchProvider,
        successes: Mapping[str, JSONObject],
        errors: Mapping[str, JSONObject],
        known_ids: Collection[str] | None,
    ) -> None:
        self._provider, self._successes, self._errors = provider, successes, errors
        unknown = set[str]() if known_ids is None else {*successes, *errors}.difference(known_ids)
        self.anomalies = FileAnomalies(unknown_ids=len(unknown))

    def outcome(self, custom_id: str) -> Outcome:
        if (record := self._successes.get(custom_id)) is not None:
            text = self._provider.answer_text(record)
            if text:
                return Answer(text)
            return Rejection("empty_response_text", "the answer holds no text", curable=True, raw_error=record)
        if (record := self._errors.get(custom_id)) is not None:
            return Rejection("provider_item_error", "the provider failed this row", curable=True, raw_error=record)
        return Missing()

    def close(self) -> None:
        """Nothing is open."""


ProviderFactory: TypeAlias = Callable[[Any], BatchProvider]
ProviderConfigLoader: TypeAlias = Callable[[Mapping[str, JSONValue]], ProviderConfig]
