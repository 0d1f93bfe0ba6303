"""What a host that looks after many runs should start next.

Law: asking writes nothing. What is not due now is not asked for, so that a waiting run costs a host nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime

from batchor_engine.core.planner import Submit, plan
from batchor_engine.core.records import BatchRecord, RunRecord
from batchor_engine.core.summary import batch_info, summarize
from batchor_engine.models import RunInfo
from batchor_engine.runtime.advance import view_of
from batchor_engine.runtime.host import Host
from batchor_engine.runtime.submit import has_room
from batchor_engine.states import BatchState, RunControlState


def run_infos(host: Host, runs: list[RunRecord]) -> list[RunInfo]:
    """What is known and due of many runs; labels and batches are read for all of them at once."""
    pks = [run.pk for run in runs]
    labels = host.store.labels(pks)
    batches: dict[int, list[BatchRecord]] = {pk: [] for pk in pks}
    for batch in host.store.batches(run_pks=pks):
        batches[batch.run_pk].append(batch)
    return [_run_info(host, run, labels[run.pk], batches[run.pk]) for run in runs]


def _run_info(host: Host, run: RunRecord, labels: dict[str, str], batches: list[BatchRecord]) -> RunInfo:
    return RunInfo(
        run_id=run.run_id,
        labels=labels,
        created_at=datetime.fromtimestamp(run.created_at, UTC),
        revision=run.revision,
        summary=summarize(run, host.clock),
        due=frozenset(_due(host, run, batches)),
        batches=[batch_info(batch) for batch in batches],
        reading_finished=run.ingest.finished,
    )


def _due(host: Host, run: RunRecord, batches: list[BatchRecord]) -> set[str]:
    due: set[str] = set()
    now = host.clock
    if any(batch.state is BatchState.ENDED and batch.collect_after <= now for batch in batches):
        due.add("collect")
    actions = plan(view_of(host, run, batches), now)
    if any(not isinstance(action, Submit) for action in actions) or (actions and has_room(host, run)):
        due.add("advance")
    return set() if run.control is RunControlState.PAUSED else due
