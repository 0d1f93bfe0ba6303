"""The `<name>_batch` asset: reads the rows, sends what the budget allows, and ends."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import dagster as dg
from pydantic import BaseModel

from batchor_dagster.engine_runs import GENERATION_LABEL, Slot, asset_label, generation_of, run_info
from batchor_dagster.reports import submission_metadata
from batchor_dagster.resources import BatchorResource
from batchor_engine import BatchJob, BatchorError, BatchRunner, UnknownRunError

JobFunction = Callable[..., BatchJob[Any, Any]]
KIND_PREFIX = "dagster/kind/"


def submission_asset(
    fn: JobFunction,
    spec: dg.AssetSpec,
    *,
    results_key: dg.AssetKey,
    model: type[BaseModel] | None,
    resource_key: str,
    cancel_on_termination: bool,
    **op_args: Any,
) -> dg.AssetsDefinition:
    """An asset with the inputs, config and resources of `fn`, which submits the job that `fn` returns."""
    wanted = inspect.signature(fn).parameters

    def submit(context: dg.AssetExecutionContext, **given: Any) -> dg.MaterializeResult:
        given["context"] = context
        with one_clear_failure():
            job = checked_job(fn(**{name: value for name, value in given.items() if name in wanted}), fn, model)
            return start(context, given[resource_key], job, results_key, cancel_on_termination=cancel_on_termination)

    adopt_signature(submit, fn, resource_key)
    return dg.asset(**_spec_args(spec), **op_args)(submit)


def _spec_args(spec: dg.AssetSpec) -> dict[str, Any]:
    """A spec as arguments of `dg.asset`, which, unlike `dg.multi_asset`, lets inputs be parameters."""
    fields = {
        "description": spec.description,
        "group_name": spec.group_name,
        "code_version": spec.code_version,
        "automation_condition": spec.automation_condition,
        "freshness_policy": spec.freshness_policy,
    }
    plain_tags = {name: value for name, value in spec.tags.items() if not name.startswith(KIND_PREFIX)}
    return {
        "key": spec.key,
        "deps": spec.deps,
        "metadata": spec.metadata,
        "tags": plain_tags,
        "kinds": spec.kinds,
        "owners": spec.owners,
        **{name: value for name, value in fields.items() if value is not None},
    }


def start(
    context: dg.AssetExecutionContext,
    batchor: BatchorResource,
    job: BatchJob[Any, Any],
    results_key: dg.AssetKey,
    *,
    cancel_on_termination: bool,
) -> dg.MaterializeResult:
    """Start or resume the engine run of this asset, partition and generation."""
    slot = slot_of_step(context, results_key)
    generation = generation_of(context.run, context.instance)
    with closing(batchor.runner()) as runner:
        run_id = slot.run_id(generation)
        with _terminated(context, runner, run_id, cancel=cancel_on_termination):
            runner.start(job, run_id=run_id, labels=slot.labels(**{GENERATION_LABEL: generation}))
        info = run_info(runner, slot, run_id)
        said = submission_metadata(runner.get_run(run_id), info, results=results_key)
    context.log.info(f"{info.run_id}: {info.summary.total_items} rows in {len(info.batches)} batches")
    return dg.MaterializeResult(metadata={**said})


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
        goes_on = "cancelled, answers that are paid for are still collected" if cancel else "goes on with what is sent"
        context.log.info(f"Terminated: {run_id} is {goes_on}; {summary.active_batches} batches are at the provider.")
        raise


def slot_of_step(context: dg.AssetExecutionContext, results_key: dg.AssetKey) -> Slot:
    """The asset and partition that a step works on."""
    if context.has_partition_key:
        return Slot(asset_label(results_key), context.partition_key)
    if context.assets_def.partitions_def is not None:
        raise dg.Failure(f"{asset_label(results_key)} works on one partition in a run: choose one", allow_retries=False)
    return Slot(asset_label(results_key))


def checked_job(job: object, fn: JobFunction, model: type[BaseModel] | None) -> BatchJob[Any, Any]:
    """The job with the decorator's model; the model is named once, on the decorator."""
    if not isinstance(job, BatchJob):
        raise dg.Failure(f"{fn.__name__} must return a BatchJob, not {type(job).__name__}", allow_retries=False)
    if job.structured_output is not None and job.structured_output is not model:
        raise dg.Failure(
            f"{fn.__name__} returns a job for {job.structured_output.__name__}: name the model on @batchor_assets "
            "(structured_output=…) instead",
            allow_retries=False,
        )
    return replace(job, structured_output=model)


@contextmanager
def one_clear_failure() -> Iterator[None]:
    """Turn an error of the engine, or a bad value, into a failure whose description is the error's own sentence."""
    try:
        yield
    except (BatchorError, ValueError) as error:
        raise dg.Failure(description=str(error), allow_retries=not isinstance(error, ValueError)) from error


def adopt_signature(submit: Callable[..., Any], fn: JobFunction, resource_key: str) -> None:
    """Give `submit` the name, docstring and parameters of `fn`, types resolved, plus `context` and our resource.

    The resource is a parameter because Dagster refuses a decorator that names resources when `fn` takes some itself.
    """
    types = {"context": dg.AssetExecutionContext, resource_key: BatchorResource}
    own = [one for one in inspect.signature(fn, eval_str=True).parameters.values() if one.name not in types]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [*(inspect.Parameter(name, kind, annotation=hint) for name, hint in types.items()), *own]
    submit.__name__, submit.__doc__, submit.__module__ = fn.__name__, fn.__doc__, fn.__module__
    submit.__annotations__ = {one.name: one.annotation for one in parameters if one.annotation is not one.empty}
    submit.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
