"""What a run tells its observer. Events follow a commit; they never precede one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from batchor_engine.config import ProviderKind
from batchor_engine.models import JSONObject


def _no_data() -> JSONObject:
    return {}


@dataclass(frozen=True)
class RunEvent:
    """One fact about a run, delivered after it is stored; `data` depends on `event_type`."""

    event_type: str
    run_id: str
    provider_kind: ProviderKind | None = None
    data: JSONObject = field(default_factory=_no_data)


Observer: TypeAlias = Callable[[RunEvent], None]
