"""What components of one store have in common: resource, IO manager, sensors and control jobs.

Law: one store has one of each, however many components use it.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from batchor_dagster.component.fields import Connection, PollingSensor, SubmissionSensor
from batchor_dagster.io_manager import build_batchor_io_manager
from batchor_dagster.jobs import build_batchor_jobs
from batchor_dagster.resources import BatchorResource
from batchor_dagster.sensors import build_batchor_polling_sensor
from batchor_dagster.submission_sensor import build_batchor_submission_sensor


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One component of a store; `is_me` for the one whose definitions are being built."""

    is_me: bool
    assets: Callable[[], list[dg.AssetsDefinition]]
    resource_key: str
    polling_sensor: PollingSensor | None
    submission_sensor: SubmissionSensor | None
    control_jobs: bool


def polling_sensor(peers: Sequence[Peer]) -> list[dg.SensorDefinition]:
    """The sensor of all that want one, with the first of them: it looks as often as the most impatient asks."""
    wanting = [one for one in peers if one.polling_sensor]
    if not _is_first(wanting):
        return []
    settings = [one.polling_sensor for one in wanting if one.polling_sensor]
    made = build_batchor_polling_sensor(
        assets=[one.assets() for one in wanting],
        minimum_interval_seconds=min(one.minimum_interval_seconds for one in settings),
        default_sensor_status=_status(any(one.running for one in settings)),
        resource_key=wanting[0].resource_key,
    )
    return [made]


def submission_sensor(peers: Sequence[Peer]) -> list[dg.SensorDefinition]:
    """The sensor of all that want one, with the first of them: it spends no more than the most careful allows."""
    wanting = [one for one in peers if one.submission_sensor]
    if not _is_first(wanting):
        return []
    rules = most_careful([one.submission_sensor for one in wanting if one.submission_sensor])
    made = build_batchor_submission_sensor(
        assets=[one.assets() for one in wanting],
        max_runs_in_flight=rules.max_runs_in_flight,
        minimum_interval_seconds=rules.minimum_interval_seconds,
        default_sensor_status=_status(rules.running),
        on_upstream_update=rules.on_upstream_update,
        resource_key=wanting[0].resource_key,
    )
    return [made]


def most_careful(settings: Sequence[SubmissionSensor]) -> SubmissionSensor:
    """What several components say together: running, and paying again, only where all of them want it."""
    pays_again = all(one.on_upstream_update == "resubmit" for one in settings)
    return SubmissionSensor(
        max_runs_in_flight=min(one.max_runs_in_flight for one in settings),
        minimum_interval_seconds=min(one.minimum_interval_seconds for one in settings),
        running=all(one.running for one in settings),
        on_upstream_update="resubmit" if pays_again else "ignore",
    )


def control_jobs(peers: Sequence[Peer]) -> list[dg.JobDefinition]:
    """The control jobs of all that want them, with the first of them."""
    wanting = [one for one in peers if one.control_jobs]
    if not _is_first(wanting):
        return []
    return build_batchor_jobs(assets=[one.assets() for one in wanting], resource_key=wanting[0].resource_key)


def resources_of(connection: Connection | None, resource_key: str, project: Path) -> dict[str, Any]:
    """The IO manager, and the resource where a connection describes one; relative places are in the project."""
    made: dict[str, Any] = {io_manager_key(resource_key): _io_manager(resource_key)}
    if connection is not None:
        made[resource_key] = _resource(connection.model_dump_json(), project)
    return made


def io_manager_key(resource_key: str) -> str:
    """Of the IO manager that reads from this resource's store."""
    return f"{resource_key}_io_manager"


def _is_first(wanting: Sequence[Peer]) -> bool:
    return bool(wanting) and wanting[0].is_me


def _status(running: bool) -> dg.DefaultSensorStatus:
    return dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED


# Dagster merges the resources of components only where they are the same object.
@functools.cache
def _io_manager(resource_key: str) -> dg.IOManagerDefinition:
    return build_batchor_io_manager(resource_key=resource_key)


@functools.cache
def _resource(connection: str, project: Path) -> BatchorResource:
    given = Connection.model_validate_json(connection)
    return BatchorResource(
        store_url=dg.EnvVar(given.store_url_env_var) if given.store_url_env_var else _placed(given.store_url, project),
        artifacts_url=_artifacts(given.artifacts_url, project),
        api_key=dg.EnvVar(given.api_key_env_var) if given.api_key_env_var else "",
        base_url=given.base_url,
        organization=given.organization,
        project=given.project,
        request_timeout_sec=given.request_timeout_sec,
        quota_scope=given.quota_scope,
        header_env=given.header_env_vars or {},
    )


def _placed(store_url: str | None, project: Path) -> str:
    """A relative SQLite file as one in the project, because processes of Dagster have other working directories."""
    scheme, mark, path = (store_url or "").partition(":///")
    if scheme != "sqlite" or not path or path.startswith(("/", ":memory:")):
        return store_url or ""
    return f"{scheme}{mark}{project / path}"


def _artifacts(url: str | None, project: Path) -> str | None:
    return url if not url or "://" in url else str(project / url)
