"""One cycle of a run's submission side, under its lease: see, plan, perform.

Law: one owner at a time; whoever finds the run busy, or loses it, does nothing more. A paused run is left alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import assert_never

from batchor_engine.core.planner import (
    Action,
    AskCancel,
    FinishCancel,
    Ingest,
    Recover,
    ReopenRows,
    RunView,
    Submit,
    TakeBack,
    plan,
)
from batchor_engine.core.records import BatchRecord, Lease, RunRecord
from batchor_engine.errors import LeaseLostError, UnknownRunError
from batchor_engine.runtime.cancel import ask_provider, finish_cancel
from batchor_engine.runtime.garbage import seldom_collected
from batchor_engine.runtime.hold import held, run_lease
from batchor_engine.runtime.host import Host
from batchor_engine.runtime.ingest import Ingestion
from batchor_engine.runtime.outbox import Outbox, submit_ready
from batchor_engine.runtime.poll import poll
from batchor_engine.runtime.recover import recover, settle_for_cancel
from batchor_engine.runtime.submit import submission
from batchor_engine.states import BATCH_UNSETTLED, BatchState, ItemStatus, RunControlState

log = logging.getLogger("batchor_engine")

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


def view_of(host: Host, run: RunRecord, batches: list[BatchRecord]) -> RunView:
    """What planning needs to see of a run and its batches."""
    waiting = run.counts[ItemStatus.FAILED_RETRYABLE]
    return RunView(
        run=run,
        unsettled=tuple(batch for batch in batches if batch.state in BATCH_UNSETTLED),
        submitted=tuple(batch for batch in batches if batch.state is BatchState.SUBMITTED),
        has_source=host.job_of(run) is not None,
        next_retry_at=host.store.next_retry_at(run.pk) if waiting else None,
    )


def planned(host: Host, run: RunRecord) -> tuple[Action, ...]:
    """What advance() would do now; a few indexed reads, whatever the size of the run."""
    return plan(view_of(host, run, _to_plan(host, run)), host.clock)


def _to_plan(host: Host, run: RunRecord) -> list[BatchRecord]:
    """The batches that planning needs to see: those that are away are named by a cancel alone."""
    if run.control is RunControlState.CANCEL_REQUESTED:
        return host.store.batches(run_pk=run.pk, states={*BATCH_UNSETTLED, BatchState.SUBMITTED})
    return host.store.batches(run_pk=run.pk, states=BATCH_UNSETTLED) if run.unsent_batches else []


def advance(host: Host, run: RunRecord, stop: Stop) -> RunRecord:
    """Recover, ingest, submit as far as capacity, back-off and control allow, unless another worker does.

    `run` is as just read; what comes back is as it stands then, without another read where there was nothing to do.
    """
    if not planned(host, run):
        return run
    with held(host.store, run_lease(run.run_id)) as lease:
        if lease is not None:
            advance_held(host, run.run_id, lease, stop)
    return read_run(host, run.run_id)


def advance_held(host: Host, run_id: str, lease: Lease, stop: Stop) -> None:
    """advance() for a caller that has the lease; one that is taken over on the way stops."""
    try:
        for action in planned(host, read_run(host, run_id)):
            _perform(host, run_id, lease, action, stop)
    except LeaseLostError:
        log.warning("another worker took over run=%s; this one stops", run_id)


def _perform(host: Host, run_id: str, lease: Lease, action: Action, stop: Stop) -> None:
    run = read_run(host, run_id)
    match action:
        case Recover():
            recover(submission(host, run, lease))
        case ReopenRows():
            host.store.reopen_due(run.pk, lease)
        case Ingest():
            _ingest(host, run, lease, stop)
        case Submit():
            submit_ready(submission(host, run, lease), partial=True, stop=stop)
        case TakeBack():
            settle_for_cancel(submission(host, run, lease))
        case AskCancel(batch):
            ask_provider(host, run, lease, batch)
        case FinishCancel():
            finish_cancel(host, run, lease)
        case _:
            assert_never(action)


def _ingest(host: Host, run: RunRecord, lease: Lease, stop: Stop) -> None:
    """Seal parts and send full batches in turn, until the source ends or something says stop."""
    if (job := host.job_of(run)) is None:
        # Taken over and begun anew by another worker since this cycle was planned.
        raise LeaseLostError(lease.resource)
    ingestion = Ingestion.of(host, run, lease, job, host.provider_of(run))
    work = submission(host, run, lease)
    polled, more = host.clock, True
    with Outbox(host) as outbox, seldom_collected():
        try:
            while more and not stop() and read_run(host, run.run_id).control is RunControlState.RUNNING:
                began = host.clock
                more = ingestion.step(lambda began=began: stop() or host.clock - began > SLICE_SEC)
                outbox.tend(work)
                if more:
                    outbox.fill(work, partial=False, stop=stop)
                if more and host.clock - polled > _POLL_EVERY_SEC:
                    poll(host, run=read_run(host, run.run_id), stop=stop)
                    polled = host.clock
        except Exception:
            # A source or a prompt that fails says nothing against the batches that are on their way.
            outbox.finish(work)
            raise
        finally:
            ingestion.keep()
        if ingestion.finished:
            outbox.fill(work, partial=True, stop=stop)
        outbox.finish(work)
    if ingestion.finished:
        host.emit(run, "ingestion_finished", total_items=read_run(host, run.run_id).total_items)
