"""`@batchor_assets`: from a function that returns a job to the two assets that carry it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, TypedDict, TypeGuard, Unpack, get_args

import dagster as dg
from pydantic import BaseModel

from batchor_dagster.checks import BatchorChecks
from batchor_dagster.forms import ValueForm
from batchor_dagster.job_parts import BatchorJobParts, job_function
from batchor_dagster.metadata import RESULTS_OF_KEY
from batchor_dagster.resources import RESOURCE
from batchor_dagster.results import OnPending, ResultPolicy, results_asset
from batchor_dagster.submission import JobFunction, submission_asset
from batchor_dagster.translator import BatchorAssetData, BatchorAssetRole, DagsterBatchorTranslator
from batchor_engine import ProviderConfig

IO_MANAGER_KEY = "batchor_io_manager"
DEFAULT_CHECKS = BatchorChecks()
DEFAULT_TRANSLATOR = DagsterBatchorTranslator()
AnyAssets = dg.AssetsDefinition | dg.AssetSpec | dg.SourceAsset | Sequence[Any]


class BatchorAssetOptions(TypedDict, total=False):
    """What two assets of a batch job take; `batchor_assets` says what each one means."""

    name: str | None
    structured_output: type[BaseModel] | None
    partitions_def: dg.PartitionsDefinition | None
    backfill_policy: dg.BackfillPolicy | None
    key_prefix: str | Sequence[str] | None
    group_name: str | None
    ins: Mapping[str, dg.AssetIn] | None
    deps: Sequence[Any] | None
    owners: Sequence[str] | None
    tags: Mapping[str, str] | None
    kinds: AbstractSet[str] | None
    description: str | None
    metadata: Mapping[str, Any] | None
    code_version: str | None
    automation_condition: dg.AutomationCondition[Any] | None
    results_automation_condition: dg.AutomationCondition[Any] | None
    freshness_policy: Any
    retry_policy: dg.RetryPolicy | None
    pool: str | None
    results_pool: str | None
    op_tags: Mapping[str, Any] | None
    hooks: AbstractSet[dg.HookDefinition] | None
    translator: DagsterBatchorTranslator
    on_pending: OnPending
    cancel_on_termination: bool
    checks: BatchorChecks
    failures_asset: bool
    io_manager_key: str
    io_manager_value: ValueForm
    resource_key: str


def batchor_assets(
    *,
    name: str | None = None,
    structured_output: type[BaseModel] | None = None,
    partitions_def: dg.PartitionsDefinition | None = None,
    backfill_policy: dg.BackfillPolicy | None = None,
    key_prefix: str | Sequence[str] | None = None,
    group_name: str | None = None,
    ins: Mapping[str, dg.AssetIn] | None = None,
    deps: Sequence[Any] | None = None,
    owners: Sequence[str] | None = None,
    tags: Mapping[str, str] | None = None,
    kinds: AbstractSet[str] | None = None,
    description: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    code_version: str | None = None,
    automation_condition: dg.AutomationCondition[Any] | None = None,
    results_automation_condition: dg.AutomationCondition[Any] | None = None,
    freshness_policy: Any = None,
    retry_policy: dg.RetryPolicy | None = None,
    pool: str | None = None,
    results_pool: str | None = None,
    op_tags: Mapping[str, Any] | None = None,
    hooks: AbstractSet[dg.HookDefinition] | None = None,
    translator: DagsterBatchorTranslator = DEFAULT_TRANSLATOR,
    on_pending: OnPending = "skip",
    cancel_on_termination: bool = False,
    checks: BatchorChecks = DEFAULT_CHECKS,
    failures_asset: bool = False,
    io_manager_key: str = IO_MANAGER_KEY,
    io_manager_value: ValueForm = "pandas",
    resource_key: str = RESOURCE,
) -> Callable[[JobFunction], list[dg.AssetsDefinition]]:
    """Make `<name>_batch`, which submits the job, and `<name>`, which materializes its typed rows when it has ended.

    The decorated function takes upstream assets, config and resources like any asset function and returns a
    `BatchJob`. `ins`, `deps`, `code_version`, `automation_condition` and `pool` go to `<name>_batch`; to `<name>` go
    `freshness_policy`, `results_automation_condition` and `results_pool`; everything else that Dagster knows, to both.

    Args:
        name: Name of the result asset; the function's name by default.
        structured_output: Model of one answer, at the top level of a module; None gives text.
        backfill_policy: With `dg.BackfillPolicy.single_run()` a range of partitions becomes one durable run with few
            provider batches. The function is called once for each partition, and the answers land by partition.
        retry_policy: Retries a step that failed; a retry goes on with what is submitted and never pays twice.
        translator: Makes key, description and kinds of both assets; what is given here wins.
        on_pending: What materializing `<name>` does while the provider works: "skip" yields nothing, "wait" holds the
            worker, "fail" turns the partition red.
        cancel_on_termination: Whether terminating the Dagster run of `<name>_batch` cancels what it has sent; otherwise
            that is paid for, and the sensor goes on with it.
        checks: Thresholds of the asset checks on `<name>`; by default at most 5 % of the rows may fail for good.
        failures_asset: Whether to make a third asset, `<name>_failures`, of the rows that failed for good. It is
            materialized with `<name>`, and also where not one row has an answer.
        io_manager_key: Who loads the rows for downstream assets. An IO manager that is not batchor's stores them, too.
        io_manager_value: As what it is given them: a pandas.DataFrame, a pyarrow.Table, or the list of the answers.
        resource_key: Key of the `BatchorResource`.

    Example:
        >>> @batchor_assets(name="triage", structured_output=Triage, partitions_def=days)
        ... def triage(tickets) -> BatchJob: ...
    """
    _check_options(structured_output, on_pending, io_manager_value)
    both = _given(partitions_def=partitions_def, backfill_policy=backfill_policy, retry_policy=retry_policy)
    both |= _given(op_tags=op_tags, hooks=hooks)
    shown = _given(group_name=group_name, owners=owners, tags=tags, kinds=kinds, metadata=metadata)
    pair = _Pair(
        structured_output=structured_output,
        policy=ResultPolicy(resource_key=resource_key, on_pending=on_pending, checks=checks),
        cancel_on_termination=cancel_on_termination,
        io_manager_key=io_manager_key,
        io_manager_value=io_manager_value,
        failures_asset=failures_asset,
        translator=translator,
        batch_spec_args=_given(deps=deps, code_version=code_version, automation_condition=automation_condition) | shown,
        results_spec_args=_given(
            automation_condition=results_automation_condition, freshness_policy=freshness_policy, **shown
        ),
        batch_op_args=_given(ins=ins, pool=pool, **both),
        results_op_args=_given(pool=results_pool, **both),
    )

    def build(fn: JobFunction) -> list[dg.AssetsDefinition]:
        return pair.build(fn, name or fn.__name__, _prefix(key_prefix), description or fn.__doc__)

    return build


def build_batchor_assets(
    *,
    job: JobFunction | None = None,
    parts: BatchorJobParts | None = None,
    **options: Unpack[BatchorAssetOptions],
) -> list[dg.AssetsDefinition]:
    """The two assets of a job without a decorator: give a function that returns the job, or the parts of the job.

    Takes what `batchor_assets` takes. With `parts`, `name` is needed.

    Example:
        >>> build_batchor_assets(name="triage", structured_output=Triage, parts=BatchorJobParts(
        ...     items=lambda tickets: DataFrameItemSource(tickets, item_id="id"),
        ...     build_prompt=lambda item: item.payload["body"],
        ...     provider_config=OpenAIProviderConfig(model="gpt-5-mini")))
    """
    if (job is None) == (parts is None):
        raise dg.DagsterInvalidDefinitionError("build_batchor_assets needs one of job= and parts=")
    if job is not None:
        return batchor_assets(**options)(job)
    assert parts is not None
    if not options.get("name"):
        raise dg.DagsterInvalidDefinitionError("build_batchor_assets needs name= beside parts=")
    return batchor_assets(**options)(job_function(parts))


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """What two assets are made of, but for the function and their names."""

    structured_output: type[BaseModel] | None
    policy: ResultPolicy
    cancel_on_termination: bool
    io_manager_key: str
    io_manager_value: ValueForm
    failures_asset: bool
    translator: DagsterBatchorTranslator
    batch_spec_args: dict[str, Any]
    results_spec_args: dict[str, Any]
    batch_op_args: dict[str, Any]
    results_op_args: dict[str, Any]

    def build(
        self, fn: JobFunction, name: str, prefix: tuple[str, ...], description: str | None
    ) -> list[dg.AssetsDefinition]:
        known = _known_config(fn)

        def spec(role: BatchorAssetRole, submitted_by: dg.AssetKey | None = None) -> dg.AssetSpec:
            data = BatchorAssetData(
                role=role,
                name=name,
                key_prefix=prefix,
                description=description,
                structured_output=self.structured_output,
                provider_config=known,
                submitted_by=submitted_by,
            )
            return self.translator.get_asset_spec(data)

        batch = _with(spec(BatchorAssetRole.BATCH), self.batch_spec_args)
        results = _with(spec(BatchorAssetRole.RESULTS, batch.key), self.results_spec_args)
        submission = submission_asset(
            fn,
            batch,
            results_key=results.key,
            model=self.structured_output,
            resource_key=self.policy.resource_key,
            cancel_on_termination=self.cancel_on_termination,
            **self.batch_op_args,
        )
        collected = results_asset(
            results,
            submitted_by=batch.key,
            form=self.structured_output or (known.answer_form() if known else None),
            policy=self.policy,
            io_manager_key=self.io_manager_key,
            io_manager_value=self.io_manager_value,
            failures=self._failures(spec, batch.key) if self.failures_asset else None,
            **self.results_op_args,
        )
        return [submission, collected]

    def _failures(self, spec: Callable[..., dg.AssetSpec], batch: dg.AssetKey) -> dg.AssetSpec:
        """As the result asset, but for what holds for answers only."""
        only_answers = ("automation_condition", "freshness_policy")
        args = {name: value for name, value in self.results_spec_args.items() if name not in only_answers}
        return _with(spec(BatchorAssetRole.FAILURES, batch), args)


def flatten(assets: AnyAssets) -> Iterator[Any]:
    """Assets out of nested lists, in order."""
    for asset in assets if _is_list(assets) else [assets]:
        if _is_list(asset):
            yield from flatten(asset)
        else:
            yield asset


def _is_list(given: Any) -> TypeGuard[Sequence[Any]]:
    # Dagster's specs are tuples, too.
    return isinstance(given, Sequence) and not isinstance(given, dg.AssetSpec)


def result_specs(assets: AnyAssets) -> list[dg.AssetSpec]:
    """The specs of the result assets among these assets."""
    found = [spec for asset in flatten(assets) if isinstance(asset, dg.AssetsDefinition) for spec in asset.specs]
    return [spec for spec in found if RESULTS_OF_KEY in spec.metadata]


def _with(spec: dg.AssetSpec, args: dict[str, Any]) -> dg.AssetSpec:
    """The translator's spec with what was given: mappings and lists are added to, single values replaced."""
    added = {name: args[name] for name in ("deps", "metadata", "tags", "kinds", "owners") if name in args}
    replaced = {name: value for name, value in args.items() if name not in added}
    return spec.merge_attributes(**added).replace_attributes(**replaced)


def _check_options(structured_output: object, on_pending: str, io_manager_value: str) -> None:
    """Refuse at once what would only be noticed by a run; YAML and untyped code can give anything."""
    model = structured_output
    if model is not None and not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise dg.DagsterInvalidDefinitionError(
            f"structured_output must be a Pydantic model class, not {model!r}: for a list, make it a field of a model"
        )
    for name, given, kind in (("on_pending", on_pending, OnPending), ("io_manager_value", io_manager_value, ValueForm)):
        if given not in get_args(kind):
            known = ", ".join(repr(one) for one in get_args(kind))
            raise dg.DagsterInvalidDefinitionError(f"{name} must be one of {known}, not {given!r}")


def _known_config(fn: JobFunction) -> ProviderConfig | None:
    parts = getattr(fn, "batchor_parts", None)
    return parts.provider_config if isinstance(parts, BatchorJobParts) else None


def _given(**args: Any) -> dict[str, Any]:
    return {name: value for name, value in args.items() if value is not None}


def _prefix(key_prefix: str | Sequence[str] | None) -> tuple[str, ...]:
    return (key_prefix,) if isinstance(key_prefix, str) else tuple(key_prefix or ())
