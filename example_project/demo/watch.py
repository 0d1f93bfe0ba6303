"""Watches the three days from submission to the last downstream asset. It only looks; the sensor does the work."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

from batchor_engine import BatchRunner, RunInfo
from example_project import settings
from example_project.demo.dagster_api import DagsterApi, DagsterRun
from example_project.demo.home import Home
from example_project.demo.trouble import DemoError

SENSOR_NAME = "batchor_polling_sensor"
LOOK_EVERY_SEC = 1.0


@dataclass(frozen=True)
class Day:
    """How far one day is; rows are 0 until it is submitted."""

    day: str
    rows: int = 0
    answered: int = 0
    batches: int = 0
    collected: int = 0
    failed: int = 0
    materialized: bool = False
    downstream: bool = False

    @property
    def phase(self) -> str:
        if self.downstream:
            return "urgent tickets listed"
        if self.materialized:
            return "materialized"
        if self.collected:
            return "collecting"
        return "at the provider" if self.rows else "submitting"


@dataclass(frozen=True)
class Ending:
    """What the watch has proved: who materialized each day, and what the check said."""

    materialized_by: dict[str, DagsterRun]
    checks: dict[str, tuple[bool, str]]


@dataclass(frozen=True)
class Eye:
    """What to look at; runs in `lost` were cut off by an earlier interruption, and their failure says nothing."""

    home: Home
    api: DagsterApi
    days: Sequence[str]
    lost: frozenset[str] = frozenset()

    def watch(self, *, show: Callable[[list[Day]], None], alive: Callable[[], None], limit_sec: float) -> Ending:
        """Look once a second until every day is through; an error in any run ends the demo."""
        until = time.monotonic() + limit_sec
        while True:
            alive()
            seen = self.look()
            show(seen)
            if all(day.downstream for day in seen):
                return ending(self.api, self.days)
            self.refuse_failures()
            if time.monotonic() > until:
                raise DemoError(f"not finished after {limit_sec:.0f} seconds; the logs are in {self.home.logs}")
            time.sleep(LOOK_EVERY_SEC)

    def look(self) -> list[Day]:
        """Progress from the engine's store, outcomes from Dagster."""
        infos = newest_by_day(self.home)
        triaged = self.api.materialized_by("triage", self.days)
        listed = self.api.materialized_by("urgent", self.days)
        return [day_of(day, infos.get(day), materialized=day in triaged, downstream=day in listed) for day in self.days]

    def refuse_failures(self) -> None:
        for run in self.api.runs():
            if run.status == "FAILURE" and run.run_id not in self.lost:
                what = f"{', '.join(sorted(run.assets))} of {run.partition}"
                raise DemoError(f"{what} failed. {self.api.why_failed(run.run_id)}")


def newest_by_day(home: Home) -> dict[str, RunInfo]:
    """The engine's latest run of each day, read without key or provider."""
    with closing(BatchRunner(storage=settings.store_url(home.path))) as runner:
        infos = runner.find_runs(labels={"asset": "triage"})
    return {info.labels["partition"]: info for info in sorted(infos, key=lambda info: info.created_at)}


def day_of(day: str, info: RunInfo | None, *, materialized: bool, downstream: bool) -> Day:
    if info is None:
        return Day(day)
    summary = info.summary
    collected = summary.completed_items + summary.failed_items
    waiting = sum(one.remote_completed + one.remote_failed for one in info.batches if one.state != "collected")
    return Day(
        day=day,
        rows=summary.total_items,
        answered=min(summary.total_items, collected + waiting),
        batches=len(info.batches),
        collected=collected,
        failed=summary.failed_items,
        materialized=materialized,
        downstream=downstream,
    )


def ending(api: DagsterApi, days: Sequence[str]) -> Ending:
    """Refuse a result that a run materialized which no sensor launched."""
    runs = {run.run_id: run for run in api.runs()}
    by_day = {day: runs[run_id] for day, run_id in api.materialized_by("triage", days).items()}
    for day, run in by_day.items():
        if run.tags.get("dagster/sensor_name") != SENSOR_NAME or run.tags.get("batchor/sensor") != SENSOR_NAME:
            raise DemoError(f"{day} was materialized by run {run.run_id}, which {SENSOR_NAME} did not launch")
    told = api.checks("triage", "failure_rate")
    return Ending(by_day, {day: told.get(run.run_id, (False, "no outcome")) for day, run in by_day.items()})
