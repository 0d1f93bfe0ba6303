"""The assets that the tests run: tickets, their triage and somebody who reads it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dagster as dg

from batchor_dagster import (
    BatchorChecks,
    BatchorMetadataSet,
    BatchorResource,
    batchor_assets,
    build_batchor_definitions,
)
from batchor_engine import (
    BatchJob,
    BatchRunner,
    DataFrameItemSource,
    OpenAIProviderConfig,
    PromptParts,
    RetryPolicy,
    RunInfo,
)
from batchor_engine.sandbox import SandboxServer
from example_project.models import TicketTriage

days = dg.DailyPartitionsDefinition(start_date="2026-03-02", end_date="2026-03-07")
DAY, NEXT_DAY = "2026-03-02", "2026-03-03"

Rows = list[dict[str, str]]
FOUR_ROWS: Rows = [
    {"id": "a", "body": "The lamp in the hall is broken, order FL-12345."},
    {"id": "b", "body": "My hub is offline, error E-7. I am really disappointed."},
    {"id": "c", "body": ""},
    {"id": "d", "body": "Thank you to Ines, she was patient. 👍\u2028Second line."},
]


def job_for(rows: Rows) -> BatchJob[Any, Any]:
    return BatchJob(
        items=DataFrameItemSource(rows, item_id="id"),
        build_prompt=lambda item: PromptParts(f"Subject: \nBody:\n{item.payload['body']}"),
        provider_config=OpenAIProviderConfig(model="gpt-5-mini"),
        retry_policy=RetryPolicy(max_attempts=1),
    )


def tickets_asset(rows: Rows, partitions_def: dg.PartitionsDefinition | None = None) -> dg.AssetsDefinition:
    @dg.asset(name="tickets", partitions_def=partitions_def)
    def tickets() -> list:
        return rows

    return tickets


def triage_assets(**options: Any) -> list[dg.AssetsDefinition]:
    defaults = {"name": "triage", "structured_output": TicketTriage, "checks": BatchorChecks(max_failure_rate=0.3)}

    @batchor_assets(**{**defaults, **options})
    def triage(tickets: list) -> BatchJob:
        """Sort tickets."""
        return job_for(tickets)

    return triage


def triage_that_waits(seconds: float) -> list[Any]:
    """The tickets and their triage, whose runs wait so long after each refusal of the provider."""

    @batchor_assets(name="triage", structured_output=TicketTriage)
    def triage(tickets: list) -> BatchJob:
        policy = RetryPolicy(max_attempts=1, base_backoff_sec=seconds, max_backoff_sec=seconds)
        return replace(job_for(tickets), retry_policy=policy)

    return [tickets_asset(FOUR_ROWS), triage]


@dataclass
class Shop:
    """One place where runs of Dagster and of the engine live; every call opens its own runner, as processes do."""

    sandbox: SandboxServer
    instance: dg.DagsterInstance
    folder: Path
    store_url: str = ""
    artifacts_url: str = ""

    @property
    def batchor(self) -> BatchorResource:
        return BatchorResource(
            store_url=self.store_url or f"sqlite:///{self.folder / 'runs.sqlite3'}",
            artifacts_url=self.artifacts_url or str(self.folder / "artifacts"),
            api_key="sk-test",
            base_url=self.sandbox.base_url,
        )

    def definitions(self, assets: Sequence[Any] | None = None) -> dg.Definitions:
        return build_batchor_definitions(
            assets=assets if assets is not None else [tickets_asset(FOUR_ROWS), triage_assets()],
            resources={"batchor": self.batchor},
        )

    def materialize(self, defs: dg.Definitions, *names: str, **options: Any) -> dg.ExecuteInProcessResult:
        """Run assets by name; a failure comes back as a result."""
        job = defs.resolve_implicit_global_asset_job_def()
        return job.execute_in_process(
            asset_selection=[dg.AssetKey.from_user_string(name) for name in names],
            instance=self.instance,
            raise_on_error=False,
            **options,
        )

    def tick(self, defs: dg.Definitions, cursor: str | None = None) -> dg.SensorResult:
        """One evaluation of the polling sensor; its observations are recorded as the daemon would."""
        sensor = defs.resolve_sensor_def("batchor_polling_sensor")
        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=cursor,
            resources={"batchor": self.batchor},
            repository_def=defs.get_repository_def(),
        )
        with context:
            result = sensor(context)
        assert isinstance(result, dg.SensorResult)
        for event in result.asset_events:
            self.instance.report_runless_asset_event(event)  # type: ignore[arg-type]
        return result

    def obey(self, defs: dg.Definitions, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
        """Execute a run request as the daemon would."""
        assert request.asset_selection
        job = defs.resolve_implicit_global_asset_job_def().get_subset(
            asset_selection=set(request.asset_selection),
            asset_check_selection=None if request.asset_check_keys is None else set(request.asset_check_keys),
        )
        tags = {**request.tags, "dagster/run_key": request.run_key or ""}
        return job.execute_in_process(
            instance=self.instance, raise_on_error=False, partition_key=request.partition_key, tags=tags
        )

    @contextmanager
    def runner(self) -> Iterator[BatchRunner]:
        with closing(self.batchor.runner()) as runner:
            yield runner

    def infos(self) -> list[RunInfo]:
        with self.runner() as runner:
            return runner.find_runs()

    def paid_lines(self) -> int:
        return len(self.sandbox.paid())


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    """The description of the failure that a step ended with."""
    failed = [event for event in result.all_events if event.is_step_failure]
    data = failed[0].step_failure_data
    description = data.user_failure_data.description if data.user_failure_data else None
    return description or (data.error.message if data.error else "")


def materialized(result: dg.ExecuteInProcessResult, name: str) -> list[dg.AssetMaterialization]:
    return result.asset_materializations_for_node(name)


def control(shop: Shop, defs: dg.Definitions, name: str, **config: Any) -> dg.ExecuteInProcessResult:
    """Launch a control job as from its launchpad: with what it opens with, and these fields filled in."""
    job = defs.resolve_job_def(f"batchor_{name}")
    opened = job.run_config or {}
    assert set(opened) == {"ops"}
    filled = {**opened["ops"][name]["config"], **config}
    return job.execute_in_process(
        run_config={"ops": {name: {"config": filled}}}, instance=shop.instance, raise_on_error=False
    )


def said(shop: Shop, result: dg.ExecuteInProcessResult) -> str:
    """The sentence of a job, as the observation of the asset has it."""
    assert result.success, failure_of(result)
    (observed,) = [
        event.asset_observation_data.asset_observation for event in result.all_events if event.is_asset_observation
    ]
    told = BatchorMetadataSet.extract(observed.metadata)
    assert told.action == observed.description
    return str(told.action)


def info_of(shop: Shop, day: str) -> RunInfo:
    return next(info for info in shop.infos() if info.labels["partition"] == day)


def serve(shop: Shop, defs: dg.Definitions, rounds: int = 4) -> list[dg.ExecuteInProcessResult]:
    """Tick and obey until the sensor asks for nothing."""
    done: list[dg.ExecuteInProcessResult] = []
    for _ in range(rounds):
        asked = shop.tick(defs).run_requests or []
        if not asked:
            return done
        done += [shop.obey(defs, request) for request in asked]
    raise AssertionError("the sensor does not come to rest")
