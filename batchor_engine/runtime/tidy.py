"""What is done once a run is over, by whoever saw it end.

Law: tidying removes nothing that a row points to, and keeps nothing of a finished run in memory.
"""

from __future__ import annotations

from batchor_engine.core.records import RunRecord
from batchor_engine.runtime.advance import read_run
from batchor_engine.runtime.hold import held, run_lease
from batchor_engine.runtime.host import Host
from batchor_engine.runtime.sweep import sweep


def tidy(host: Host, run: RunRecord) -> None:
    """Forget the source; sweep orphans and say that the run is finished, once. Nothing while it goes on."""
    if not run.is_finished:
        return
    host.forget(run)
    if run.tidied:
        return
    with held(host.store, run_lease(run.run_id)) as lease:
        if lease is None:
            return
        run = read_run(host, run.run_id)
        if run.tidied or not run.is_finished:
            return
        sweep(host, run)
        host.store.mark_tidied(run.pk, lease)
    host.emit(run, "run_finished", status=run.status.value)
