"""Everything that batch assets need, in one `Definitions`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from batchor_dagster.assets import IO_MANAGER_KEY, AnyAssets, flatten
from batchor_dagster.io_manager import build_batchor_io_manager
from batchor_dagster.jobs import build_batchor_jobs
from batchor_dagster.resources import RESOURCE
from batchor_dagster.sensors import build_batchor_polling_sensor, watched_resource


def build_batchor_definitions(
    *,
    assets: AnyAssets,
    resources: Mapping[str, Any],
    asset_checks: Sequence[dg.AssetsDefinition] = (),
    jobs: Sequence[Any] = (),
    schedules: Sequence[Any] = (),
    sensors: Sequence[Any] = (),
    executor: dg.ExecutorDefinition | dg.Executor | None = None,
    minimum_interval_seconds: int = 30,
    default_sensor_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.RUNNING,
    resource_key: str = RESOURCE,
    io_manager_key: str = IO_MANAGER_KEY,
    control_jobs: bool = True,
) -> dg.Definitions:
    """`dg.Definitions` of these assets with the polling sensor, the control jobs and the reading IO manager added.

    `assets` may hold the lists that `@batchor_assets` returns. `resources[resource_key]` is the `BatchorResource`; an
    IO manager that is already under `io_manager_key` stays. Make one such object in a module.

    Example:
        >>> defs = build_batchor_definitions(assets=[tickets, triage, urgent],
        ...     resources={"batchor": BatchorResource(store_url="sqlite:///runs.sqlite3")})
    """
    if resource_key not in resources:
        there = ", ".join(repr(key) for key in resources) or "none"
        raise dg.DagsterInvalidDefinitionError(
            f"resources needs a BatchorResource under the key {resource_key!r}, and has {there}: add one, or name its "
            "key as resource_key= here and on the assets"
        )
    if any(isinstance(one, dg.SensorDefinition) and watched_resource(one) == resource_key for one in sensors):
        raise dg.DagsterInvalidDefinitionError(
            f"build_batchor_definitions makes the polling sensor of resource {resource_key!r}, and one is "
            "enough: leave the other out of sensors=, and say minimum_interval_seconds= and default_sensor_status= here"
        )
    sensor = build_batchor_polling_sensor(
        assets=assets,
        minimum_interval_seconds=minimum_interval_seconds,
        default_sensor_status=default_sensor_status,
        resource_key=resource_key,
    )
    return dg.Definitions(
        assets=list(flatten(assets)),
        asset_checks=list(asset_checks),
        resources={io_manager_key: build_batchor_io_manager(resource_key=resource_key), **resources},
        jobs=[*jobs, *(build_batchor_jobs(assets=assets, resource_key=resource_key) if control_jobs else ())],
        schedules=list(schedules),
        sensors=[*sensors, sensor],
        executor=executor,
    )
