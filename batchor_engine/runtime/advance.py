"""One step of a run's submission side, under its lease.

Law: one owner at a time; whoever finds the run busy does nothing. A paused run is left alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from batchor_engine.core.records import Lease, RunRecord
from batchor_engine.errors import UnknownRunError
from batchor_engine.job import BatchJob
from batchor_engine.runtime.cancel import advance_cancel
from batchor_engine.runtime.hold import held
from batchor_engine.runtime.host import Host
from batchor_engine.runtime.ingest import Ingestion
from batchor_engine.runtime.poll import poll
from batchor_engine.runtime.recover import recover
from batchor_engine.runtime.submit import submission, submit_ready
from batchor_engine.states import BATCH_UNSETTLED, ItemStatus, RunControlState

Stop = Callable[[], bool]
# A part is sealed after this long even when it is small, so that a slow source loses little to a crash.
SLICE_SEC = 30.0
# During a long ingestion active batches are looked at this often, so that capacity frees up.
_POLL_EVERY_SEC = 30.0


def read_run(host: Host, run_id: str) -> RunRecord:
    """The run as stored; UnknownRunError where there is none."""
    run = host.store.run(run_id)
    if run is None:
        raise UnknownRunError(run_id, host.store.location)
    return run


def run_lease(run_id: str) -> str:
    return f"run:{run_id}"


def advance(host: Host, run_id: str, stop: Stop) -> bool:
    """Recover, ingest, submit as far as capacity, back-off and control allow; False when another worker does."""
    if not has_work(host, read_run(host, run_id)):
        return True
    with held(host.store, run_lease(run_id)) as lease:
        if lease is None:
            return False
        advance_held(host, run_id, lease, stop)
        return True


def has_work(host: Host, run: RunRecord) -> bool:
    """Whether the submission side of a run has anything to do now; a run that waits for answers costs nothing."""
    if run.is_finished or run.control is RunControlState.PAUSED:
        return False
    if run.control is RunControlState.CANCEL_REQUESTED or not run.ingest.finished:
        return True
    if run.backoff.until > host.clock:
        return False
    if run.counts[ItemStatus.PENDING] or run.counts[ItemStatus.QUEUED_LOCAL]:
        return True
    if not run.counts[ItemStatus.FAILED_RETRYABLE]:
        return False
    first = host.store.next_retry_at(run.pk)
    return first is not None and first <= host.clock


def advance_held(host: Host, run_id: str, lease: Lease, stop: Stop) -> None:
    """advance() for a caller that has the lease."""
    run = read_run(host, run_id)
    if run.is_finished or run.control is RunControlState.PAUSED:
        return
    if run.control is RunControlState.CANCEL_REQUESTED:
        advance_cancel(host, run, lease)
        return
    work = submission(host, run, lease)
    if host.store.batches(run_pk=run.pk, states=BATCH_UNSETTLED):
        recover(work)
    if run.counts[ItemStatus.FAILED_RETRYABLE]:
        host.store.reopen_due(run.pk, lease)
    job = host.job_of(run_id)
    if job is not None and not run.ingest.finished:
        _ingest(host, run, lease, job, stop)
    submit_ready(submission(host, read_run(host, run_id), lease), partial=True, stop=stop)


def _ingest(host: Host, run: RunRecord, lease: Lease, job: BatchJob[Any, Any], stop: Stop) -> None:
    """Seal parts and send full batches in turn, until the source ends or something says stop."""
    ingestion = Ingestion(host, run, lease, job, host.provider_of(run))
    polled = host.clock
    more = True
    while more and not stop() and _still_runs(host, run.run_id):
        began = host.clock
        more = ingestion.step(lambda began=began: stop() or host.clock - began > SLICE_SEC)
        if more:
            submit_ready(submission(host, run, lease), partial=False, stop=stop)
        if more and host.clock - polled > _POLL_EVERY_SEC:
            poll(host, run_pk=run.pk, stop=stop)
            polled = host.clock
    if ingestion.finished:
        host.emit(run, "ingestion_finished", total_items=read_run(host, run.run_id).total_items)


def _still_runs(host: Host, run_id: str) -> bool:
    return read_run(host, run_id).control is RunControlState.RUNNING
