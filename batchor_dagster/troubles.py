"""What the provider refused, in the log of the step that met it: elsewhere only its class is kept."""

from __future__ import annotations

import logging
from collections.abc import Callable

from batchor_dagster.reports import LONGEST_ERROR, shortened
from batchor_engine import BatchRunner, RunEvent


def telling(runner: BatchRunner, log: logging.Logger) -> BatchRunner:
    """The runner, each of whose troubles is told in a log, too."""
    runner.host.observer = _Troubles(log, runner.host.observer)
    return runner


class _Troubles:
    """Tells each kind of trouble of a run once; a provider that is down would fill the log."""

    def __init__(self, log: logging.Logger, observer: Callable[[RunEvent], None] | None) -> None:
        self._log, self._observer = log, observer
        self._told: set[tuple[str, str, str]] = set()

    def __call__(self, event: RunEvent) -> None:
        kind = event.run_id, event.event_type, str(event.data.get("error_class"))
        if event.trouble and kind not in self._told:
            self._told.add(kind)
            self._log.warning(f"{event.run_id}: {shortened(event.trouble, LONGEST_ERROR)}")
        if self._observer is not None:
            self._observer(event)
