"""The `<name>` asset: brings in what is due, and materializes once the run has ended."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import dagster as dg

from batchor_dagster.checks import BatchorChecks, check_specs
from batchor_dagster.columns import Form, column_schema, failure_schema
from batchor_dagster.delivery import Delivery
from batchor_dagster.engine_runs import (
    Slot,
    asset_label,
    lost_outcome,
    newest_by_slot,
    newest_run,
    runs_of,
    slots_of,
    views,
)
from batchor_dagster.forms import ValueForm
from batchor_dagster.lost_store import elsewhere, lacks
from batchor_dagster.metadata import (
    COLUMN_SCHEMA_KEY,
    FAILURES_KEY,
    FAILURES_OF_KEY,
    OUTCOME_TAG,
    RESOURCE_KEY,
    RESULTS_OF_KEY,
    RUN_ID_TAG,
    SENSOR_TAG,
)
from batchor_dagster.outcome import Ended, Target
from batchor_dagster.partitions import partitions_of_step
from batchor_dagster.reports import pending_message
from batchor_dagster.resources import BatchorResource
from batchor_dagster.troubles import runner_of
from batchor_dagster.unread import unread
from batchor_engine import BatchRunner, Run, RunInfo, UnknownRunError, counted

OnPending = Literal["skip", "wait", "fail"]


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
    form: Form,
    policy: ResultPolicy,
    io_manager_key: str,
    io_manager_value: ValueForm,
    failures: dg.AssetSpec | None,
    **op_args: Any,
) -> dg.AssetsDefinition:
    """An asset that yields nothing until its run has ended, and with `failures` one of the rows that failed."""
    key = spec.key
    target = Target(
        key=key,
        checks=policy.checks,
        submitted_by=submitted_by,
        failures=failures.key if failures else None,
        io_manager_key=io_manager_key,
        value=io_manager_value,
        resource_key=policy.resource_key,
    )
    ours: dict[str, Any] = {
        COLUMN_SCHEMA_KEY: column_schema(form),
        RESULTS_OF_KEY: submitted_by.to_user_string(),
        RESOURCE_KEY: policy.resource_key,
    }
    if failures:
        ours[FAILURES_KEY] = failures.key.to_user_string()
    known = [spec.replace_attributes(skippable=True).merge_attributes(metadata=ours)]
    if failures:
        of = {FAILURES_OF_KEY: key.to_user_string(), COLUMN_SCHEMA_KEY: failure_schema()}
        known.append(failures.replace_attributes(skippable=True).merge_attributes(metadata=of))

    @dg.multi_asset(
        name=key.to_python_identifier(),
        specs=[one.with_io_manager_key(io_manager_key) for one in known],
        check_specs=check_specs(key, policy.checks),
        can_subset=True,
        required_resource_keys={policy.resource_key, io_manager_key},
        **op_args,
    )
    def results(context: dg.AssetExecutionContext) -> Iterator[Any]:
        batchor: BatchorResource = getattr(context.resources, policy.resource_key)
        with runner_of(batchor, context.log) as runner:
            yield from bring_in(context, runner, target, policy)

    return results


def bring_in(
    context: dg.AssetExecutionContext,
    runner: BatchRunner,
    target: Target,
    policy: ResultPolicy,
) -> Iterator[Any]:
    """One round of the runs that this step is for; events only for partitions whose run has ended."""
    key, asset = target.key, asset_label(target.key)
    slots = [Slot(asset, partition) for partition in partitions_of_step(context)] or [Slot(asset)]
    # A run that the sensor asked for does one round, whatever a person's run would do.
    on_pending = "skip" if SENSOR_TAG in context.run.tags else policy.on_pending
    newest = _newest(runner, slots)
    infos = {info.run_id: info for info in _advanced(context, runner, newest, slots, on_pending)}
    ended = list(_ended(context, runner, newest, infos))
    missing = [slot for slot in slots if slot not in newest]
    delivered = Delivery(context, target)
    try:
        if len(slots) == 1:
            yield from (event for one in ended for event in delivered.one(one))
        else:
            yield from delivered.many(ended, len(slots))
    except dg.Failure:
        # The sensor recognises by this tag that the partitions show what became of the run.
        for info in infos.values():
            context.instance.add_run_tags(context.run.run_id, {OUTCOME_TAG: lost_outcome(info)})
        raise
    if missing:
        raise _never_submitted(context, runner, missing, target.submitted_by)
    pending = [info for info in infos.values() if not info.is_finished]
    latest = {info.run_id for info in newest.values()}
    by = target.submitted_by.to_user_string()
    reading = {info.run_id: unread(info, context.instance, by) if info.run_id in latest else "" for info in pending}
    messages = [pending_message(info, key, policy.resource_key, reading=reading[info.run_id]) for info in pending]
    if messages and on_pending == "fail":
        raise dg.Failure(" ".join(messages))
    for message in messages:
        context.log.info(message)


def _newest(runner: BatchRunner, slots: Sequence[Slot]) -> dict[Slot, RunInfo]:
    if len(slots) == 1:
        found = newest_run(runner, slots[0])
        return {slots[0]: found} if found else {}
    every = newest_by_slot(runs_of(runner, slots[0].asset))
    return {slot: every[slot] for slot in slots if slot in every}


def _never_submitted(
    context: dg.AssetExecutionContext, runner: BatchRunner, missing: Sequence[Slot], submitted_by: dg.AssetKey
) -> dg.Failure:
    more = f" and {counted(len(missing) - 1, 'more partition')}" if len(missing) > 1 else ""
    message = f"Nothing was submitted for {missing[0]}{more}: materialize {submitted_by.to_user_string()} first."
    known = elsewhere(context.instance, runner, submitted_by, missing[0].partition)
    return dg.Failure(known or message, allow_retries=False)


def _advanced(
    context: dg.AssetExecutionContext,
    runner: BatchRunner,
    newest: Mapping[Slot, RunInfo],
    slots: Sequence[Slot],
    on_pending: OnPending,
) -> Iterator[RunInfo]:
    """The engine runs of a step after a round each: the one that the tags name, else the latest of every partition."""
    named = context.run.tags.get(RUN_ID_TAG)
    if named is not None and not _belongs(runner, named, slots):
        raise ValueError(lacks(runner, named) or f"Run {named} does not belong to {slots[0]}.")
    for run_id in [named] if named else dict.fromkeys(info.run_id for info in newest.values()):
        advance(runner.get_run(run_id), on_pending)
        yield runner.info(run_id)


def _belongs(runner: BatchRunner, run_id: str, slots: Sequence[Slot]) -> bool:
    try:
        return not set(slots).isdisjoint(slots_of(runner.info(run_id)))
    except UnknownRunError:
        return False


def _ended(
    context: dg.AssetExecutionContext,
    runner: BatchRunner,
    newest: Mapping[Slot, RunInfo],
    infos: Mapping[str, RunInfo],
) -> Iterator[Ended]:
    """The partitions whose latest run has ended, each with its own rows of that run."""
    for info in infos.values():
        if not info.is_finished:
            continue
        own = [slot for slot, latest in newest.items() if latest.run_id == info.run_id]
        for slot, (rows, facts) in views(runner, info, own).items():
            yield Ended(rows, facts, slot.partition)
        for slot in set(slots_of(info)).intersection(newest).difference(own):
            context.log.info(
                f"{info.run_id} has ended, but {newest[slot].run_id} was submitted later for {slot}: nothing to "
                "materialize."
            )


def advance(run: Run, on_pending: OnPending) -> None:
    """Poll, collect and submit once; with "wait" until the run has ended, which holds this worker."""
    if run.is_finished:
        return
    run.refresh()
    if on_pending == "wait":
        run.wait()
