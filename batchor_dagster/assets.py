"""`@batchor_assets`: from a function that returns a job to the two assets that carry it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
from pydantic import BaseModel

from batchor_dagster.checks import BatchorChecks
from batchor_dagster.metadata import RESULTS_OF_KEY
from batchor_dagster.resources import RESOURCE
from batchor_dagster.results import OnPending, ResultPolicy, results_asset
from batchor_dagster.submission import JobFunction, submission_asset

IO_MANAGER_KEY = "batchor_io_manager"
DEFAULT_CHECKS = BatchorChecks()
AnyAssets = dg.AssetsDefinition | dg.AssetSpec | dg.SourceAsset | Sequence[Any]


def batchor_assets(
    *,
    name: str | None = None,
    structured_output: type[BaseModel] | None = None,
    partitions_def: dg.PartitionsDefinition | None = None,
    key_prefix: str | Sequence[str] | None = None,
    group_name: str | None = None,
    ins: Mapping[str, dg.AssetIn] | None = None,
    deps: Sequence[Any] | None = None,
    owners: Sequence[str] | None = None,
    tags: Mapping[str, str] | None = None,
    description: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    code_version: str | None = None,
    automation_condition: dg.AutomationCondition[Any] | None = None,
    retry_policy: dg.RetryPolicy | None = None,
    pool: str | None = None,
    on_pending: OnPending = "skip",
    checks: BatchorChecks = DEFAULT_CHECKS,
    io_manager_key: str = IO_MANAGER_KEY,
    resource_key: str = RESOURCE,
) -> Callable[[JobFunction], list[dg.AssetsDefinition]]:
    """Make `<name>_batch`, which submits the job, and `<name>`, which materializes its typed rows when it has ended.

    The decorated function takes upstream assets, config and resources like any asset function and returns a
    `BatchJob`. `automation_condition`, `retry_policy`, `pool`, `ins`, `deps` and `code_version` go to `<name>_batch`;
    partitions, group, owners, tags, description and metadata to both.

    Args:
        name: Name of the result asset; the function's name by default.
        structured_output: Model of one answer, at the top level of a module; None gives text.
        on_pending: What materializing `<name>` does while the provider works: "skip" yields nothing, "wait" holds the
            worker, "fail" turns the partition red.
        checks: Thresholds of the asset checks on `<name>`; by default at most 5 % of the rows may fail for good.
        io_manager_key: Who loads the rows for downstream assets.
        resource_key: Key of the `BatchorResource`.

    Example:
        >>> @batchor_assets(name="triage", structured_output=Triage, partitions_def=days)
        ... def triage(tickets) -> BatchJob: ...
    """
    shared = _given(group_name=group_name, owners=owners, tags=tags)
    submit_args = _given(
        ins=ins,
        deps=deps,
        code_version=code_version,
        automation_condition=automation_condition,
        retry_policy=retry_policy,
        pool=pool,
        partitions_def=partitions_def,
        metadata=metadata,
    )
    policy = ResultPolicy(
        resource_key=resource_key,
        on_pending=on_pending,
        checks=checks,
    )

    def build(fn: JobFunction) -> list[dg.AssetsDefinition]:
        text = description or fn.__doc__
        results_key = dg.AssetKey([*_prefix(key_prefix), name or fn.__name__])
        submit_key = dg.AssetKey([*results_key.path[:-1], f"{results_key.path[-1]}_batch"])
        submission = submission_asset(
            fn,
            results_key=results_key,
            model=structured_output,
            resource_key=resource_key,
            key=submit_key,
            kinds={"openai"},
            description=_described("Submits the rows to the provider and ends at once.", text),
            **shared,
            **submit_args,
        )
        results = results_asset(
            results_key,
            submitted_by=submit_key,
            model=structured_output,
            policy=policy,
            io_manager_key=io_manager_key,
            spec_args={
                "kinds": {"openai", "pydantic"} if structured_output else {"openai"},
                "description": _described("The provider's answers, row by row.", text),
                "metadata": dict(metadata or {}),
                **shared,
            },
            op_args=_given(partitions_def=partitions_def),
        )
        return [submission, results]

    return build


def flatten(assets: AnyAssets) -> Iterator[Any]:
    """Assets out of nested lists, in order."""
    for asset in assets if isinstance(assets, Sequence) else [assets]:
        if isinstance(asset, Sequence):
            yield from flatten(asset)
        else:
            yield asset


def result_specs(assets: AnyAssets) -> list[dg.AssetSpec]:
    """The specs of the result assets among these assets."""
    found = [spec for asset in flatten(assets) if isinstance(asset, dg.AssetsDefinition) for spec in asset.specs]
    return [spec for spec in found if RESULTS_OF_KEY in spec.metadata]


def _given(**args: Any) -> dict[str, Any]:
    return {name: value for name, value in args.items() if value is not None}


def _prefix(key_prefix: str | Sequence[str] | None) -> list[str]:
    return [key_prefix] if isinstance(key_prefix, str) else list(key_prefix or ())


def _described(what: str, text: str | None) -> str:
    return f"{text.strip()}\n\n{what}" if text else what
