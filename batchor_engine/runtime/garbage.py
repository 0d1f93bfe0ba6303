"""Python's cyclic garbage collector during bulk work.

Law: it is never switched off, only called less often, and has its thresholds back when the last bulk ends.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Generator
from contextlib import contextmanager

# Bulk work makes a few small values a row and no cycles. At Python's own threshold (700 of them) looking through them
# again and again took a twelfth of a run's CPU; at this one it is lost in the noise, and memory is the same.
SELDOM = 20_000


class _Collector:
    """The process has one, and several runs may be at work in it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bulks = 0
        self._before = gc.get_threshold()

    def begin(self) -> None:
        with self._lock:
            self._bulks += 1
            if self._bulks == 1:
                self._before = gc.get_threshold()
                # 0 means that somebody has switched it off.
                if 0 < self._before[0] < SELDOM:
                    gc.set_threshold(SELDOM, *self._before[1:])

    def end(self) -> None:
        with self._lock:
            self._bulks -= 1
            # Thresholds that somebody has set in the meantime stay.
            if not self._bulks and gc.get_threshold() == (SELDOM, *self._before[1:]):
                gc.set_threshold(*self._before)


_collector = _Collector()


@contextmanager
def seldom_collected() -> Generator[None]:
    """While any thread is inside, garbage is looked for once in 20,000 new objects, or as seldom as it was before."""
    _collector.begin()
    try:
        yield
    finally:
        _collector.end()
