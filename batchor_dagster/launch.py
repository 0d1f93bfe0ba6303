"""Starting the engine run of a step, or going on with it.

Law: the same asset, partitions and generation are the same engine run, however often a step is repeated; what is asked
of it in another way than it was started is refused before anything is sent.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dagster as dg

from batchor_dagster.backfills import CodeLocation, left_to, starting_runs
from batchor_dagster.config import (
    NEW,
    RESUME,
    BatchorRunConfig,
    labels_for,
    overridden,
    stored_overrides,
)
from batchor_dagster.engine_runs import (
    ASSET_LABEL,
    DUE,
    GENERATION_LABEL,
    Slot,
    SlotRange,
    asset_label,
    generation_of,
    is_cancelled,
    latest_for,
    member_label,
    newest_run,
    slots_of,
    target,
    target_of,
    views,
)
from batchor_dagster.metadata import GENERATION_TAG, LATEST_RUN_TAG, BatchorMetadataSet
from batchor_dagster.partitions import is_within, partitions_of_step
from batchor_dagster.reports import in_batches, submission_metadata, why_waiting
from batchor_dagster.submitters import at_work, submits
from batchor_dagster.unread import cut_short
from batchor_engine import (
    BatchJob,
    BatchRunner,
    RunInfo,
    RunMismatchError,
    RunSummary,
    UnknownRunError,
    counted,
    grouped_job,
)

Jobs = list[BatchJob[Any, Any]]


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One engine run to be: for what, as which generation, and what the launchpad changes about the job.

    With `left` it is somebody else's, which this says, and nothing is sent.
    """

    where: Slot | SlotRange
    run_id: str
    generation: str
    overrides: dict[str, Any]
    left: str = ""

    def job(self, jobs: Jobs) -> BatchJob[Any, Any]:
        """One job out of those of the partitions."""
        changed = [overridden(job, self.overrides) for job in jobs]
        return changed[0] if len(changed) == 1 else grouped_job(dict(enumerate(changed, start=1)))

    def labels(self) -> dict[str, str]:
        return self.where.labels(**{GENERATION_LABEL: self.generation}, **labels_for(self.overrides))


def submit(
    context: dg.AssetExecutionContext,
    runner: BatchRunner,
    jobs: Jobs,
    results_key: dg.AssetKey,
    config: BatchorRunConfig,
    *,
    resource_key: str,
    cancel_on_termination: bool,
) -> Iterator[dg.MaterializeResult]:
    """Start or resume the engine run of this step and say what went out; `jobs` are those of its partitions.

    Nothing is yielded, and so nothing shown, where somebody else submits the partition since a sensor asked for it.
    """
    launch = plan_launch(context, runner, target(asset_label(results_key), partitions_of_step(context)), config)
    if launch.left:
        context.log.info(f"{launch.left}: nothing is sent.")
        return
    sent_before = _sent(runner, launch.run_id)
    stopped = _terminated(context, runner, launch.run_id, cancel=cancel_on_termination)
    with stopped, _way_out(launch), _warned(context, launch):
        runner.start(launch.job(jobs), run_id=launch.run_id, labels=launch.labels())
    info = runner.info(launch.run_id)
    if is_cancelled(info):
        raise dg.Failure(
            f"{info.run_id} was cancelled, so nothing goes out any more: materialize {launch.where} in a new run, not "
            "as a re-execution, for a new generation",
            allow_retries=False,
        )
    if sent_before == _sent(runner, info.run_id):
        context.log.info(f"Goes on with run {info.run_id}; nothing new was sent.")
    else:
        context.log.info(f"{info.run_id}: {counted(info.summary.total_items, 'row')}{in_batches(info)}")
    submitted_by = asset_label(context.assets_def.key)
    reading = "" if info.reading_finished else cut_short(info, context.run.run_id, submitted_by)
    said = submission_metadata(
        runner.get_run(info.run_id), info, results=results_key, resource_key=resource_key, reading=reading
    )
    if reading:
        context.log.warning(reading)
    if said.paused:
        context.log.warning(f"{info.run_id} is paused. {said.paused}")
    elif waits := why_waiting(info):
        context.log.warning(f"{info.run_id} is not all sent.{waits} The sensor sees to it.")
    yield dg.MaterializeResult(metadata={**said, **_particulars(context, runner, launch, info)})


def _sent(runner: BatchRunner, run_id: str) -> set[str | None] | None:
    """The provider's batches of a run; None where there is no such run."""
    try:
        return {batch.provider_batch_id for batch in runner.info(run_id).batches} - {None}
    except UnknownRunError:
        return None


