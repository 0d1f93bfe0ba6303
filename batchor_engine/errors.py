"""Every error of the engine: one root, stable names, and messages that name the way out.

Law: an error never carries a credential, and survives pickling, because orchestrators ship errors between processes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any


class BatchorError(Exception):
    """batchor could not do what it was asked."""

    _fields: tuple[str, ...] = ()

    def __init__(self, message: str | None = None, /, **fields: Any) -> None:
        self.message = message or (type(self).__doc__ or "").strip()
        for name, value in fields.items():
            setattr(self, name, value)
        self._fields = tuple(fields)
        super().__init__(self.message)

    def __reduce__(self) -> tuple[Any, ...]:
        # Constructor arguments differ from the message, so the default protocol would rebuild a different error.
        return _rebuild, (type(self), self.__dict__.copy(), self.args)


def _rebuild(kind: type[BatchorError], state: dict[str, Any], args: tuple[Any, ...]) -> BatchorError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class ModelResolutionError(BatchorError, RuntimeError):
    """The stored model class cannot be imported again."""

    module_name: str
    qualname: str

    def __init__(self, module_name: str, qualname: str) -> None:
        way_out = (
            "it was defined in the script that started the run. Run that script again, which goes on with the run, or "
            "define the model in a module of its own, which every process can import."
            if module_name == "__main__"
            else "it must be a class at the top level of a module that this process can import. Run from the same "
            "code, or define the model at module level."
        )
        super().__init__(
            f"Cannot import the model {module_name}.{qualname} of this run: {way_out} What is collected can be "
            "read without it, as it came: export_terminal_results(), or the command batchor results.",
            module_name=module_name,
            qualname=qualname,
        )


class RunNotFinishedError(BatchorError, RuntimeError):
    """The run has not finished."""

    run_id: str

    def __init__(self, run_id: str) -> None:
        super().__init__(
            f"Run {run_id!r} has not finished: call wait() or refresh() first, or read what is there with "
            "read_terminal_results().",
            run_id=run_id,
        )


class RunPausedError(BatchorError, RuntimeError):
    """The run is paused."""

    run_id: str
    control_reason: str | None

    def __init__(self, run_id: str, control_reason: str | None = None) -> None:
        why = f" ({control_reason})" if control_reason else ""
        super().__init__(
            f"Run {run_id!r} is paused{why}: call resume() to go on, or collect() to bring in what is already paid.",
            run_id=run_id,
            control_reason=control_reason,
        )


class UnknownRunError(BatchorError, LookupError):
    """No run of this id is in the store."""

    run_id: str

    def __init__(self, run_id: str, store: str = "the store") -> None:
        super().__init__(f"No run {run_id!r} in {store}: check the id and the store's URL or path.", run_id=run_id)


class RunIngestionSourceRequiredError(BatchorError, RuntimeError):
    """The run still has rows to ingest and no source is attached here."""

    run_id: str

    def __init__(self, run_id: str) -> None:
        super().__init__(
            f"Run {run_id!r} has not read its whole source, and this process does not have it: call "
            f"start(job, run_id={run_id!r}) with the same source to go on, or cancel() to give up the rest.",
            run_id=run_id,
        )


class RunSubmissionIndeterminateError(BatchorError, RuntimeError):
    """Nobody can tell whether a batch was created at the provider."""

    run_id: str
    intent_id: str

    def __init__(self, run_id: str, intent_id: str) -> None:
        super().__init__(
            f"Run {run_id!r}: it cannot be proved whether batch intent {intent_id} was created at the provider. Look "
            f"for it there, then settle it with `batchor resolve --run-id {run_id} --intent {intent_id} "
            "(--created BATCH_ID | --not-created)`. Everything else of the run goes on.",
            run_id=run_id,
            intent_id=intent_id,
        )


class RunBusyError(BatchorError, RuntimeError):
    """Another worker is advancing this run."""

    run_id: str

    def __init__(self, run_id: str, what: str = "being advanced") -> None:
        super().__init__(f"Run {run_id!r} is {what} by another worker: try again when it is done.", run_id=run_id)


class LeaseLostError(BatchorError, RuntimeError):
    """Another worker took over; nothing of this call was written."""

    resource: str

    def __init__(self, resource: str) -> None:
        super().__init__(
            f"The lease on {resource} went to another worker while this one was away; nothing more was written here.",
            resource=resource,
        )


class PromptBuildError(BatchorError, RuntimeError):
    """build_prompt failed for a row."""

    run_id: str
    item_id: str

    def __init__(self, run_id: str, item_id: str, cause: str) -> None:
        super().__init__(
            f"build_prompt failed for item {item_id!r} of run {run_id!r}: {cause}. The rows before it are kept. "
            "Correct build_prompt and start the same run id again; a corrected source file needs a new run id.",
            run_id=run_id,
            item_id=item_id,
        )


class StructuredOutputSchemaError(BatchorError, ValueError):
    """The model's JSON schema is outside the strict subset."""


