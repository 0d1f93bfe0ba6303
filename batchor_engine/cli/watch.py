"""How far a run is, shown to people while it goes on.

Law: only stderr is touched; on a terminal one line moves, elsewhere a line is written now and then.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from batchor_engine.cli.streams import note
from batchor_engine.core.summary import sentence
from batchor_engine.errors import StoreError, UnknownRunError
from batchor_engine.events import RunEvent, Troubles
from batchor_engine.runtime.run import Run
from batchor_engine.runtime.runner import BatchRunner

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_MOVING_SEC = 0.25
_LINES_SEC = 10.0


class Watch:
    """An observer of one run's events; give it to the runner, and show the run with over()."""

    def __init__(self) -> None:
        self._shown: tuple[BatchRunner, str] | None = None
        self._bar: tuple[Progress, TaskID] | None = None
        self._next = 0.0
        self._last = ""
        self._troubles = Troubles(note)
        self._failures: tuple[int, dict[str, int]] = 0, {}

    def __call__(self, event: RunEvent) -> None:
        if self._shown is None or event.run_id != self._shown[1]:
            return
        if event.event_type == "run_busy":
            note(f"{event.run_id}: another process is reading and submitting its rows, so this one only looks on")
        self._troubles(event)
        if time.monotonic() >= self._next:
            try:
                self._show()
            except StoreError:
                # A store that is away is the command's to tell, not each event's to wait for.
                self._rest()

    @contextmanager
    def over(self, runner: BatchRunner, run_id: str) -> Generator[None]:
        """Show how far a run is from here to the end of the context, which ends with one more line."""
        self._shown = runner, run_id
        try:
            if sys.stderr.isatty():
                with _progress() as progress:
                    self._bar = progress, progress.add_task(run_id, total=None)
                    self._show()
                    yield
            else:
                self._show()
                yield
            self._bar = None
            self._show()
        finally:
            self._shown = self._bar = None

    def _rest(self) -> None:
        self._next = time.monotonic() + (_LINES_SEC if self._bar is None else _MOVING_SEC)

    def _show(self) -> None:
        run = self._run()
        if run is None:
            return
        summary = run.summary()
        if not summary.total_items:
            # The first rows are shown when they are there, so nothing rests before them.
            return
        if summary.failed_items != self._failures[0]:
            self._failures = summary.failed_items, run.failure_counts()
        there = _answered_there(run)
        text = sentence(summary, there, self._failures[1])
        if self._bar is not None:
            progress, task = self._bar
            # What is answered there is as good as done for somebody who waits; the words tell them apart.
            done = min(summary.completed_items + summary.failed_items + there, summary.total_items)
            progress.update(task, total=summary.total_items or None, completed=done, description=text)
        elif text != self._last:
            note(text)
            self._last = text
        self._rest()

    def _run(self) -> Run | None:
        """The run, unless it is still to be created."""
        if self._shown is None:
            return None
        runner, run_id = self._shown
        try:
            return runner.get_run(run_id)
        except UnknownRunError:
            return None


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.table import Column

    # The description holds a user's run id, which is no markup; on a narrow terminal it is cut, never wrapped.
    words = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
    columns = SpinnerColumn(), BarColumn(bar_width=20), TimeElapsedColumn(), words
    return Progress(*columns, console=Console(stderr=True), transient=True)


def _answered_there(run: Run) -> int:
    return sum(batch.remote_completed + batch.remote_failed for batch in run.batches() if batch.state == "submitted")
