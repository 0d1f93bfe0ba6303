"""Batches on their way to the provider, several uploads at a time.

Law: intents are made in order and before their uploads, creations follow in the same order. What stops one batch stops
the creation of those behind it; an upload that is done is recorded, so that it is not done again.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from batchor_engine.core.records import BatchRecord
from batchor_engine.runtime.host import Host
from batchor_engine.runtime.submit import Submission, file_to_send, go_on, keep_upload, next_intent
from batchor_engine.runtime.transfers import Line


class Outbox:
    """Fill it, and finish it in the end; leaving it by an exception leaves the rest to recovery."""

    def __init__(self, host: Host) -> None:
        self._line: Line[BatchRecord, str] = Line(host.max_transfers)
        self._blocked = False
        self.sent = 0

    def __enter__(self) -> Self:
        self._line.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._line.__exit__(kind, error, trace)

    def fill(self, work: Submission, *, partial: bool, stop: Callable[[], bool]) -> None:
        """Begin batches while rows, budget, back-off and control allow; with `partial` False only full ones."""
        self._blocked = self._blocked and len(self._line) > 0
        while not self._blocked and not stop():
            if self._line.is_full:
                self._first(work)
            elif (batch := next_intent(work, partial=partial, stop=stop)) is not None:
                self._line.put(batch, file_to_send(work, batch))
            else:
                return

    def tend(self, work: Submission) -> None:
        """Create the batches whose uploads are over, without waiting for the others."""
        while self._line.has_news:
            self._first(work)

    def finish(self, work: Submission) -> None:
        """Wait for every upload and create its batch."""
        while self._line:
            self._first(work)

    def _first(self, work: Submission) -> None:
        batch, transfer = self._line.take()
        if self._blocked:
            keep_upload(work, batch, transfer.result)
            return
        # Also by an exception.
        self._blocked = True
        if go_on(work, batch, transfer.result):
            self.sent, self._blocked = self.sent + 1, False


def submit_ready(work: Submission, *, partial: bool, stop: Callable[[], bool]) -> int:
    """Submit batches while rows, budget, back-off and control allow; how many went out."""
    with Outbox(work.host) as outbox:
        outbox.fill(work, partial=partial, stop=stop)
        outbox.finish(work)
    return outbox.sent
