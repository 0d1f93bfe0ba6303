"""The polling sensor: looks at the provider, reports what moved, and asks for runs that do the work.

Law: a tick never uploads, downloads or parses. Its cursor may be lost at any time, and two ticks may overlap.
"""

import os
import time
from collections.abc import Sequence
from contextlib import closing

import dagster as dg

from batchor_dagster.assets import AnyAssets, result_specs
from batchor_dagster.engine_runs import asset_label
from batchor_dagster.ledger import Ledger, Watch
from batchor_dagster.metadata import FAILURES_KEY, RESOURCE_KEY, RESULTS_OF_KEY
from batchor_dagster.resources import RESOURCE, BatchorResource, polling_sensor_name
from batchor_dagster.tick import Tick

# Dagster gives a tick this long and then forgets it; we stop well before.
TICK_LIMIT_VARIABLES = ("DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS", "DAGSTER_GRPC_TIMEOUT_SECONDS")
DEFAULT_TICK_LIMIT_SEC = 60.0
TICK_MARGIN_SEC = 20.0


def build_batchor_polling_sensor(
    *,
    assets: AnyAssets,
    minimum_interval_seconds: int = 30,
    default_sensor_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.RUNNING,
    name: str | None = None,
    resource_key: str = RESOURCE,
) -> dg.SensorDefinition:
    """A sensor for all result assets of one store among `assets`; other assets in the list are skipped.

    Each tick lists the provider's batches once, reports progress as observations of the result assets, and requests a
    run of a result asset when request files can go out, answers can be fetched, or a run has ended.

    Example:
        >>> build_batchor_polling_sensor(assets=[triage], minimum_interval_seconds=60)
    """
    found = result_specs(assets)
    specs = [spec for spec in found if spec.metadata[RESOURCE_KEY] == resource_key]
    keys = {asset_label(spec.key): spec.key for spec in specs}
    failures = {
        asset_label(spec.key): dg.AssetKey.from_user_string(spec.metadata[FAILURES_KEY])
        for spec in specs
        if FAILURES_KEY in spec.metadata
    }
    if not keys:
        raise dg.DagsterInvalidDefinitionError(_nothing_to_watch(found, resource_key))
    watch = Watch(
        sensor=name or polling_sensor_name(resource_key),
        keys=keys,
        interval_sec=minimum_interval_seconds,
        failures=failures,
        submitted_by={asset_label(spec.key): spec.metadata[RESULTS_OF_KEY] for spec in specs},
        resource_key=resource_key,
    )

    @dg.sensor(
        name=watch.sensor,
        asset_selection=dg.AssetSelection.assets(*keys.values(), *failures.values()),
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_sensor_status,
        required_resource_keys={resource_key},
        description="Looks at the provider and requests runs that submit, collect and materialize.",
        metadata={RESOURCE_KEY: resource_key},
    )
    def poll(context: dg.SensorEvaluationContext, **_resources: object) -> dg.SensorResult:
        # Dagster passes required resources by keyword when a sensor is called directly, and only then.
        deadline = time.monotonic() + tick_seconds()
        batchor: BatchorResource = getattr(context.resources, resource_key)
        with closing(batchor.runner()) as runner:
            return Tick(Ledger(context.instance, watch), context, runner, deadline).run()

    return poll


def watched_resource(sensor: dg.SensorDefinition) -> str | None:
    """The resource whose runs a polling sensor looks after; None for any other sensor."""
    told = sensor.metadata.get(RESOURCE_KEY)
    return told.text if isinstance(told, dg.TextMetadataValue) else None


def _nothing_to_watch(specs: Sequence[dg.AssetSpec], resource_key: str) -> str:
    message = f"build_batchor_polling_sensor found no result asset of resource {resource_key!r}: "
    if not specs:
        return message + "pass what @batchor_assets returned"
    theirs = ", ".join(f"{asset_label(spec.key)} has {spec.metadata[RESOURCE_KEY]!r}" for spec in specs)
    return message + f"{theirs}. Give the assets and the builder the same resource_key="


def tick_seconds() -> float:
    """How long a tick may take: Dagster's own limit less a margin, and at least five seconds."""
    limits = (os.environ.get(variable) for variable in TICK_LIMIT_VARIABLES)
    limit = next((float(text) for text in limits if text), DEFAULT_TICK_LIMIT_SEC)
    return max(5.0, limit - TICK_MARGIN_SEC)
