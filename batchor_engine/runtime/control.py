"""Pause, resume, cancel: wishes that anyone may write, at any time, without a key.

Law: an error means that nothing changed. A cancel is final.
"""

from __future__ import annotations

from batchor_engine.runtime.advance import advance, read_run
from batchor_engine.runtime.host import Host
from batchor_engine.states import RunControlState


def pause(host: Host, run_id: str) -> None:
    before = read_run(host, run_id)
    after = host.store.set_control(run_id, RunControlState.PAUSED, reason="manual")
    if after.control is RunControlState.PAUSED and before.control is not after.control:
        host.emit(after, "run_paused", control_reason="manual")


def resume(host: Host, run_id: str) -> None:
    """ValueError for a cancelled run; a run that is over or running stays as it is."""
    before = read_run(host, run_id)
    if before.control is RunControlState.CANCEL_REQUESTED:
        raise ValueError(f"Run {run_id!r} is cancelled and cannot be resumed: start a new run_id for the rows.")
    after = host.store.set_control(run_id, RunControlState.RUNNING, reason=None)
    if after.control is RunControlState.RUNNING and before.control is not after.control:
        host.emit(after, "run_control_resumed")


def cancel(host: Host, run_id: str, *, drain: bool = False) -> None:
    """Record the wish, then take the first step; the rest happens with every refresh until nothing is alive."""
    before = read_run(host, run_id)
    after = host.store.set_control(run_id, RunControlState.CANCEL_REQUESTED, reason="manual", drain=drain)
    if after.control is RunControlState.CANCEL_REQUESTED and before.control is not after.control:
        host.emit(after, "run_cancel_requested")
    if not after.is_finished:
        advance(host, run_id, lambda: False)
