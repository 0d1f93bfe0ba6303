"""A Dagster instance, a sandbox over a real socket whose batches end when a test says so, and assets between them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from batchor_engine.sandbox import SandboxServer
from tests.on_dagster.shop import Shop


@pytest.fixture
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer(clock="manual", responder="example_project.responder:respond", shuffle=True) as server:
        yield server


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as made:
        yield made


@pytest.fixture
def shop(
    sandbox: SandboxServer, instance: dg.DagsterInstance, tmp_path: Path, store_url: str, artifacts_url: str
) -> Shop:
    return Shop(sandbox, instance, tmp_path, store_url, artifacts_url)
