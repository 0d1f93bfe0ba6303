"""A process that does what the daemon and a run worker do with our sensor, and dies where it is told to.

`python -m tests.on_dagster.actor <sandbox url> <folder> [--die-at POINT] [--later SECONDS]`, DAGSTER_HOME in the
environment. One round: a tick, its observations, its runs, its cursor; POINT is a step of that or a crash point of the
engine. With SECONDS this process's clock is ahead by so much.
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from batchor_dagster import BatchorResource, build_batchor_definitions
from batchor_engine import BatchRunner
from batchor_engine.testing import CrashPoints
from tests.on_dagster.shop import FOUR_ROWS, tickets_asset, triage_assets

# Where the code location of a real daemon (daemon_project.py) is told the same two.
URL_VARIABLE, FOLDER_VARIABLE = "BATCHOR_TEST_SHOP_URL", "BATCHOR_TEST_SHOP_FOLDER"
GIVEN_UP_VARIABLE = "BATCHOR_TEST_GIVEN_UP_SEC"
TICK_POINTS = ("tick.polled", "tick.evaluated", "tick.observed", "tick.launched", "tick.ran")
DAILY = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=30), warn_window=timedelta(hours=24))
ENGINE_POINTS = ("collect.downloaded", "collect.segment_written", "collect.settled")


@dg.asset(automation_condition=dg.AutomationCondition.eager())
def digest(triage: list) -> None:
    """Dagster itself makes this whenever there are new answers."""


class MortalResource(BatchorResource):
    """The resource, whose runners die at a crash point of the engine."""

    die_at: str = ""

    def runner(self) -> BatchRunner:
        runner = super().runner()
        CrashPoints({self.die_at: 1}, die=lambda _: die()).install(runner)
        return runner


def definitions(url: str, folder: Path, die_at: str = "") -> dg.Definitions:
    resource = MortalResource(
        store_url=f"sqlite:///{folder / 'runs.sqlite3'}",
        artifacts_url=str(folder / "artifacts"),
        api_key="sk-test",
        base_url=url,
        die_at=die_at,
    )
    conditions = dg.AutomationConditionSensorDefinition(
        "conditions",
        target=[digest],
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=1,
    )
    return build_batchor_definitions(
        assets=[tickets_asset(FOUR_ROWS), triage_assets(freshness_policy=DAILY), digest],
        resources={"batchor": resource},
        sensors=[conditions],
        minimum_interval_seconds=1,
    )


@dataclass
class Actor:
    """One round of a daemon with this code location."""

    instance: dg.DagsterInstance
    defs: dg.Definitions
    cursor_file: Path
    die_at: str

    def round(self) -> int:
        """How many runs it launched."""
        result = self._tick()
        self._reached("tick.evaluated")
        for event in result.asset_events:
            self.instance.report_runless_asset_event(event)  # type: ignore[arg-type]
        self._reached("tick.observed")
        launched = [self._launch(request) for request in result.run_requests or []]
        self._reached("tick.ran")
        self.cursor_file.write_text(result.cursor or "")
        return sum(launched)

    def _tick(self) -> dg.SensorResult:
        sensor = self.defs.resolve_sensor_def("batchor_polling_sensor")
        cursor = self.cursor_file.read_text() if self.cursor_file.exists() else None
        resource: Any = self.defs.resources and self.defs.resources["batchor"]
        if self.die_at == "tick.polled":
            resource.runner().poll()
            die()
        with dg.build_sensor_context(
            instance=self.instance,
            cursor=cursor,
            resources={"batchor": resource},
            repository_def=self.defs.get_repository_def(),
        ) as context:
            result = sensor(context)
        assert isinstance(result, dg.SensorResult)
        return result

    def _launch(self, request: dg.RunRequest) -> bool:
        """Launch a run unless one of its key was launched before, as the daemon does."""
        tags = {**request.tags, "dagster/run_key": request.run_key or ""}
        if self.instance.get_runs(dg.RunsFilter(tags={"dagster/run_key": request.run_key or ""})):
            return False
        if self.die_at == "tick.launched":
            self.instance.add_run(dg.DagsterRun("job", status=dg.DagsterRunStatus.STARTED, tags=tags))
            die()
        job = self.defs.resolve_implicit_global_asset_job_def()
        job.execute_in_process(
            asset_selection=list(request.asset_selection or []), instance=self.instance, tags=tags, raise_on_error=False
        )
        return True

    def _reached(self, point: str) -> None:
        if self.die_at == point:
            die()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--die-at", default="")
    parser.add_argument("--later", type=float, default=0.0)
    given = parser.parse_args()
    real = time.time
    time.time = lambda: real() + given.later
    defs = definitions(given.url, given.folder, given.die_at)
    with dg.DagsterInstance.get() as instance:
        actor = Actor(instance, defs, given.folder / "cursor", given.die_at)
        print("launched", actor.round())


if __name__ == "__main__":
    main()
