"""Dagster runs that submit an asset: whoever submits one of its partitions beside them pays for the rows twice.

Law: reads Dagster's records only. A run whose worker must be gone holds nobody back.
"""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from batchor_dagster.backfills import AssetsOfJob
from batchor_dagster.ledger import UNFINISHED, is_given_up


def at_work(instance: dg.DagsterInstance) -> Sequence[dg.DagsterRun]:
    """Runs that have not ended, queued ones included."""
    found = instance.get_run_records(dg.RunsFilter(statuses=UNFINISHED))
    return [record.dagster_run for record in found if not is_given_up(record)]


def submits(run: dg.DagsterRun, key: dg.AssetKey, selected_by: AssetsOfJob) -> bool:
    """Whether an asset is among what a run materializes."""
    return key in (run.asset_selection or selected_by(run.job_name))