def plan_launch(
    context: dg.AssetExecutionContext, runner: BatchRunner, where: Slot | SlotRange, config: BatchorRunConfig
) -> Launch:
    """Which engine run is meant; a dg.Failure where there is nothing to resume, or it was started differently."""
    generation = config.generation
    if config.generation == NEW:
        generation = generation_of(context.run, context.instance)
        _keep_generation(context, generation)
        if left := _left_to(context, runner, where, generation):
            run_id = where.run_id(generation)
            return Launch(where=where, run_id=run_id, generation=generation, overrides={}, left=left)
    stored = _stored(context, runner, where, config.generation)
    if stored is None:
        return Launch(where=where, run_id=where.run_id(generation), generation=generation, overrides=config.overrides())
    started_with = stored_overrides(stored)
    overrides = {**started_with, **config.overrides()}
    if overrides.get("first_rows") != started_with.get("first_rows"):
        raise dg.Failure(
            f"{stored.run_id} was started with first_rows {started_with.get('first_rows')}, not "
            f"{overrides['first_rows']}: {_OTHER_GENERATION}",
            allow_retries=False,
        )
    return Launch(
        where=where,
        run_id=stored.run_id,
        generation=stored.labels.get(GENERATION_LABEL, generation),
        overrides=overrides,
    )


def _keep_generation(context: dg.AssetExecutionContext, generation: str) -> None:
    """Tag a run with a generation that its ids do not tell, so that its re-executions have it for ever.

    Dagster copies no tag of a backfill that has ended, and the root run, which has it, may be deleted.
    """
    run = context.run
    if generation not in (run.run_id, run.root_run_id, run.tags.get(GENERATION_TAG)):
        context.instance.add_run_tags(run.run_id, {GENERATION_TAG: generation})


def _left_to(context: dg.AssetExecutionContext, runner: BatchRunner, where: Slot | SlotRange, generation: str) -> str:
    """Who else has submitted a partition, or is about to, after a submission sensor had asked for this run.

    A run that waited in a queue would pay for the same rows again; what has changed since then, the sensor sees.
    """
    if not generation.startswith(DUE) or isinstance(where, SlotRange):
        return ""
    # In this order: what a backfill starts meanwhile is seen as a run of Dagster, and what that sends as the engine's.
    here = _location(context)
    awaited = left_to(starting_runs(context.instance), context.assets_def.key, here)
    rival = _rival(context, where.partition, here)
    newest, own = newest_run(runner, where), where.run_id(generation)
    if newest is not None and newest.run_id not in {own, context.run.tags.get(LATEST_RUN_TAG)}:
        return f"{newest.run_id} was submitted for {where} since the sensor asked for it"
    if newest is not None and newest.run_id == own:
        return ""
    if backfill := awaited.get(where.partition):
        return f"{where} is left to backfill {backfill}, which has yet to start its run"
    return f"{where} is left to Dagster's run {rival}, which is queued, at work or to be retried" if rival else ""


def _rival(context: dg.AssetExecutionContext, partition: str, here: CodeLocation) -> str | None:
    """A run of Dagster, not of a submission sensor, that submits a partition, or will when Dagster retries it.

    Only a sensor's run yields, so none that it yields to yields to it.
    """
    instance, asset = context.instance, context.assets_def
    partitions = asset.partitions_def
    stored = partitions.get_partition_keys(dynamic_partitions_store=instance) if partitions else []
    for run in at_work(instance):
        if not submits(run, asset.key, here):
            continue
        if is_within(run.tags, partition, stored) and not generation_of(run, instance).startswith(DUE):
            return run.run_id
    return None


def _location(context: dg.AssetExecutionContext) -> CodeLocation:
    job = context.run.remote_job_origin
    name = job.repository_origin.code_location_origin.location_name if job else None
    try:
        return CodeLocation(context.repository_def, name)
    except Exception:  # noqa: BLE001 - Dagster has no question for it, and its error is of a private class
        # A run outside a code location, where no job is known.
        return CodeLocation(None, name)


_NEW_GENERATION = "materialize in a new run for a new generation"
_OTHER_GENERATION = "leave it as it was to go on, or materialize with generation: new to start over and pay again"


def _stored(
    context: dg.AssetExecutionContext, runner: BatchRunner, where: Slot | SlotRange, generation: str
) -> RunInfo | None:
    """The run to go on with, if there is one."""
    if generation == RESUME:
        found = latest_for(runner, where)
        if found is None:
            raise dg.Failure(f"There is no run of {where} to resume: materialize it with generation: new", None, False)
        return found
    name = generation_of(context.run, context.instance) if generation == NEW else generation
    try:
        found = runner.info(where.run_id(name))
    except UnknownRunError:
        _refuse_another_cut(runner, where, name)
        return None
    if [slot.partition for slot in slots_of(found)] != _partitions(where):
        raise dg.Failure(
            f"{found.run_id} was started for {counted(len(slots_of(found)), 'partition')}, and now there are others "
            f"between its ends: {_NEW_GENERATION}",
            allow_retries=False,
        )
    return found


