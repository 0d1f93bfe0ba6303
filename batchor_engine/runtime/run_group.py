"""One group of a run's rows, read as if it were a run of its own.

Law: reads are limited to the group; control (pause, cancel, retry) and what concerns files (batches, export_artifacts,
prune_artifacts) are the whole run's, which has only one life and shares its files among the groups.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from batchor_engine.core.costs import Cost
from batchor_engine.core.summary import summarize
from batchor_engine.models import RunSummary, RunTally, RunUsage
from batchor_engine.runtime.costs import cost_of_rows, group_usages
from batchor_engine.runtime.run import Run
from batchor_engine.states import ItemStatus, RunLifecycleStatus

if TYPE_CHECKING:
    from batchor_engine.runtime.runner import BatchRunner


class RunGroup(Run):
    """The rows of one group, with the ids and the metadata that they have in it."""

    def __init__(self, *, runner: BatchRunner, run_id: str, whole: RunSummary, group: int, tally: RunTally) -> None:
        super().__init__(runner=runner, run_id=run_id, summary=_counts_of(whole, tally))
        self.number = self._of_group = group
        self._tally = tally

    def __repr__(self) -> str:
        return f"RunGroup({self.run_id!r}, {self.number}, {self.status.value})"

    def summary(self) -> RunSummary:
        """The run's summary with the counts of the group; costs a pass over the run's rows in the database."""
        whole = summarize(self._record(), self._runner.host.clock)
        self._tally = super().tallies().get(self.number, RunTally())
        self._summary = _counts_of(whole, self._tally)
        return self._summary

    def tallies(self) -> dict[int, RunTally]:
        """The group's own tally, as of the last summary()."""
        return {self.number: self._tally}

    def usage(self) -> RunUsage:
        return sum(group_usages(self._runner.host, self._record(), self.number), RunUsage())

    def cost(self) -> Cost:
        host, run = self._runner.host, self._record()
        return cost_of_rows(host, run, group_usages(host, run, self.number))


def _counts_of(whole: RunSummary, tally: RunTally) -> RunSummary:
    """The group has ended when its run has; it completed without failures if none of its own rows failed."""
    status = whole.status
    if status is not RunLifecycleStatus.RUNNING:
        status = RunLifecycleStatus.COMPLETED_WITH_FAILURES if tally.failed else RunLifecycleStatus.COMPLETED
    ended = {ItemStatus.COMPLETED: tally.completed, ItemStatus.FAILED_PERMANENT: tally.failed}
    return replace(
        whole,
        status=status,
        total_items=tally.rows,
        completed_items=tally.completed,
        failed_items=tally.failed,
        # A tally tells ended rows apart and no others.
        status_counts={status: count for status, count in ended.items() if count},
    )
