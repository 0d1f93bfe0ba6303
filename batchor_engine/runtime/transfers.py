"""Uploads and downloads that go on beside the work of a run.

Law: only bytes move in other threads. Every decision, write and crash point stays with the caller, in the order in
which transfers were put in line.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Generic, Self, TypeVar

SubjectT = TypeVar("SubjectT")
ResultT = TypeVar("ResultT")


class Transfer(Generic[ResultT]):
    """One transfer under way, or one that begins when its result is asked for."""

    def __init__(self, move: Callable[[], ResultT], *, beside: bool) -> None:
        self._move = move
        self._outcome: Future[ResultT] = Future()
        # A daemon: an interrupted program does not wait for a large upload, which the next one does again.
        self._thread = threading.Thread(target=self._run, name="batchor-transfer", daemon=True) if beside else None
        if self._thread is not None:
            self._thread.start()

    def _run(self) -> None:
        try:
            self._outcome.set_result(self._move())
        except BaseException as error:  # noqa: BLE001 - raised again where the result is asked for
            self._outcome.set_exception(error)

    @property
    def done(self) -> bool:
        return self._thread is not None and not self._thread.is_alive()

    def join(self, seconds: float | None = None) -> None:
        """Wait until no byte moves any more, or for so long; a transfer that has not begun never will."""
        if self._thread is not None:
            self._thread.join(seconds)

    def result(self) -> ResultT:
        """What the transfer came to, or the exception it ended with."""
        if self._thread is None:
            return self._move()
        self._thread.join()
        return self._outcome.result()


class Line(Generic[SubjectT, ResultT]):
    """Transfers in order, at most `limit` at once; with a limit of 1 each runs in the caller's thread.

    Leaving the context waits for those that are under way, but for an interrupted program.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: deque[tuple[SubjectT, Transfer[ResultT]]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        del error, trace
        if kind is None or not issubclass(kind, KeyboardInterrupt):
            for _, transfer in self._waiting:
                transfer.join()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        return len(self._waiting) >= self._limit

    @property
    def has_news(self) -> bool:
        """Whether the first transfer in line is over."""
        return bool(self._waiting) and self._waiting[0][1].done

    def put(self, subject: SubjectT, move: Callable[[], ResultT], *, head_start_sec: float = 0.0) -> None:
        """Begin a transfer; one that the caller can only wait for is left alone for a moment, before others share."""
        transfer, alone = Transfer(move, beside=self._limit > 1), not self._waiting
        self._waiting.append((subject, transfer))
        if alone:
            transfer.join(head_start_sec)

    def take(self) -> tuple[SubjectT, Transfer[ResultT]]:
        """The first in line, with its transfer, which may still be under way."""
        return self._waiting.popleft()
