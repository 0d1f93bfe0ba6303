"""Dagster runs that submit an asset: whoever submits one of its partitions beside them pays for the rows twice.

Law: reads Dagster's records only. A run whose worker must be gone holds nobody back.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime

import dagster as dg

from batchor_dagster.backfills import CodeLocation
from batchor_dagster.ledger import GIVEN_UP_SEC, UNFINISHED, is_given_up

# On a failed run that Dagster's run_retries will start again, and the id of the run that it then started.
WILL_RETRY_TAG, RETRY_TAG = "dagster/will_retry", "dagster/auto_retry_run_id"


def at_work(instance: dg.DagsterInstance) -> Sequence[dg.DagsterRun]:
    """Runs that have not ended, queued ones included, and failed ones that Dagster itself is about to retry."""
    found = _unfinished(instance)
    since = datetime.fromtimestamp(time.time() - GIVEN_UP_SEC, UTC)
    # Where nothing retries for so long, the daemon that would is gone.
    marked = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], tags={WILL_RETRY_TAG: "true"}, updated_after=since)
    failed = [record.dagster_run for record in instance.get_run_records(marked)]
    # In this order: what has failed since the first look is seen as failed, and then as its retry.
    retries = _unfinished(instance) if failed else []
    return [*found, *(run for run in failed if RETRY_TAG not in run.tags), *retries]


def _unfinished(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    found = instance.get_run_records(dg.RunsFilter(statuses=UNFINISHED))
    return [record.dagster_run for record in found if not is_given_up(record)]


def submits(run: dg.DagsterRun, key: dg.AssetKey, here: CodeLocation) -> bool:
    """Whether an asset is among what a run materializes."""
    job = run.remote_job_origin
    return key in (run.asset_selection or here.assets_of_job(run.job_name, job and job.repository_origin))
