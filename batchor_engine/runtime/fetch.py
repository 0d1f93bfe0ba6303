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
from batchor_engine.core.polling import observation
from batchor_engine.core.records import BatchRecord, Lease, RunRecord
from batchor_engine.core.settle import BATCH_COMPLETED
from batchor_engine.errors import ProviderError, ProviderErrorKind
from batchor_engine.models import Form
from batchor_engine.ports.artifacts import ArtifactStore
from batchor_engine.ports.providers import BatchProvider
from batchor_engine.runtime.host import Host, RunPolicies

# Tries before files that are not there count as lost (404), or as never written (completed without any file).
FILE_TRIES = 5


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
    """A collection with its files on local disk."""

    work: Collection
    output: Path | None
    error: Path | None


@contextmanager
def fetched(work: Collection) -> Generator[Fetched]:
    """The batch's files while the context is open."""
    work = _named_files(work)
    with _downloaded(work) as (output, error):
        yield Fetched(work, output, error)


def _named_files(work: Collection) -> Collection:
    """The collection with the names of its files, which a completed batch must have."""
    batch = work.batch
    if batch.remote_status == BATCH_COMPLETED and not (batch.output_file_id or batch.error_file_id):
        return _look_again(work)
    return work


def _look_again(work: Collection) -> Collection:
    """A completed batch without any file may get its files a moment later: ask before its rows count as missing."""
    seen = observation(work.batch, work.provider.get_batch(str(work.batch.provider_batch_id)))
    found = replace(work.batch, output_file_id=seen.output_file_id, error_file_id=seen.error_file_id)
    if not (seen.output_file_id or seen.error_file_id) and work.batch.collect_failures < FILE_TRIES:
        raise ProviderError("the batch completed, but names no file yet", kind=ProviderErrorKind.TRANSIENT)
    return replace(work, batch=found)


@contextmanager
def _downloaded(work: Collection) -> Generator[tuple[Path | None, Path | None]]:
    """The batch's files on local disk: below the artifact root where they are kept, else in a private directory."""
    batch = work.batch
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="batchor-")))

        def fetch(file_id: str | None, key: str, name: str) -> Path | None:
            if file_id is None:
                return None
            if not work.policies.artifact.persist_raw_output_artifacts:
                work.provider.download_file_to(file_id, folder / name)
                return folder / name
            return stack.enter_context(
                work.artifacts.made_file(key, lambda path: work.provider.download_file_to(file_id, path))
            )

        output_key, error_key = raw_keys(work)
        yield fetch(batch.output_file_id, output_key, "output"), fetch(batch.error_file_id, error_key, "error")


def raw_keys(work: Collection) -> tuple[str, str]:
    remote_id = str(work.batch.provider_batch_id)
    return keys.output_key(work.run.run_id, remote_id), keys.error_key(work.run.run_id, remote_id)
