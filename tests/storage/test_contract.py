"""Every store of the engine passes the contract that it publishes for others, and so does a store made of another."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from batchor_engine import MemoryStateStore, StateStore
from batchor_engine.core.records import AwayBatch, Observation
from batchor_engine.testing import StoreContract

from ..properties.mortal import Mortality, MortalStore
from ..stores import new_url, open_at


class TestMemory(StoreContract):
    def open_store(self, now: Callable[[], datetime]) -> StateStore:
        return MemoryStateStore(now=now)


class TestByUrl(StoreContract):
    """SQLite and PostgreSQL."""

    @pytest.fixture(autouse=True)
    def _url(self, store_url: str) -> None:
        self.url = store_url

    pytestmark = pytest.mark.every_store

    def open_store(self, now: Callable[[], datetime]) -> StateStore:
        return open_at(self.url, now)

    def test_what_a_poll_reads_of_submitted_batches_is_as_stored(self) -> None:
        bench = self._bench()
        run, lease = bench.ingest()
        first, second = bench.submitted(run, lease, 0, 1), bench.submitted(run, lease, 2, 2)
        bench.planned(run, lease, 3, 4)
        store = bench.store
        store.observe([Observation(second.pk, "in_progress", ended=False, completed=1)])
        away = [AwayBatch(*(getattr(bench.again(one), name) for name in AwayBatch._fields)) for one in (first, second)]
        assert store.away() == store.away(run.pk) == away
        assert store.away(run.pk + 1) == []
        store.observe([Observation(first.pk, "completed", ended=True)])
        assert store.away() == away[1:]


class TestStoreOfAnotherMake(StoreContract):
    """One that extends StateStore itself, and keeps nothing in it of ours."""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def open_store(self, now: Callable[[], datetime]) -> StateStore:
        return MortalStore(open_at(new_url("sqlite", self.folder), now), Mortality())  # type: ignore[abstract]
