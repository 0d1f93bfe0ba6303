"""Workers that die, or stall, between any two of their effects.

Law: an effect is a write of the store or a call of the provider; a dead worker causes no effect any more, not even the
release of its lease.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import select, update

from batchor_engine import BatchRunner, OpenAIConnection, RunEvent
from batchor_engine.ports.state import StateStore
from batchor_engine.providers.openai import OpenAIBatchProvider
from batchor_engine.storage.schema import leases
from batchor_engine.testing import CrashError, CrashPoints, ManualClock

from ..stores import open_at
from .cloud import Client, Cloud

_READS = frozenset(
    {"batches", "default_artifact_root", "fresh_parts", "items_between", "labels", "location", "next_retry_at", "now"}
    | {"open_items", "parts", "ranges", "reopened_items", "run", "runs", "scope", "segments", "superseded_indexes"}
    | {"waiting_runs"}
)
_NOBODY = 2**22 + 1


class Mortality:
    """Counts effects; at the chosen one `then` is called: it raises (death) or returns (a stall that is over)."""

    def __init__(self) -> None:
        self.effects = 0
        self.dead = False
        self.place = ""
        self.places: list[str] = []
        self._at = 0
        self._then: Callable[[str], None] = lambda _where: None

    def arm(self, in_effects: int, then: Callable[[str], None]) -> None:
        self._at, self._then = self.effects + in_effects, then

    def disarm(self) -> None:
        self._at = 0

    def tick(self, where: str) -> None:
        if self.dead:
            raise CrashError(f"already dead, at {where}")
        self.effects += 1
        self.places.append(where)
        if self.effects == self._at:
            self.place = where
            self._then(where)


class MortalStore(StateStore):
    """Another store behind a worker that may die at each write."""

    def __init__(self, inner: StateStore, mortality: Mortality) -> None:
        self.inner, self._mortality = inner, mortality

    def _effect(self, name: str, *arguments: Any, **named: Any) -> Any:
        self._mortality.tick(f"before {name}")
        result = getattr(self.inner, name)(*arguments, **named)
        self._mortality.tick(f"after {name}")
        return result


def _delegated(name: str) -> Any:
    if isinstance(getattr(StateStore, name), property):
        return property(lambda self: getattr(self.inner, name))
    # Whatever the port has beyond the known reads counts as a write, so that a new method is not forgotten here.
    if name in StateStore.__abstractmethods__ - _READS:
        return lambda self, *arguments, **named: self._effect(name, *arguments, **named)
    return lambda self, *arguments, **named: getattr(self.inner, name)(*arguments, **named)


for _name in [name for name in vars(StateStore) if not name.startswith("_")]:
    setattr(MortalStore, _name, _delegated(_name))
abc.update_abstractmethods(MortalStore)


class Worker:
    """One process, as far as the store and the provider can tell."""

    def __init__(
        self,
        store: str,
        artifacts: Path,
        clock: ManualClock,
        cloud: Cloud,
        observer: Callable[[RunEvent], None] | None = None,
        late_call_margin_sec: float = 30.0,
        base_url: str | None = None,
    ) -> None:
        """With `base_url` the provider is a server behind that address, and only the store's effects are counted."""
        self.mortality = Mortality()
        self.started: set[str] = set()
        self.storage: StateStore = MortalStore(open_at(store, clock.now), self.mortality)  # type: ignore[abstract]
        self.runner = BatchRunner(
            storage=self.storage,
            temp_root=artifacts,
            provider_factory=None if base_url else self._on_cloud(cloud),
            connection=OpenAIConnection(api_key="sk-test", base_url=base_url) if base_url else None,
            observer=observer,
            sleep=clock.sleep,
        )
        self.runner.host.late_call_margin_sec = late_call_margin_sec
        self.points = CrashPoints().install(self.runner)
        self._named = self.runner.host.reached
        self.runner.host.reached = self._reached

    def _on_cloud(self, cloud: Cloud) -> Callable[[Any], OpenAIBatchProvider]:
        return lambda config: OpenAIBatchProvider(config, client=Client(cloud, self.mortality.tick))

    def _reached(self, name: str) -> None:
        self._named(name)
        self.mortality.tick(name)

    def die_in(self, effects: int) -> None:
        self.mortality.arm(effects, self.die)

    def die(self, where: str) -> None:
        self.mortality.dead = True
        raise CrashError(where)

    def close(self) -> None:
        self.storage.close()


def bury(storage: Any) -> int:
    """Make the holders of all leases provably dead: processes of this host that are gone. How many."""
    with storage.inner.engine.begin() as connection:
        held = connection.execute(select(leases.c.resource, leases.c.owner).where(leases.c.owner.is_not(None))).all()
        for resource, owner in held:
            fields = owner.split("/")
            fields[3] = str(_NOBODY)
            connection.execute(update(leases).where(leases.c.resource == resource).values(owner="/".join(fields)))
    return len(held)
