"""A world for runs: a sandbox whose batches move by polls, a clock that moves by sleeping, stores on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from batchor_engine import (
    BatchItem,
    BatchJob,
    BatchRunner,
    OpenAIConnection,
    OpenAIProviderConfig,
    PromptParts,
    RetryPolicy,
    RunEvent,
)
from batchor_engine.artifacts.urls import open_artifacts
from batchor_engine.sandbox import Fault, SandboxConfig, SandboxServer
from batchor_engine.testing import ManualClock, check_invariants

from ..stores import is_there, open_at
from .files import StoredFile, stored_files


@dataclass
class World:
    """Everything a run touches; `runner()` is another process as far as the store can tell."""

    sandbox: SandboxServer
    folder: Path
    store_url: str
    artifacts_url: str
    clock: ManualClock = field(default_factory=ManualClock)
    events: list[RunEvent] = field(default_factory=list)
    runners: list[BatchRunner] = field(default_factory=list)

    def runner(self, **options: Any) -> BatchRunner:
        defaults: dict[str, Any] = {
            "storage": open_at(self.store_url, self.clock.now),
            "connection": OpenAIConnection(api_key="sk-test", base_url=self.sandbox.base_url),
            "sleep": self.clock.sleep,
            "observer": self.events.append,
        }
        if "storage" not in options:
            defaults["artifacts_url"] = self.artifacts_url
        self.runners.append(BatchRunner(**{**defaults, **options}))
        return self.runners[-1]

    def job(self, items: Any = 3, **options: Any) -> BatchJob[Any, Any]:
        rows = [BatchItem(f"row-{n}", {"n": n}) for n in range(items)] if isinstance(items, int) else items
        defaults: dict[str, Any] = {
            "items": rows,
            "build_prompt": lambda item: PromptParts(f"Say {item.payload}"),
            "provider_config": OpenAIProviderConfig(model="gpt-5-mini"),
            "retry_policy": RetryPolicy(max_attempts=3, base_backoff_sec=1.0, max_backoff_sec=8.0),
        }
        return BatchJob(**{**defaults, **options})

    def files(self, pattern: str = "*") -> list[StoredFile]:
        """Files of all runs, where the runs' settings have put them."""
        return stored_files(open_artifacts(self.artifacts_url), pattern)

    def file(self, pattern: str) -> StoredFile:
        (found,) = self.files(pattern)
        return found

    def fault(self, kind: str, **options: Any) -> None:
        self.sandbox.faults.add(Fault(kind, **options))

    def stats(self) -> dict[str, Any]:
        return self.sandbox.stats()  # type: ignore[return-value]

    def happened(self, event_type: str) -> list[RunEvent]:
        return [event for event in self.events if event.event_type == event_type]


@pytest.fixture
def sandbox_config() -> SandboxConfig:
    return SandboxConfig(clock="polls")


@pytest.fixture
def world(tmp_path: Path, sandbox_config: SandboxConfig, store_url: str, artifacts_url: str) -> Iterator[World]:
    with SandboxServer(sandbox_config) as server:
        made = World(server, tmp_path, store_url, artifacts_url)
        yield made
        if is_there(store_url):
            assert check_invariants(made.runner()) == []
        # Left to the garbage collector, a socket that an exception's frames hold is found open in another test.
        for runner in made.runners:
            runner.close()


Maker = Callable[..., BatchRunner]
