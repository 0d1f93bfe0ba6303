"""What came of the rows of a finished run, as plain numbers: the one input of what is said and checked about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from batchor_engine import Cost, Run, RunUsage


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Counts of a run, or of one partition of it; `failures` are rows by error class, `usage` are billed tokens."""

    rows: int
    completed: int
    failed: int
    attempts: int
    failures: Mapping[str, int]
    usage: RunUsage
    cost: Cost

    @property
    def missing(self) -> int:
        """Rows without any end: neither an answer nor a reason."""
        return self.rows - self.completed - self.failed

    def share_of(self, classes: frozenset[str]) -> float:
        """The rows that failed for one of these reasons, as a share of all rows; 0 without rows."""
        count = sum(rows for name, rows in self.failures.items() if name in classes)
        return count / self.rows if self.rows else 0.0


def facts_of(run: Run) -> Facts:
    """The facts of a run, or of one group of its rows; of a whole run nothing is read row by row."""
    summary = run.summary()
    return Facts(
        rows=summary.total_items,
        completed=summary.completed_items,
        failed=summary.failed_items,
        attempts=run.attempts(),
        failures=run.failure_counts(),
        usage=run.usage(),
        cost=run.cost(),
    )