def _refuse_another_cut(runner: BatchRunner, where: Slot | SlotRange, generation: str) -> None:
    """A backfill that is run again may cut its partitions into other ranges: their rows would be paid twice."""
    mine = {ASSET_LABEL: where.asset, GENERATION_LABEL: generation}
    if isinstance(where, Slot):
        shared = {**mine, **member_label(where.partition)} if where.partition else None
        found = runner.find_runs(shared, limit=1) if shared else []
    else:
        wanted = set(where.partitions)
        found = [
            one for one in runner.find_runs(mine) if not wanted.isdisjoint(slot.partition for slot in slots_of(one))
        ]
    if found:
        raise dg.Failure(
            f"{found[0].run_id} was started for {target_of(found[0])} in this generation, and {where} would pay for "
            f"some rows again: re-execute that run, or {_NEW_GENERATION}",
            allow_retries=False,
        )


def _partitions(where: Slot | SlotRange) -> list[str]:
    return [where.partition] if isinstance(where, Slot) else list(where.partitions)


@contextmanager
def _way_out(launch: Launch) -> Iterator[None]:
    """Say in Dagster's words what to do about a run that was started with something else."""
    try:
        yield
    except RunMismatchError as error:
        reason = str(error).partition(" Pass the same job")[0].partition(" Start a new run_id")[0]
        raise dg.Failure(f"{reason} In the launchpad: {_OTHER_GENERATION}.", allow_retries=False) from error
    except ValueError as error:
        if isinstance(launch.where, SlotRange) and "groups" in str(error):
            raise ValueError(f"{launch.where}: {error} (its partitions, in order, are the groups)") from error
        raise
    except TypeError as error:
        # What the engine says of an item or a prompt of the wrong kind, and what the user's own code raises.
        raise dg.Failure(f"{launch.where}: {error}", allow_retries=False) from error


@contextmanager
def _warned(context: dg.AssetExecutionContext, launch: Launch) -> Iterator[None]:
    """What the engine warns of, in the log of the Dagster run; warnings of others, as from a prompt, go their way."""

    def show(message: Warning | str, category: type[Warning], filename: str, *rest: Any) -> None:
        if filename == __file__:
            said = str(message).replace("start a new run_id", _NEW_GENERATION)
            context.log.warning(f"{launch.where}: {said}")
        else:
            elsewhere(message, category, filename, *rest)

    with warnings.catch_warnings():
        elsewhere = warnings.showwarning
        warnings.showwarning = show
        # Python tells a warning of one place once, and a process may submit many partitions.
        warnings.filterwarnings("always", module=re.escape(__name__))
        yield


@contextmanager
def _terminated(context: dg.AssetExecutionContext, runner: BatchRunner, run_id: str, *, cancel: bool) -> Iterator[None]:
    """Say, when the Dagster run is terminated in the middle, what becomes of the engine's run; cancel it if asked to.

    The lease is free by then, and what is on its way to the provider is found again by the next round.
    """
    try:
        yield
    except dg.DagsterExecutionInterruptedError:
        try:
            summary = runner.cancel_run(run_id).summary() if cancel else runner.get_run(run_id).summary()
        except UnknownRunError:
            context.log.info(f"Terminated before {run_id} was stored: nothing was sent.")
            raise
        goes_on = "is cancelled, paid answers are still collected" if cancel else "goes on with what is sent"
        context.log.info(f"Terminated: {run_id} {goes_on}; {_at_provider(summary)}.")
        raise


def _at_provider(summary: RunSummary) -> str:
    count = summary.active_batches
    return f"{counted(count, 'batch')} {'is' if count == 1 else 'are'} at the provider"


def _particulars(
    context: dg.AssetExecutionContext, runner: BatchRunner, launch: Launch, info: RunInfo
) -> BatchorMetadataSet:
    """Generation, overrides and, for several partitions, how many rows each one has."""
    if isinstance(launch.where, SlotRange):
        for slot, (_, part) in views(runner, info, slots_of(info)).items():
            rows = BatchorMetadataSet(rows=part.summary.total_items)
            context.add_asset_metadata({**rows}, asset_key=context.assets_def.key, partition_key=slot.partition)
    return BatchorMetadataSet(
        generation=launch.generation,
        overrides=dg.JsonMetadataValue(launch.overrides) if launch.overrides else None,
        partitions=str(launch.where) if isinstance(launch.where, SlotRange) else None,
    )
