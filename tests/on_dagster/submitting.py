"""Definitions with a submission sensor, its ticks, and what they ask for."""

from __future__ import annotations

from typing import Any

import dagster as dg

from batchor_dagster import build_batchor_submission_sensor
from tests.on_dagster.shop import FOUR_ROWS, Shop, days, tickets_asset, triage_assets


def place(shop: Shop, *assets: Any, **options: Any) -> dg.Definitions:
    """Definitions with a submission sensor over these assets; daily triage without any."""
    found = assets or (tickets_asset(FOUR_ROWS, days), triage_assets(partitions_def=days))
    sensor = build_batchor_submission_sensor(assets=list(found), **options)
    return dg.Definitions.merge(shop.definitions(list(found)), dg.Definitions(sensors=[sensor]))


def tick(shop: Shop, defs: dg.Definitions) -> dg.SensorResult:
    context = dg.build_sensor_context(
        instance=shop.instance, resources={"batchor": shop.batchor}, repository_def=defs.get_repository_def()
    )
    with context:
        result = defs.resolve_sensor_def("batchor_submission_sensor")(context)
    assert isinstance(result, dg.SensorResult)
    return result


def asked(shop: Shop, defs: dg.Definitions) -> list[str | None]:
    return [request.partition_key for request in tick(shop, defs).run_requests or []]


def with_tickets(shop: Shop, defs: dg.Definitions, *partitions: str) -> None:
    for day in partitions:
        assert shop.materialize(defs, "tickets", partition_key=day).success


def submit_next(shop: Shop, defs: dg.Definitions) -> dg.ExecuteInProcessResult:
    (request,) = tick(shop, defs).run_requests or []
    return shop.obey(defs, request)
