"""Deleting a run's files at the provider once their answers are safe here.

Law: what is still needed stays. A file is deleted before the batch forgets its id, so a crash in between asks again.
"""

from __future__ import annotations

from batchor_engine.core.records import BatchRecord, RunRecord
from batchor_engine.core.remote_files import RemoteCleanup, disposable
from batchor_engine.errors import OtherAccountError
from batchor_engine.ports.providers import BatchProvider
from batchor_engine.runtime.hold import held
from batchor_engine.runtime.host import Host


def clean_remote(host: Host, run: RunRecord, policy: RemoteCleanup = RemoteCleanup.ALL) -> int:
    """Delete remote files of batches that are over; how many. ProviderError stops it, and the next call goes on.

    ApiKeyMissingError comes before anything is deleted; OtherAccountError after everything of this process's account,
    and names one that has files left.
    """
    doomed = [batch for batch in host.store.batches(run_pk=run.pk) if disposable(batch, policy)]
    if not doomed:
        return 0
    provider = host.provider_of(run)
    provider.check_ready()
    own = provider.account_label
    deleted = sum(_clean(host, provider, batch, policy) for batch in doomed if batch.account == own)
    for batch in doomed:
        if batch.account != own:
            raise OtherAccountError(run.run_id, batch.account, own)
    return deleted


def provider_for(host: Host, run: RunRecord, batches: list[BatchRecord]) -> BatchProvider:
    """The run's provider, with a key and of the account of all these batches; raises where it is not."""
    provider = host.provider_of(run)
    provider.check_ready()
    for batch in batches:
        if batch.account != provider.account_label:
            raise OtherAccountError(run.run_id, batch.account, provider.account_label)
    return provider


def _clean(host: Host, provider: BatchProvider, batch: BatchRecord, policy: RemoteCleanup) -> int:
    with held(host.store, f"batch:{batch.pk}") as lease:
        if lease is None:
            return 0
        files = disposable(batch, policy)
        for file_id in files.values():
            provider.delete_file(file_id)
            host.reached("clean_remote.deleted")
        host.store.note_batch(batch, lease, **dict.fromkeys(files))
    return len(files)
