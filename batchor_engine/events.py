"""What a run tells its observer. Events follow a commit; they never precede one."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from batchor_engine.config import ProviderKind
from batchor_engine.models import JSONObject

_TROUBLES = {
    "batch_submit_retry": "a submission failed",
    "batch_poll_retry": "a look at the provider failed",
    "batch_terminal_failure": "a batch failed",
}
# A word with a digit in it.
_VARYING = re.compile(r"(?<!\S)(?<!HTTP )\S*\d\S*")


def _no_data() -> JSONObject:
    return {}


@dataclass(frozen=True)
class RunEvent:
    """One fact about a run, delivered after it is stored; `data` depends on `event_type`."""

    event_type: str
    run_id: str
    provider_kind: ProviderKind | None = None
    data: JSONObject = field(default_factory=_no_data)

    @property
    def trouble(self) -> str:
        """What failed, in the provider's words where it gave some, or its error class; empty for any other event."""
        what = _TROUBLES.get(self.event_type)
        return f"{what}: {self.data.get('message') or self.data.get('error_class')}" if what else ""


class Troubles:
    """An observer that tells each kind of trouble of a run once: a provider that is down would fill a log.

    Two are of one kind where their words differ in ids and numbers alone, but for the HTTP status.
    """

    def __init__(self, tell: Callable[[str], object]) -> None:
        self._tell = tell
        self._told: set[tuple[str, str, str]] = set()

    def __call__(self, event: RunEvent) -> None:
        kind = event.run_id, str(event.data.get("error_class")), _VARYING.sub("#", event.trouble)
        if event.trouble and kind not in self._told:
            self._tell(f"{event.run_id}: {event.trouble}")
            self._told.add(kind)


Observer: TypeAlias = Callable[[RunEvent], None]
