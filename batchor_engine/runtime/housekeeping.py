"""Listing the runs of a store, and deleting one.

Law: a deletion is marked first, then the files go, then all rows in one transaction. So a crash leaves a run that says
"deleting", still knows where its files are, and goes with the next call; never files that nobody knows of. Files are
removed by the owner of their run alone, while its row is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from batchor_engine.artifacts import keys
from batchor_engine.core.records import BatchRecord, Lease, RunRecord
from batchor_engine.core.remote_files import RemoteCleanup, disposable
from batchor_engine.core.summary import summarize
from batchor_engine.core.text import counted
from batchor_engine.errors import ApiKeyMissingError, BatchorError, ProviderError, RunBusyError
from batchor_engine.models import RunSummary
from batchor_engine.runtime.advance import read_run
from batchor_engine.runtime.hold import LEASE_SEC, held, owned
from batchor_engine.runtime.host import Host
from batchor_engine.runtime.manifest import files_of, run_keys
from batchor_engine.runtime.recover import settle_for_cancel
from batchor_engine.runtime.remote_cleanup import provider_for
from batchor_engine.runtime.signature import sharers, withdraw
from batchor_engine.runtime.submit import submission
from batchor_engine.states import BATCH_LIVE, BatchState, RunControlState, RunLifecycleStatus

RunFilter = RunLifecycleStatus | RunControlState | str

_PAGE = 500
# The provider may have this batch, so forgetting it may leave something running that costs money.
_MAYBE_AWAY = frozenset({BatchState.UPLOADED, BatchState.SUBMITTED, BatchState.INDETERMINATE})


class RunHasLiveBatchesError(BatchorError, RuntimeError):
    """The run has batches that are not over."""

    run_id: str
    live_batches: int

    def __init__(self, run_id: str, live_batches: int) -> None:
        super().__init__(
            f"Run {run_id!r} has {counted(live_batches, 'batch')} whose answers are paid or will be, so it was not "
            "deleted: cancel the run and wait for its end, then delete it. Or delete it with force: its batches are "
            "cancelled at the provider and their answers are given up.",
            run_id=run_id,
            live_batches=live_batches,
        )


@dataclass(frozen=True)
class RunListing:
    """One run of a list: what it is called, when it began (aware UTC), and how far it is."""

    run_id: str
    created_at: datetime
    labels: dict[str, str]
    summary: RunSummary


@dataclass(frozen=True)
class RunPage:
    """Some runs, newest first; `next_before` goes on where they end, None when there are no more."""

    runs: tuple[RunListing, ...]
    next_before: int | None


@dataclass(frozen=True)
class DeletedRun:
    """What went with a run; `left_batches` may still be alive at the provider and are known to nobody now."""

    run_id: str
    removed_files: int
    removed_remote_files: int
    left_batches: tuple[str, ...] = ()


def list_runs(
    host: Host,
    *,
    status: RunFilter | None = None,
    labels: Mapping[str, str] | None = None,
    limit: int = 100,
    before: int | None = None,
) -> RunPage:
    """Runs newest first, older than the cursor `before`, with these labels, in one lifecycle or control state.

    As a string, "running" means every run that is not over; "paused" leaves out runs that ended while paused.
    """
    if limit < 1:
        raise ValueError(f"limit must be at least 1, but is {limit}")
    wanted = None if status is None else _filter(status)
    found: list[RunRecord] = []
    cursor = before
    for run in _runs(host, labels, before):
        if len(found) == limit:
            return RunPage(_listed(host, found), cursor)
        cursor = run.pk
        if wanted is None or _matches(run, wanted):
            found.append(run)
    return RunPage(_listed(host, found), None)


def _filter(status: RunFilter) -> RunLifecycleStatus | RunControlState:
    if isinstance(status, RunLifecycleStatus | RunControlState):
        return status
    for kind in (RunLifecycleStatus, RunControlState):
        with suppress(ValueError):
            return kind(status)
    known = sorted({*RunLifecycleStatus, *RunControlState})
    raise ValueError(f"no run has the status {status!r}; known: {', '.join(known)}")


def _matches(run: RunRecord, wanted: RunLifecycleStatus | RunControlState) -> bool:
    if isinstance(wanted, RunLifecycleStatus):
        return run.status is wanted
    return run.control is wanted and (wanted is RunControlState.CANCEL_REQUESTED or not run.is_finished)


def _runs(host: Host, labels: Mapping[str, str] | None, before: int | None) -> Iterator[RunRecord]:
    while page := host.store.runs(labels=labels, before=before, limit=_PAGE):
        yield from page
        before = page[-1].pk


def _listed(host: Host, runs: list[RunRecord]) -> tuple[RunListing, ...]:
    labels = host.store.labels([run.pk for run in runs])
    now = host.clock
    return tuple(
        RunListing(run.run_id, datetime.fromtimestamp(run.created_at, UTC), labels.get(run.pk, {}), summarize(run, now))
        for run in runs
    )


def delete_run(host: Host, run_id: str, *, force: bool = False, remote: bool = False) -> DeletedRun:
    """Forget a run: its rows, its files here, its budget, and with `remote` its files at the provider.

    RunHasLiveBatchesError while batches are alive, unless they were all asked to cancel or `force` asks now.
    UnknownRunError once it is gone; RunBusyError while another worker has it. Errors come before the first loss.
    """
    with ExitStack() as stack:
        lease = stack.enter_context(owned(host.store, read_run(host, run_id).run_id))
        run = read_run(host, run_id)
        live = host.store.batches(run_pk=run.pk, states=BATCH_LIVE)
        _check_may_go(run, live, force)
        _hold(host, run, live, stack)
        left = _stop(host, run, lease) if live else ()
        remote_files = _delete_remote(host, run) if remote else 0
        host.store.begin_delete(run_id, lease)
        host.reached("delete.marked")
        files = delete_files(host, run)
        host.reached("delete.files_removed")
        host.store.delete_run(run_id, lease)
    host.forget(run)
    host.emit(run, "run_deleted", removed_file_count=files, removed_remote_file_count=remote_files)
    return DeletedRun(run_id, files, remote_files, left)


def take_back(host: Host, run_id: str, lease: Lease) -> None:
    """Forget a run that has no rows, and its files; LeaseLostError where another worker has taken it over."""
    host.store.renew(lease, LEASE_SEC)
    run = read_run(host, run_id)
    if not run.is_empty:
        return
    # While the number is still its own: the store may give it to the very next run, with files of its own.
    delete_files(host, run)
    if host.store.discard_empty_run(run_id, lease):
        host.forget(run)


def leave_place(host: Host, run: RunRecord | None, next_root: str, lease: Lease) -> None:
    """Remove, as well as can be, what a run without rows has at its place where it is begun anew at another one."""
    # A store that was given stands for every place, so that the old one cannot be seen.
    if run is None or run.artifact_root == next_root or host.given_artifacts is not None:
        return
    # The new place may be chosen because the old one, or the library for it, is away.
    with suppress(BatchorError, OSError, ImportError):
        host.store.renew(lease, LEASE_SEC)
        delete_files(host, run)


def _check_may_go(run: RunRecord, live: list[BatchRecord], force: bool) -> None:
    """Nothing may stay at the provider that costs money and that nobody has asked to stop."""
    stopping = run.control is RunControlState.CANCEL_REQUESTED and all(_is_stopping(batch) for batch in live)
    if live and not force and not stopping:
        raise RunHasLiveBatchesError(run.run_id, len(live))


def _is_stopping(batch: BatchRecord) -> bool:
    return batch.cancel_asked_at is not None or batch.state not in _MAYBE_AWAY


def _hold(host: Host, run: RunRecord, live: list[BatchRecord], stack: ExitStack) -> None:
    """Nobody may be collecting, because what they write would be left behind."""
    for batch in live:
        if batch.state is BatchState.ENDED and stack.enter_context(held(host.store, f"batch:{batch.pk}")) is None:
            raise RunBusyError(run.run_id)


def _stop(host: Host, run: RunRecord, lease: Lease) -> tuple[str, ...]:
    """Settle what is uncertain and ask the provider to cancel the rest; what may be alive after that, by id."""
    work = submission(host, run, lease)
    settle_for_cancel(work)
    left: list[str] = []
    for batch in host.store.batches(run_pk=run.pk, states=_MAYBE_AWAY):
        try:
            if batch.provider_batch_id is None:
                left.append(batch.intent_id)
            elif batch.cancel_asked_at is None:
                work.provider.cancel_batch(batch.provider_batch_id)
        except (ProviderError, ApiKeyMissingError):
            left.append(str(batch.provider_batch_id))
    return tuple(left)


def _delete_remote(host: Host, run: RunRecord) -> int:
    batches = host.store.batches(run_pk=run.pk)
    files = [file_id for batch in batches for file_id in disposable(batch, RemoteCleanup.ALL).values()]
    if files:
        provider = provider_for(host, run, [batch for batch in batches if disposable(batch, RemoteCleanup.ALL)])
        for file_id in files:
            provider.delete_file(file_id)
    return len(files)


def delete_files(host: Host, run: RunRecord) -> int:
    """Every file the run points to, and what a kill left of it; an export that a user put beside them stays.

    Where another store has files there, only what the run points to is surely its own.
    """
    artifacts = host.artifacts(run)
    removed = sum(artifacts.remove(key) for key in files_of(host.store, run).all)
    if not sharers(host, run):
        removed += sum(artifacts.delete(key) for key in list(run_keys(artifacts, run.run_id)))
        for prefix in (keys.requests_prefix, keys.outputs_prefix, keys.results_prefix):
            removed += artifacts.sweep_unfinished(prefix(run.run_id), older_than_sec=0.0)
    withdraw(host, run)
    return removed