class StructuredOutputError(BatchorError, ValueError):
    """The answer cannot be parsed into the model."""

    error_class: str
    raw_error: Any

    def __init__(self, error_class: str, message: str, *, raw_error: Any = None) -> None:
        super().__init__(message, error_class=error_class, raw_error=raw_error)


class ApiKeyMissingError(BatchorError, ValueError):
    """no OpenAI API key: set OpenAIProviderConfig(api_key=...) or the environment variable OPENAI_API_KEY"""


class OtherAccountError(BatchorError, RuntimeError):
    """The run's batches were submitted for another account."""

    run_id: str
    account: str

    def __init__(self, run_id: str, account: str, own: str) -> None:
        super().__init__(
            f"Run {run_id!r} has batches at account {account!r}, and this process speaks for {own!r}: use the "
            "base_url, organization and project it was started with. Where both are one account, name it by "
            "quota_scope from the start.",
            run_id=run_id,
            account=account,
        )


class RunMismatchError(BatchorError, ValueError):
    """The job differs from the stored run of the same id."""


class DuplicateItemError(BatchorError, ValueError):
    """Two rows of one run have the same item id."""

    run_id: str
    item_id: str
    positions: tuple[int, int] | None

    def __init__(
        self, run_id: str, item_id: str, positions: tuple[int, int] | None = None, *, part: str = "the run"
    ) -> None:
        """`positions` of both items are counted from 0 in `part`."""
        where = f", as items {positions[0] + 1} and {positions[1] + 1} of {part}" if positions else ""
        super().__init__(
            f"Run {run_id!r} would hold item id {item_id!r} twice{where}: ids must be unique in a run. Make them so, "
            "or take another column as id.",
            run_id=run_id,
            item_id=item_id,
            positions=positions,
        )


class SourceRowError(BatchorError, ValueError):
    """A row of the source cannot be turned into an item."""


class StoreError(BatchorError, RuntimeError):
    """The store cannot be used."""


class ForeignStoreError(StoreError):
    """The file or schema belongs to other software, or to a newer version."""


class StoreBusyError(StoreError):
    """The store stayed locked by another process."""


class ArtifactMissingError(BatchorError, FileNotFoundError):
    """A recorded file is gone from the artifact root."""

    key: str
    root: str

    def __init__(self, key: str, root: str, *, pruned: bool = False) -> None:
        lost = "is recorded but not in the artifact root"
        cure = "restore that folder, or point the run to where it was moved"
        if pruned:
            lost, cure = "was pruned from", "the requests of this run cannot be sent again, start a new run_id for them"
        super().__init__(
            f"{key} {lost} {root}: {cure}.",
            key=key,
            root=root,
        )


class ProviderErrorKind(StrEnum):
    """What a failed provider call means for its caller; the retry rules hang on nothing else.

    TRANSIENT had no effect (or was a read) and may be repeated. AMBIGUOUS is a create whose effect nobody knows.
    REJECTED is a definite no that repeating will not change. RATE_LIMITED, QUOTA (money), FILE_STORAGE (the account
    holds all the files it may) and ENQUEUE_LIMIT (tokens) are a definite no for now. FILE_PENDING says that a file just
    uploaded cannot be used yet. AUTH is the key's, NOT_FOUND the id's fault.
    """

    TRANSIENT = "transient"
    AMBIGUOUS = "ambiguous"
    REJECTED = "rejected"
    RATE_LIMITED = "rate_limited"
    QUOTA = "quota"
    FILE_STORAGE = "file_storage"
    ENQUEUE_LIMIT = "enqueue_limit"
    FILE_PENDING = "file_pending"
    AUTH = "auth"
    NOT_FOUND = "not_found"


class ProviderError(BatchorError, RuntimeError):
    """The provider refused or failed a call, said without its SDK's types."""

    kind: ProviderErrorKind
    status_code: int | None
    code: str | None
    retry_after_sec: float | None

    def __init__(
        self,
        message: str,
        *,
        kind: ProviderErrorKind,
        status_code: int | None = None,
        code: str | None = None,
        retry_after_sec: float | None = None,
    ) -> None:
        super().__init__(message, kind=kind, status_code=status_code, code=code, retry_after_sec=retry_after_sec)
