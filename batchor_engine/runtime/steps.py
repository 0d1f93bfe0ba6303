"""Cycles of a run: one round of refresh, and the thin loop around it.

Law: the loop sleeps only when a round changed nothing, and never past its deadline.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from batchor_engine.core.polling import cadence_sec
from batchor_engine.core.records import RunRecord
from batchor_engine.core.remote_files import RemoteCleanup
from batchor_engine.errors import (
    OtherAccountError,
    ProviderError,
    RunIngestionSourceRequiredError,
    RunPausedError,
    RunSubmissionIndeterminateError,
)
from batchor_engine.runtime.advance import advance, read_run
from batchor_engine.runtime.collect import collect_ended
from batchor_engine.runtime.hold import held, run_lease
from batchor_engine.runtime.host import Host
from batchor_engine.runtime.poll import poll
from batchor_engine.runtime.remote_cleanup import clean_remote
from batchor_engine.runtime.tidy import tidy
from batchor_engine.states import BatchState, ItemStatus, RunControlState

log = logging.getLogger("batchor_engine")

Stop = Callable[[], bool]


def stop_after(host: Host, seconds: float | None) -> Stop:
    """True once `seconds` have passed on the host's clock; never without a limit."""
    if seconds is None:
        return lambda: False
    end = host.clock + seconds
    return lambda: host.clock >= end


def refresh(host: Host, run_id: str, seconds: float | None = None) -> RunRecord:
    """Poll, collect, advance; nothing while paused or after the end. The run as it stands then."""
    stop = stop_after(host, seconds)
    run = read_run(host, run_id)
    if not run.is_finished and run.control is not RunControlState.PAUSED:
        poll(host, run=run, stop=stop)
        _collect(host, run, stop)
        run = advance(host, read_run(host, run_id), stop)
    tidy(host, run)
    return run


def _collect(host: Host, run: RunRecord, stop: Stop) -> None:
    """Collect what ended; then let go of remote files as the runner's policy says, as well as can be."""
    if collect_ended(host, run, stop=stop) and host.remote_cleanup is not RemoteCleanup.NONE:
        try:
            clean_remote(host, run, host.remote_cleanup)
        except ProviderError:
            pass  # the next collection goes on
        except OtherAccountError as error:
            log.warning("remote files of run=%s are left at account %s: %s", run.run_id, error.account, error.message)


def advance_only(host: Host, run_id: str, seconds: float | None = None) -> None:
    tidy(host, advance(host, read_run(host, run_id), stop_after(host, seconds)))


def collect_only(host: Host, run_id: str) -> None:
    """Poll and collect, whatever the control state; a cancelled run is brought to its end if nothing is alive."""
    run = read_run(host, run_id)
    if not run.is_finished:
        poll(host, run=run, paused_too=True)
        _collect(host, run, lambda: False)
        run = read_run(host, run_id)
    if run.control is RunControlState.CANCEL_REQUESTED:
        run = advance(host, run, lambda: False)
    tidy(host, run)


def wait(host: Host, run_id: str, timeout: float | None, poll_interval: float | None) -> None:
    """refresh() until the run is over."""
    stop = stop_after(host, timeout)
    end = None if timeout is None else host.clock + timeout
    while True:
        before = read_run(host, run_id)
        if before.is_finished:
            tidy(host, before)
            return
        _check_can_go_on(host, before)
        after = refresh(host, run_id, None if end is None else max(0.0, end - host.clock))
        if after.is_finished:
            return
        if stop():
            raise TimeoutError(f"run {run_id!r} is not finished after {timeout} s; it goes on when you wait again")
        if _progress(before) == _progress(after):
            pause = _cadence(host, after) if poll_interval is None else poll_interval
            host.sleep(pause if end is None else max(0.0, min(pause, end - host.clock)))


def _cadence(host: Host, run: RunRecord) -> float:
    away = host.store.batches(run_pk=run.pk, states={BatchState.SUBMITTED})
    ages = [host.clock - (batch.submitted_at or host.clock) for batch in away]
    return cadence_sec(host.config_of(run).poll_interval_sec, min(ages, default=None))


def _progress(run: RunRecord) -> tuple[object, ...]:
    return run.counts, run.live_batches, run.last_sequence, run.ingest.next_index, run.control


def _check_can_go_on(host: Host, run: RunRecord) -> None:
    """Say why nothing more can happen here, instead of waiting for ever."""
    if run.control is RunControlState.PAUSED:
        raise RunPausedError(run.run_id, run.control_reason)
    _check_account(host, run)
    stuck = host.store.batches(run_pk=run.pk, states={BatchState.INDETERMINATE})
    if stuck and run.live_batches == len(stuck) and not _to_send(run):
        raise RunSubmissionIndeterminateError(run.run_id, stuck[0].intent_id)
    if run.control is RunControlState.CANCEL_REQUESTED:
        return
    idle = not run.live_batches and not _to_send(run)
    if not run.ingest.finished and host.job_of(run) is None and idle and not _is_busy(host, run):
        raise RunIngestionSourceRequiredError(run.run_id)


def _is_busy(host: Host, run: RunRecord) -> bool:
    """Whether another worker, who may have the source, is at work on the run."""
    with held(host.store, run_lease(run.run_id)) as lease:
        return lease is None


def _check_account(host: Host, run: RunRecord) -> None:
    """Batches of another account can be neither seen nor collected from here, so waiting would never end."""
    own = host.provider_of(run).account_label
    seen_there = {BatchState.SUBMITTED, BatchState.ENDED}
    found = host.store.batches(run_pk=run.pk, states={*seen_there, BatchState.UPLOADED})
    # Whether a create that was begun has made a batch only its own account can tell.
    away = [batch for batch in found if batch.state in seen_there or batch.create_at is not None]
    if away and all(batch.account != own for batch in away) and not _to_send(run):
        raise OtherAccountError(run.run_id, away[0].account, own)


def _to_send(run: RunRecord) -> int:
    """Rows that are yet to be sent; a cancelled run sends none."""
    if run.control is RunControlState.CANCEL_REQUESTED:
        return 0
    return run.counts[ItemStatus.PENDING] + run.counts[ItemStatus.FAILED_RETRYABLE]
