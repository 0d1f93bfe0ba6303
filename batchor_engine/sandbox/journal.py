"""What was asked of the sandbox: counters by operation, the last requests in memory, all of them in a file."""

from __future__ import annotations

import json
import threading
import time
from collections import deque

from .store import StateDir
from .values import JSONObject

KEPT = 1000


class Journal:
    """Counts and notes calls; it never sees a header, so no key can lie in it."""

    def __init__(self, state: StateDir) -> None:
        self._state = state
        self._lock = threading.Lock()
        self._last: deque[JSONObject] = deque(maxlen=KEPT)
        self._file = (state.path / "journal.jsonl").open("a", encoding="utf-8")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()

    def note(self, operation: str, status: int, target: str | None, faults: list[str]) -> None:
        """Count a call and keep its line; status 0 means that the connection was dropped."""
        entry: JSONObject = {
            "at": round(time.time(), 3),
            "operation": operation,
            "status": status,
            "target": target,
            "faults": faults,
        }
        self._state.count(f"calls:{operation}")
        with self._lock:
            self._last.append(entry)
            if not self._file.closed:
                self._file.write(json.dumps(entry) + "\n")
                self._file.flush()

    def entries(self) -> list[JSONObject]:
        """The last calls, oldest first."""
        with self._lock:
            return list(self._last)

    def calls(self) -> dict[str, int]:
        """Number of calls per operation since the state directory was made."""
        return self._state.counters("calls:")
