"""Run control from the UI: one job for each thing that an operator may want of a run.

Law: a job acts on one run, which it names; what it did is in its log, its metadata and an observation of the asset.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from batchor_dagster.assets import AnyAssets, result_specs
from batchor_dagster.engine_runs import asset_label, newest_run, slot_of
from batchor_dagster.metadata import RESOURCE_KEY, RESULTS_OF_KEY, RUN_ID_TAG, BatchorMetadataSet
from batchor_dagster.orders import ORDERS, Call, Order, RunChoice, in_dagsters_words
from batchor_dagster.reports import progress_metadata
from batchor_dagster.resources import RESOURCE, BatchorResource, job_name
from batchor_dagster.selection import Wanted, choose
from batchor_dagster.troubles import runner_of
from batchor_dagster.unread import unread
from batchor_engine import BatchorError, BatchRunner, RunInfo, UnknownRunError


def build_batchor_jobs(*, assets: AnyAssets, resource_key: str = RESOURCE) -> list[dg.JobDefinition]:
    """`batchor_cancel`, `_pause`, `_resume`, `_retry_failed`, `_refresh`, `_collect`, `_export`, `_prune`, `_resolve`
    and `_delete` for the runs of the batch assets among `assets`; their launchpads open ready to launch.

    A store other than "batchor" gives the jobs its `resource_key` as prefix.

    Example:
        >>> dg.Definitions(jobs=build_batchor_jobs(assets=[triage]), ...)
    """
    specs = [spec for spec in result_specs(assets) if spec.metadata[RESOURCE_KEY] == resource_key]
    keys = {asset_label(spec.key): spec.key for spec in specs}
    batches = {asset_label(spec.key): spec.metadata[RESULTS_OF_KEY] for spec in specs}
    return [_job(order, keys, batches, resource_key) for order in ORDERS]


def _job(
    order: Order, keys: Mapping[str, dg.AssetKey], batches: Mapping[str, str], resource_key: str
) -> dg.JobDefinition:
    name = job_name(order.name, resource_key)
    # Ops and jobs of a code location share one space of names.
    op_name = order.name if resource_key == RESOURCE else f"{order.name}_{resource_key}"

    def act(context: dg.OpExecutionContext, config: RunChoice) -> dg.Output[None]:
        batchor: BatchorResource = getattr(context.resources, resource_key)
        with runner_of(batchor, context.log) as runner:
            return _carry_out(context, runner, order, keys, batches, config, resource_key)

    # Dagster reads the config's type from the signature.
    act.__annotations__["config"] = order.config
    body = dg.op(
        name=op_name,
        description=order.help,
        required_resource_keys={resource_key},
        out=dg.Out(dg.Nothing),
        tags={"dagster/kind": "openai"},
    )(act)

    @dg.job(
        name=name,
        description=order.help,
        executor_def=dg.in_process_executor,
        # What the launchpad opens with.
        config={"ops": {op_name: {"config": order.config().model_dump()}}},
    )
    def job() -> None:
        body()

    return job


def _carry_out(
    context: dg.OpExecutionContext,
    runner: BatchRunner,
    order: Order,
    keys: Mapping[str, dg.AssetKey],
    batches: Mapping[str, str],
    config: RunChoice,
    resource_key: str,
) -> dg.Output[None]:
    wanted = Wanted(
        config.asset, config.partition, config.run_id, order.fits, guesses=order.guesses, also_ended=order.also_ended
    )
    before = choose(runner, keys, wanted)
    context.instance.add_run_tags(context.run_id, {RUN_ID_TAG: before.run_id})
    slot = slot_of(before)
    unknown = None if slot.asset in keys else slot.asset
    try:
        sentence = order.act(Call(runner, runner.get_run(before.run_id), config, resource_key, unknown))
    except (BatchorError, ValueError) as error:
        reason = in_dagsters_words(str(error), resource_key)
        raise dg.Failure(reason, allow_retries=not isinstance(error, ValueError)) from error
    after = _after(runner, before.run_id)
    reading = _reading(context, runner, after, batches.get(slot.asset, "its batch asset")) if after else ""
    sentence = " ".join(filter(None, [sentence, reading]))
    told = _told(before, after, sentence, reading, resource_key)
    context.log.info(sentence)
    if slot.asset in keys:
        context.log_event(
            dg.AssetObservation(keys[slot.asset], partition=slot.partition or None, description=sentence, metadata=told)
        )
    return dg.Output(None, metadata=told)


def _after(runner: BatchRunner, run_id: str) -> RunInfo | None:
    try:
        return runner.info(run_id)
    except UnknownRunError:
        return None


def _reading(context: dg.OpExecutionContext, runner: BatchRunner, after: RunInfo, submitted_by: str) -> str:
    """Who reads the rest of the rows; empty where that is no question any more, or a later run answers it."""
    newest = newest_run(runner, slot_of(after))
    is_newest = newest is None or newest.run_id == after.run_id
    return unread(after, context.instance, submitted_by) if is_newest else ""


def _told(before: RunInfo, after: RunInfo | None, sentence: str, reading: str, resource_key: str) -> dict[str, Any]:
    if after is None:
        seen = BatchorMetadataSet(run_id=before.run_id, status="deleted")
    else:
        seen = progress_metadata(after, resource_key, reading=reading)
    return {**seen, **BatchorMetadataSet(action=sentence)}
