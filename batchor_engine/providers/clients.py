"""Official clients that the runs of one runner share.

Law: a client serves one connection (URL, account, key, headers) and one process: a forked child that spoke through its
parent's sockets would mix its words into the parent's.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

# A runner that speaks for more connections than this opens clients again; one that is used is not closed for it.
_MOST = 8


class SharedClients:
    """Making a client reads all certificates of the system, which costs more than all calls of a small run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[object, ...], Any] = OrderedDict()

    def get(self, settings: Mapping[str, Any], make: Callable[..., Any]) -> Any:
        """The client made with these settings before, else a new one."""
        key = (os.getpid(), *((name, _hashable(value)) for name, value in sorted(settings.items())))
        with self._lock:
            client = self._kept.pop(key, None) or make(**settings)
            self._kept[key] = client
            if len(self._kept) > _MOST:
                self._kept.popitem(last=False)
            return client

    def close(self) -> None:
        """Close what this process opened; who asks again gets a new client."""
        with self._lock:
            own = [client for (pid, *_), client in self._kept.items() if pid == os.getpid()]
            self._kept.clear()
        for client in own:
            client.close()


def _hashable(value: Any) -> Any:
    return tuple(sorted(value.items())) if isinstance(value, dict) else value  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType, reportUnknownArgumentType]
