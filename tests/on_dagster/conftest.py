"""A Dagster instance, a sandbox over a real socket whose batches end when a test says so, and assets between them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from batchor_engine.sandbox import SandboxServer
from tests.on_dagster.shop import Shop


@pytest.fixture(scope="session", autouse=True)
def scripts_read_once() -> Iterator[None]:
    """Dagster makes an event log for each run, and alembic reads fifty scripts for each: a sixth of a test's time."""
    read, known = ScriptDirectory.from_config, dict[str | None, ScriptDirectory]()

    def once(config: Config) -> ScriptDirectory:
        place = config.get_main_option("script_location")
        if place not in known:
            known[place] = read(config)
        return known[place]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptDirectory, "from_config", once)
        yield


@pytest.fixture
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer(clock="manual", responder="example_project.responder:respond", shuffle=True) as server:
        yield server


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    # Else what a step writes comes to stderr through a `tail` of its file, which may end before it has read it all.
    plain = {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}
    with dg.instance_for_test(overrides={"compute_logs": plain}) as made:
        yield made


@pytest.fixture
def shop(
    sandbox: SandboxServer, instance: dg.DagsterInstance, tmp_path: Path, store_url: str, artifacts_url: str
) -> Shop:
    return Shop(sandbox, instance, tmp_path, store_url, artifacts_url)
