"""The `<name>_batch` asset: reads the rows, sends what the budget allows, and ends."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import dagster as dg
from pydantic import BaseModel

from batchor_dagster.config import CONFIG_PARAMETER, config_class, run_config_of
from batchor_dagster.launch import submit
from batchor_dagster.partitions import ByPartition, for_partition, partitions_of_step, takes_ranges
from batchor_dagster.resources import BatchorResource
from batchor_dagster.troubles import runner_of
from batchor_engine import BatchJob

JobFunction = Callable[..., BatchJob[Any, Any]]
KIND_PREFIX = "dagster/kind/"
_RESOURCE_MARK: Any = getattr(dg.ResourceParam[Any], "__metadata__", ())


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

    def job(given: dict[str, Any]) -> BatchJob[Any, Any]:
        return checked_job(fn(**{name: value for name, value in given.items() if name in wanted}), fn, model)

    def asset(context: dg.AssetExecutionContext, **given: Any) -> Iterator[dg.MaterializeResult]:
        batchor: BatchorResource = given[resource_key]
        config = run_config_of(given.get(CONFIG_PARAMETER))
        keys = partitions_of_step(context)
        with runner_of(batchor, context.log) as runner:
            several = [for_partition(given, context, keys, key) for key in keys] if len(keys) > 1 else []
            jobs = [job(one) for one in several or [{**given, "context": context}]]
            yield from submit(
                context,
                runner,
                jobs,
                results_key,
                config,
                resource_key=resource_key,
                cancel_on_termination=cancel_on_termination,
            )

    by_partition = takes_ranges(op_args.get("backfill_policy"))
    adopt_signature(asset, fn, resource_key, by_partition=by_partition, name=spec.key.to_python_identifier())
    return dg.asset(**_spec_args(spec), output_required=False, **op_args)(asset)


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


def checked_job(job: object, fn: JobFunction, model: type[BaseModel] | None) -> BatchJob[Any, Any]:
    """The job with the decorator's model; the model is named once, on the decorator."""
    if not isinstance(job, BatchJob):
        raise dg.Failure(
            f"{fn.__name__} must return a BatchJob, not {type(job).__name__}: end it with return BatchJob(…)",
            allow_retries=False,
        )
    if job.structured_output is not None and job.structured_output is not model:
        raise dg.Failure(
            f"{fn.__name__} returns a job for {job.structured_output.__name__}: name the model on @batchor_assets "
            "(structured_output=…) instead",
            allow_retries=False,
        )
    return replace(job, structured_output=model)


def adopt_signature(
    asset: Callable[..., Any], fn: JobFunction, resource_key: str, *, by_partition: bool, name: str
) -> None:
    """Give `asset` the name, docstring and parameters of `fn`, types resolved, plus `context`, our resource and config.

    The resource is a parameter because Dagster refuses a decorator that names resources when `fn` takes some itself.
    With `by_partition` an input may also arrive as a dict over partitions.
    """
    types: dict[str, Any] = {"context": dg.AssetExecutionContext, resource_key: BatchorResource}
    config = config_class(fn)
    if config is not None:
        types[CONFIG_PARAMETER] = config
    own = [one for one in inspect.signature(fn, eval_str=True).parameters.values() if one.name not in types]
    if by_partition:
        own = [_by_partition(one, name) for one in own]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [*(inspect.Parameter(key, kind, annotation=hint) for key, hint in types.items()), *own]
    asset.__name__, asset.__doc__, asset.__module__ = fn.__name__, fn.__doc__, fn.__module__
    asset.__annotations__ = {one.name: one.annotation for one in parameters if one.annotation is not one.empty}
    asset.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]


def _by_partition(parameter: inspect.Parameter, asset: str) -> inspect.Parameter:
    hint = parameter.annotation
    is_resource = getattr(hint, "__metadata__", None) == _RESOURCE_MARK or (
        isinstance(hint, type) and issubclass(hint, dg.ConfigurableResource)
    )
    if is_resource or hint is parameter.empty:
        return parameter
    return parameter.replace(annotation=ByPartition(f"{asset}_{parameter.name}", hint))
