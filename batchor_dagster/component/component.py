"""`BatchorComponent`: a batch job that is written in a `defs.yaml`.

Law: what is wrong with the YAML is said when definitions load, by the name of its field; nothing is sent until a run.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import dagster as dg
from pydantic import BaseModel, ConfigDict, Field, model_validator

from batchor_dagster.assets import build_batchor_assets
from batchor_dagster.checks import BatchorChecks
from batchor_dagster.component.fields import (
    AssetTranslation,
    BackfillModel,
    ChecksModel,
    Connection,
    InputRows,
    PartitionsModel,
    PollingSensor,
    Server,
    SubmissionSensor,
    as_it_stands,
    resolve_backfill_policy,
    resolve_checks,
    resolve_output_fields,
    resolve_output_model,
    resolve_partitions,
    resolve_prompt,
    resolve_sensor,
    resolve_submission_sensor,
    told,
)
from batchor_dagster.component.rows import check_files, submit_function
from batchor_dagster.component.scaffolder import BatchorScaffolder
from batchor_dagster.component.store import (
    Peer,
    control_jobs,
    io_manager_key,
    polling_sensor,
    resources_of,
    submission_sensor,
)
from batchor_dagster.forms import ValueForm
from batchor_dagster.inline_models import OutputFields, inline_model
from batchor_dagster.resources import RESOURCE
from batchor_dagster.translator import BatchorAssetData, DagsterBatchorTranslator
from batchor_engine import (
    BatchJob,
    ItemSource,
    OpenAIEndpoint,
    OpenAIEnqueueLimitConfig,
    OpenAIProviderConfig,
    PromptTemplate,
    RetryPolicy,
)

TranslationFn = Callable[[dg.AssetSpec, BatchorAssetData], dg.AssetSpec]


def _resolve_translation(context: dg.ResolutionContext, given: Any) -> TranslationFn | None:
    """A function that fills the templates for one asset; a text is a template for such a function."""
    if given is None:
        return None

    def translate(spec: dg.AssetSpec, data: BatchorAssetData) -> dg.AssetSpec:
        scope = context.with_scope(spec=spec, data=data)
        resolved: Any = scope.resolve_value(given, as_type=object) if isinstance(given, str) else given
        if isinstance(resolved, dg.AssetSpec):
            return resolved
        return AssetTranslation.resolve_from_model(scope, resolved).apply(spec)

    return translate


@dg.scaffold_with(BatchorScaffolder)
class BatchorComponent(dg.Component, dg.Model, dg.Resolvable):
    """Rows through a provider's Batch API, at half the price, as two assets and a sensor that waits for it.

    `<name>_batch` submits the rows and ends at once; `<name>` holds the typed answers when the provider is done.
    Subclass it and override `execute` to change the job, or `get_asset_spec` to change what the assets show.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    name: str = Field(description="Name of the result asset; the asset that submits is called <name>_batch")
    input: InputRows = Field(description="Where the rows come from")
    prompt: Annotated[
        str,
        dg.Resolver(
            resolve_prompt,
            model_field_type=str,
            inject_before_resolve=False,
            description="Question about one row, with {column} placeholders; a literal brace is written twice",
            examples=["Which product is this ticket about?\n\n{body}"],
        ),
    ]
    llm_model: str = Field(description="Model that answers", examples=["gpt-5-mini"])
    system_prompt: Annotated[
        str | None,
        dg.Resolver(
            as_it_stands,
            model_field_type=str | None,  # pyright: ignore[reportArgumentType] - a union is what Dagster documents
            inject_before_resolve=False,
            description="The same instructions for every row",
        ),
    ] = None
    reasoning_effort: Annotated[str | None, told("none, minimal, low, medium, high, …")] = None
    endpoint: OpenAIEndpoint = OpenAIEndpoint.RESPONSES
    request_options: Annotated[dict[str, Any] | None, told("Goes into the body of every request")] = None
    enqueued_token_limit: Annotated[int, told("Tokens at the provider at once; 0 is any number")] = 0
    max_attempts: Annotated[int, told("Tries of one row in all")] = 3
    output_model: Annotated[
        type[BaseModel] | None,
        dg.Resolver(
            resolve_output_model,
            model_field_type=str | None,  # pyright: ignore[reportArgumentType] - a union is what Dagster documents
            description="Pydantic model of one answer, as module:Class",
            examples=["my_project.models:Triage"],
        ),
    ] = None
    output_fields: Annotated[
        Mapping[str, Any] | None,
        dg.Resolver(
            resolve_output_fields,
            model_field_type=OutputFields | None,  # pyright: ignore[reportArgumentType]
            description="The fields of one answer, instead of output_model",
            examples=[{"product": {"type": "enum", "values": ["hub", "lamp"]}, "urgency": "int"}],
        ),
    ] = None
    partitions_def: Annotated[
        dg.PartitionsDefinition | None,
        dg.Resolver(
            resolve_partitions,
            model_field_type=PartitionsModel | None,  # pyright: ignore[reportArgumentType]
            description="hourly, daily, weekly, monthly, static or dynamic",
        ),
    ] = None
    backfill_policy: Annotated[
        dg.BackfillPolicy | None,
        dg.Resolver(
            resolve_backfill_policy,
            model_field_type=BackfillModel | None,  # pyright: ignore[reportArgumentType]
            description="single_run makes a range of partitions one durable run with few provider batches",
        ),
    ] = None
    description: str | None = None
    key_prefix: str | list[str] | None = None
    group_name: str | None = None
    owners: list[str] | None = None
    tags: dict[str, str] | None = None
    checks: Annotated[
        BatchorChecks,
        dg.Resolver(resolve_checks, model_field_type=ChecksModel, description="What the outcome must satisfy"),
    ] = BatchorChecks()
    on_pending: Annotated[
        Literal["skip", "wait", "fail"], told("What materializing <name> does while the provider works")
    ] = "skip"
    cancel_on_termination: Annotated[
        bool, told("Whether terminating the run of <name>_batch cancels what it has sent")
    ] = False
    failures_asset: Annotated[bool, told("Whether <name>_failures holds the rows that failed for good")] = False
    io_manager_key: Annotated[
        str | None, told("IO manager that stores the rows once more; without one they are read from the runs' store")
    ] = None
    io_manager_value: Annotated[ValueForm, told("As what such an IO manager is given the rows")] = "pandas"
    polling_sensor: Annotated[
        PollingSensor | None,
        dg.Resolver(
            resolve_sensor,
            model_field_type=bool | PollingSensor.model(),  # pyright: ignore[reportArgumentType]
            description="The sensor that waits for the provider; false for none",
        ),
    ] = PollingSensor()
    submission_sensor: Annotated[
        SubmissionSensor | None,
        dg.Resolver(
            resolve_submission_sensor,
            model_field_type=bool | SubmissionSensor.model(),  # pyright: ignore[reportArgumentType]
            description="The sensor that submits partitions that are due, oldest first; it spends money",
        ),
    ] = None
    control_jobs: Annotated[bool, told("Jobs that pause, resume, cancel, retry and collect runs from the UI")] = True
    connection: Annotated[
        Connection | None, told("Store and account; without it the project has a BatchorResource under resource_key")
    ] = None
    server: Annotated[Server | None, told("Another server or account than the connection's, for these rows")] = None
    resource_key: str = RESOURCE
    translation: Annotated[
        TranslationFn | None,
        dg.Resolver(
            _resolve_translation,
            model_field_type=str | AssetTranslation.model() | None,  # pyright: ignore[reportArgumentType]
            inject_before_resolve=False,
            description="Changes what the assets show, with templates over spec and data",
        ),
    ] = None

    @model_validator(mode="after")
    def _fits_together(self) -> "BatchorComponent":
        if self.output_model is not None and self.output_fields is not None:
            raise ValueError("give one of output_model and output_fields, or neither for text")
        if self.input.is_partitioned and self.partitions_def is None:
            raise ValueError("input.files hold {partition}, but there is no partitions_def")
        if self.input.files and self.partitions_def is not None and not self.input.is_partitioned:
            raise ValueError("every partition would read the same rows: put {partition} into input.files")
        # They refuse values that can never be right.
        self.provider_config()
        self.retry_policy()
        return self

    # --- what a subclass may change

    def execute(self, context: dg.AssetExecutionContext, items: ItemSource[Any]) -> BatchJob[Any, Any]:  # noqa: ARG002 - context is for overrides
        """The job of one partition, whose rows are `items`."""
        return BatchJob(
            items=items,
            build_prompt=self.template(),
            provider_config=self.provider_config(),
            retry_policy=self.retry_policy(),
        )

    def get_asset_spec(self, data: BatchorAssetData) -> dg.AssetSpec:
        """What one of the two assets shows."""
        spec = DagsterBatchorTranslator().get_asset_spec(data)
        given = {"group_name": self.group_name, "owners": self.owners}
        spec = spec.replace_attributes(**{name: value for name, value in given.items() if value is not None})
        spec = spec.merge_attributes(tags=self.tags or {})
        return self.translation(spec, data) if self.translation else spec

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Both assets, and what their store needs: sensor, control jobs, IO manager, resource."""
        home = context.path if context.path.is_dir() else context.path.parent
        check_files(self.input, self.template(), home)
        peers = peers_of(context, self, lambda one: one.build_assets(home))
        return dg.Definitions(
            assets=self.build_assets(home),
            sensors=polling_sensor(peers) + submission_sensor(peers),
            jobs=control_jobs(peers),
            resources=resources_of(self.connection, self.resource_key, context.project_root),
        )

    # --- its parts

    def template(self) -> PromptTemplate:
        return PromptTemplate(self.prompt, self.system_prompt)

    def provider_config(self) -> OpenAIProviderConfig:
        server = self.server or Server()
        return OpenAIProviderConfig(
            model=self.llm_model,
            endpoint=self.endpoint,
            reasoning_effort=self.reasoning_effort,
            request_options=self.request_options or {},
            enqueue_limits=OpenAIEnqueueLimitConfig(self.enqueued_token_limit),
            base_url=server.base_url,
            api_key_env=server.api_key_env_var,
            header_env=server.header_env_vars or {},
            line_url=server.line_url,
            batch_endpoint=server.batch_endpoint,
        )

    def retry_policy(self) -> RetryPolicy:
        return RetryPolicy(max_attempts=self.max_attempts)

    def answer_model(self) -> type[BaseModel] | None:
        return inline_model(self.name, self.output_fields) if self.output_fields else self.output_model

    def build_assets(self, home: Path) -> list[dg.AssetsDefinition]:
        """The two assets; relative files are in `home`."""
        return build_batchor_assets(
            job=submit_function(self.name, self.input, self.template(), home, self.execute),
            name=self.name,
            structured_output=self.answer_model(),
            partitions_def=self.partitions_def,
            key_prefix=self.key_prefix,
            description=self.description,
            ins={"rows": dg.AssetIn(dg.AssetKey.from_user_string(self.input.asset))} if self.input.asset else None,
            backfill_policy=self.backfill_policy,
            checks=self.checks,
            on_pending=self.on_pending,
            cancel_on_termination=self.cancel_on_termination,
            failures_asset=self.failures_asset,
            translator=_Translator(self),
            io_manager_key=self.io_manager_key or io_manager_key(self.resource_key),
            io_manager_value=self.io_manager_value,
            resource_key=self.resource_key,
        )


class _Translator(DagsterBatchorTranslator):
    """Asks the component, so that a subclass of it may answer."""

    def __init__(self, component: BatchorComponent) -> None:
        self.component = component

    def get_asset_spec(self, data: BatchorAssetData) -> dg.AssetSpec:
        # A function of a job does not know its config before it is called; the YAML does.
        return self.component.get_asset_spec(replace(data, provider_config=self.component.provider_config()))


def peers_of(
    context: dg.ComponentLoadContext,
    component: BatchorComponent,
    build: Callable[[BatchorComponent], list[dg.AssetsDefinition]],
) -> list[Peer]:
    """The components of one store in the order of their paths, this one included."""
    found = context.component_tree.get_all_components(of_type=BatchorComponent)
    same = [one for one in found if one.resource_key == component.resource_key]
    return [
        Peer(
            is_me=one is component,
            assets=lambda one=one: build(one),
            resource_key=one.resource_key,
            polling_sensor=one.polling_sensor,
            submission_sensor=one.submission_sensor,
            control_jobs=one.control_jobs,
        )
        for one in (same if any(one is component for one in same) else [component])
    ]
