"""The `<name>` asset: brings in what is due, and materializes once the run has ended."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

import dagster as dg
from pydantic import BaseModel

from batchor_dagster.checks import BatchorChecks, check_specs
from batchor_dagster.columns import column_schema
from batchor_dagster.engine_runs import newest_run, run_info
from batchor_dagster.metadata import COLUMN_SCHEMA_KEY, RESOURCE_KEY, RESULTS_OF_KEY, RUN_ID_TAG, SENSOR_TAG
from batchor_dagster.outcome import Ended, outcome
from batchor_dagster.reports import pending_message
from batchor_dagster.resources import BatchorResource
from batchor_dagster.submission import one_clear_failure, slot_of_step
from batchor_engine import BatchRunner, Run

OnPending = Literal["skip", "wait", "fail"]


def polling_sensor_name(resource_key: str) -> str:
    """The sensor that looks after the assets of one resource, unless it was given another name."""
    return f"{resource_key}_polling_sensor"


@dataclass(frozen=True, kw_only=True)
class ResultPolicy:
    """What the result asset does with an unfinished run, and what it asks of a finished one."""

    resource_key: str
    on_pending: OnPending
    checks: BatchorChecks


def results_asset(
    spec: dg.AssetSpec,
    *,
    submitted_by: dg.AssetKey,
    model: type[BaseModel] | None,
    policy: ResultPolicy,
    io_manager_key: str,
    **op_args: Any,
) -> dg.AssetsDefinition:
    """An asset that yields nothing until its run has ended."""
    key = spec.key
    ours = {
        COLUMN_SCHEMA_KEY: column_schema(model),
        RESULTS_OF_KEY: submitted_by.to_user_string(),
        RESOURCE_KEY: policy.resource_key,
    }
    known = spec.replace_attributes(skippable=True).merge_attributes(metadata=ours)

    @dg.multi_asset(
        name=key.to_python_identifier(),
        specs=[known.with_io_manager_key(io_manager_key)],
        check_specs=check_specs(key, policy.checks),
        can_subset=True,
        required_resource_keys={policy.resource_key},
        **op_args,
    )
    def results(context: dg.AssetExecutionContext) -> Iterator[Any]:
        batchor: BatchorResource = getattr(context.resources, policy.resource_key)
        with one_clear_failure(), closing(batchor.runner()) as runner:
            yield from bring_in(context, runner, key, policy, submitted_by)

    return results


def bring_in(
    context: dg.AssetExecutionContext,
    runner: BatchRunner,
    key: dg.AssetKey,
    policy: ResultPolicy,
    submitted_by: dg.AssetKey,
) -> Iterator[Any]:
    """One round of the run that this step is for; events only when it has ended."""
    slot = slot_of_step(context, key)
    newest = newest_run(runner, slot)
    if newest is None:
        raise dg.Failure(f"Nothing was submitted for {slot}: materialize its _batch asset first.", allow_retries=False)
    run = runner.get_run(context.run.tags.get(RUN_ID_TAG, newest.run_id))
    # A run that the sensor asked for does one round, whatever a person's run would do.
    on_pending = "skip" if SENSOR_TAG in context.run.tags else policy.on_pending
    advance(run, on_pending)
    info = run_info(runner, slot, run.run_id)
    if not info.is_finished:
        message = pending_message(info, key, polling_sensor_name(policy.resource_key))
        if on_pending == "fail":
            raise dg.Failure(message)
        context.log.info(message)
    elif info.run_id != newest.run_id:
        context.log.info(f"{info.run_id} has ended, but {newest.run_id} was submitted later: nothing to materialize.")
    else:
        yield from outcome(context, Ended(run, info, slot.partition), key, policy.checks, submitted_by=submitted_by)


def advance(run: Run, on_pending: OnPending) -> None:
    """Poll, collect and submit once; with "wait" until the run has ended, which holds this worker."""
    if run.is_finished:
        return
    run.refresh()
    if on_pending == "wait":
        run.wait()
