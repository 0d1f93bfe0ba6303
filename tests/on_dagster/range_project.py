"""An asset whose backfills make one run of each range, as the code location of a real `dagster dev`."""

import os
from pathlib import Path

import dagster as dg

from batchor_dagster import BatchorResource, batchor_assets, build_batchor_definitions
from batchor_engine import BatchJob
from tests.on_dagster.actor import FOLDER_VARIABLE, URL_VARIABLE
from tests.on_dagster.shop import FOUR_ROWS, days, job_for

SINGLE = dg.BackfillPolicy.single_run()
FAILS = "2026-03-03"


@batchor_assets(partitions_def=days, backfill_policy=SINGLE)
def triage(context: dg.AssetExecutionContext) -> BatchJob:
    return job_for(FOUR_ROWS[2:3] if context.partition_key == FAILS else FOUR_ROWS[:2])


folder = Path(os.environ[FOLDER_VARIABLE])
defs = build_batchor_definitions(
    assets=[triage],
    resources={
        "batchor": BatchorResource(
            store_url=f"sqlite:///{folder / 'runs.sqlite3'}",
            artifacts_url=str(folder / "artifacts"),
            api_key="sk-test",
            base_url=os.environ[URL_VARIABLE],
        )
    },
    minimum_interval_seconds=5,
)
