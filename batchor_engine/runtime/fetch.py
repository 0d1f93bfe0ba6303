"""The provider's files of an ended batch, brought to local disk and kept where the run keeps its files.

Law: nothing here changes a row, so it may run beside other work, and be done again after a kill.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from batchor_engine.artifacts import keys
from batchor_engine.core.backoff import delay_sec
from batchor_engine.core.polling import observation
from batchor_engine.core.records import BatchRecord, Lease, RunRecord
from batchor_engine.core.settle import BATCH_COMPLETED, BATCH_FAILED
from batchor_engine.core.types import BatchRemoteRecord
from batchor_engine.errors import ProviderError, ProviderErrorKind
from batchor_engine.models import Form, RetryPolicy
from batchor_engine.ports.artifacts import ArtifactStore
from batchor_engine.ports.providers import BatchProvider
from batchor_engine.runtime.host import Host, RunPolicies

# Looks before a completed batch that names no file, and counts no answer, is one without answers. One that was
# cancelled or expired before it answered anything is looked at once: its last word may have been seen in a list.
_FILE_LOOKS = 5
# A file counts as gone at the twelfth failure and an hour after the end, not sooner; the waits between these tries
# double from two seconds, so that they take over an hour by themselves when nobody looked for a day.
_GONE_TRIES = 12
_GONE_SEC = 3600.0
_GONE_PACE = RetryPolicy(base_backoff_sec=2.0, max_backoff_sec=_GONE_SEC)
# Trouble on the way says nothing about files: however often, it leaves four tries and an hour for a verdict.
TROUBLE_TRIES = 8


@dataclass(frozen=True)
class Collection:
    """What collecting one batch needs; the model is resolved before anything is written."""

    host: Host
    run: RunRecord
    batch: BatchRecord
    lease: Lease
    provider: BatchProvider
    policies: RunPolicies
    model: Form

    @property
    def artifacts(self) -> ArtifactStore:
        return self.host.artifacts(self.run)


@dataclass(frozen=True)
class Fetched:
    """A collection with its files on local disk; `gone` says why one that should be there cannot be had any more."""

    work: Collection
    output: Path | None
    error: Path | None
    gone: str | None = None


@contextmanager
def fetched(work: Collection) -> Generator[Fetched]:
    """The batch's files while the context is open."""
    named, nameless = _named_files(work)
    with _downloaded(named, [nameless] if nameless else []) as found:
        yield found


def _named_files(work: Collection) -> tuple[Collection, str | None]:
    """The collection with the names of its files, and why one that must be there never got a name.

    Files may be named a moment after a batch's last word, so it is asked again before its rows count as unanswered.
    """
    if work.batch.remote_status == BATCH_FAILED or not _is_nameless(work.batch):
        return work, None
    seen = observation(work.batch, _asked(work))
    named = replace(work.batch, output_file_id=seen.output_file_id, error_file_id=seen.error_file_id)
    found = replace(work, batch=replace(named, remote_completed=seen.completed))
    if not _is_nameless(found.batch):
        return found, None
    why = f"the batch ended as {found.batch.remote_status} with {seen.completed} answers, but names no file of them"
    if seen.completed:
        return found, _given_up(found, ProviderError(why, kind=ProviderErrorKind.NOT_FOUND))
    if found.batch.remote_status == BATCH_COMPLETED and work.batch.collect_failures < _FILE_LOOKS:
        raise ProviderError(why, kind=ProviderErrorKind.TRANSIENT)
    return found, None


def _is_nameless(batch: BatchRecord) -> bool:
    """Whether a batch that worked names no file, or not the one of the answers that it counts."""
    return not batch.output_file_id and (batch.remote_completed > 0 or not batch.error_file_id)


def _asked(work: Collection) -> BatchRemoteRecord:
    """The batch as the provider has it; one that is not there at all is the key's fault, and says nothing of files."""
    try:
        return work.provider.get_batch(str(work.batch.provider_batch_id))
    except ProviderError as error:
        if error.kind is not ProviderErrorKind.NOT_FOUND:
            raise
        message = (
            f"batch {work.batch.provider_batch_id} has ended, but this API key cannot see it ({error.message}): use a "
            "key of the project it was submitted with; its answers stay to be collected"
        )
        raise ProviderError(message, kind=ProviderErrorKind.AUTH, status_code=error.status_code) from error


@contextmanager
def _downloaded(work: Collection, gone: list[str]) -> Generator[Fetched]:
    """The batch's files on local disk: below the artifact root where they are kept, else in a private directory."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="batchor-")))

        def fetch(file_id: str | None, key: str, name: str) -> Path | None:
            if file_id is None:
                return None
            try:
                if work.policies.artifact.persist_raw_output_artifacts:
                    made = work.artifacts.made_file(key, lambda path: work.provider.download_file_to(file_id, path))
                    return stack.enter_context(made)
                work.provider.download_file_to(file_id, folder / name)
            except ProviderError as error:
                if error.kind is not ProviderErrorKind.NOT_FOUND:
                    raise
                _asked(work)
                gone.append(_given_up(work, error))
                return None
            return folder / name

        output_key, error_key = raw_keys(work)
        # The small one first: while it is not there, the large one is not brought here at every try.
        error = fetch(work.batch.error_file_id, error_key, "error")
        output = fetch(work.batch.output_file_id, output_key, "output")
        yield Fetched(work, output, error, "; ".join(gone) or None)


def _given_up(work: Collection, error: ProviderError) -> str:
    """Why a file is gone for good; raises while it may still be had."""
    batch = work.batch
    failures = batch.collect_failures + 1
    if failures < _GONE_TRIES or work.host.clock < (batch.ended_at or batch.created_at) + _GONE_SEC:
        error.retry_after_sec = max(error.retry_after_sec or 0.0, delay_sec(failures, _GONE_PACE))
        raise error
    return error.message


def raw_keys(work: Collection) -> tuple[str, str]:
    remote_id = str(work.batch.provider_batch_id)
    return keys.output_key(work.run.run_id, remote_id), keys.error_key(work.run.run_id, remote_id)
