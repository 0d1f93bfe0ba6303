"""What a `defs.yaml` may say about a batch job, beyond texts and numbers.

Law: nothing here holds a secret; a secret is named by its environment variable and read when a run starts.
"""

import dataclasses
import importlib
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_type_hints

import dagster as dg
from pydantic import BaseModel, ConfigDict, Field, create_model, field_validator, model_validator

from batchor_dagster.checks import BatchorChecks
from batchor_dagster.inline_models import OutputFields, check_field_names
from batchor_dagster.submission_sensor import OnUpstreamUpdate
from batchor_engine import OpenAIConnection, PromptTemplate

PARTITION = "{partition}"
_PLACEHOLDER = re.compile(r"\{[^{}]*\}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def told(description: str) -> dg.Resolver:
    """What `dg docs` and editors say about a field; a description beside a default would not reach them."""
    return dg.Resolver.default(description=description)


class InputRows(dg.Model, dg.Resolvable):
    """Where the rows come from: files beside the YAML, or the value of an upstream asset."""

    id_column: str = Field(description="Column of the rows' ids: texts or whole numbers, unique")
    files: Annotated[
        list[str] | None,
        told("csv, jsonl or parquet files, relative to this folder; {partition} is the partition's key"),
    ] = None
    asset: Annotated[str | None, told("Key of an upstream asset: a frame, a table, a list of dicts")] = None
    load_as: Annotated[
        Literal["pandas", "arrow"] | None,
        told("What the upstream's IO manager is asked for, where it can give several forms"),
    ] = None
    encoding: Annotated[str, told("Encoding of csv and jsonl files")] = "utf-8"
    check: Annotated[bool, told("Whether files without {partition} must be there when definitions load")] = True

    @model_validator(mode="after")
    def _is_one_of_them(self) -> "InputRows":
        if bool(self.files) == bool(self.asset):
            raise ValueError("input needs one of files and asset")
        if self.load_as and self.files:
            raise ValueError("load_as belongs to an input asset; files are read as they are")
        for file in self.files or ():
            if unknown := [one for one in _PLACEHOLDER.findall(file) if one != PARTITION]:
                raise ValueError(f"{file} holds {unknown[0]}: the only placeholder in a file is {PARTITION}")
        return self

    @property
    def is_partitioned(self) -> bool:
        """True when every file's name depends on the partition; ValueError where only some do."""
        found = {PARTITION in file for file in self.files or ()}
        if len(found) > 1:
            raise ValueError(f"either every input file holds {PARTITION} or none does")
        return found == {True}


class TimePartitions(BaseModel):
    """A partition for every hour, day, week or month."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["hourly", "daily", "weekly", "monthly"]
    start_date: str
    end_date: str | None = None
    timezone: str | None = None

    def build(self) -> dg.PartitionsDefinition:
        kinds = {
            "hourly": dg.HourlyPartitionsDefinition,
            "daily": dg.DailyPartitionsDefinition,
            "weekly": dg.WeeklyPartitionsDefinition,
            "monthly": dg.MonthlyPartitionsDefinition,
        }
        return kinds[self.type](start_date=self.start_date, end_date=self.end_date, timezone=self.timezone)


class StaticPartitions(BaseModel):
    """Partitions by name."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["static"]
    partition_keys: list[str] = Field(min_length=1)

    def build(self) -> dg.PartitionsDefinition:
        return dg.StaticPartitionsDefinition(self.partition_keys)


class DynamicPartitions(BaseModel):
    """Partitions that are added while Dagster runs."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["dynamic"]
    name: str = Field(min_length=1)

    def build(self) -> dg.PartitionsDefinition:
        return dg.DynamicPartitionsDefinition(name=self.name)


PartitionsModel = Annotated[TimePartitions | StaticPartitions | DynamicPartitions, Field(discriminator="type")]


def resolve_partitions(_context: dg.ResolutionContext, given: Any) -> Any:
    return given if given is None or isinstance(given, str) else given.build()


class PollingSensor(dg.Model, dg.Resolvable):
    """How the sensor that waits for the provider works."""

    minimum_interval_seconds: int = 30
    running: Annotated[bool, told("Whether it runs without being switched on in the UI")] = True

    @field_validator("minimum_interval_seconds")
    @classmethod
    def _is_an_interval(cls, seconds: int) -> int:
        if seconds <= 0:
            raise ValueError("must be above 0")
        return seconds


def resolve_sensor(context: dg.ResolutionContext, given: Any) -> PollingSensor | None:
    """true is the sensor with its defaults, false none."""
    if isinstance(given, bool):
        return PollingSensor() if given else None
    return given if isinstance(given, PollingSensor) else PollingSensor.resolve_from_model(context, given)


class SubmissionSensor(dg.Model, dg.Resolvable):
    """How the sensor that submits partitions works; it is off until somebody switches it on."""

    max_runs_in_flight: Annotated[int, told("Runs of this store's assets that may be at the provider at once")] = 20
    minimum_interval_seconds: int = 60
    running: Annotated[bool, told("Whether it runs without being switched on in the UI")] = False
    on_upstream_update: Annotated[
        OnUpstreamUpdate, told("resubmit pays again for a partition whose upstream has changed since")
    ] = "ignore"

    @model_validator(mode="after")
    def _are_numbers_that_can_be(self) -> "SubmissionSensor":
        if self.max_runs_in_flight < 1 or self.minimum_interval_seconds < 1:
            raise ValueError("max_runs_in_flight and minimum_interval_seconds must be at least 1")
        return self


def resolve_submission_sensor(context: dg.ResolutionContext, given: Any) -> SubmissionSensor | None:
    """true is the sensor with its defaults, false none."""
    if isinstance(given, bool):
        return SubmissionSensor() if given else None
    return given if isinstance(given, SubmissionSensor) else SubmissionSensor.resolve_from_model(context, given)


class BackfillModel(BaseModel):
    """How a backfill is cut into Dagster runs."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["single_run", "multi_run"]
    max_partitions_per_run: int = Field(default=1, ge=1)


def resolve_backfill_policy(_context: dg.ResolutionContext, given: Any) -> dg.BackfillPolicy | None:
    if given is None or isinstance(given, dg.BackfillPolicy):
        return given
    if given.type == "single_run":
        return dg.BackfillPolicy.single_run()
    return dg.BackfillPolicy.multi_run(max_partitions_per_run=given.max_partitions_per_run)


_HEADERS = "HTTP headers, each by the variable with its value, such as api-key: AZURE_OPENAI_API_KEY"


class Server(dg.Model, dg.Resolvable):
    """A server or account for one component, where it is not the connection's; secrets by their variables."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    base_url: Annotated[str | None, told("Address of an API that speaks OpenAI's")] = None
    api_key_env_var: Annotated[str | None, told("Variable with its key")] = None
    header_env_vars: Annotated[dict[str, str] | None, told(_HEADERS)] = None
    line_url: Annotated[str | None, told("The url in every request line, where the server spells it otherwise")] = None
    batch_endpoint: Annotated[str | None, told("The endpoint of a batch, where the server spells it otherwise")] = None

    @model_validator(mode="after")
    def _names_variables(self) -> "Server":
        OpenAIConnection(
            base_url=self.base_url, api_key_env=self.api_key_env_var, header_env=self.header_env_vars or {}
        )
        return self


class Connection(dg.Model, dg.Resolvable):
    """The store of the runs and the account that they are sent with; secrets by the names of environment variables."""

    # Whoever writes a key where its variable belongs reads it in their YAML, and not again in the error.
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    store_url: Annotated[str | None, told("Database of the runs; a relative file is in the project")] = None
    store_url_env_var: Annotated[str | None, told("Variable with that URL, when it has a password")] = None
    artifacts_url: Annotated[str | None, told("Folder or object-store URL of the runs' files")] = None
    api_key_env_var: Annotated[
        str | None, told("Variable with the provider's key; without one the provider's own is read")
    ] = None
    base_url: str | None = None
    organization: str | None = None
    project: str | None = None
    request_timeout_sec: int | None = None
    quota_scope: Annotated[str, told("Name of the account that shares an enqueued-token limit")] = ""
    header_env_vars: Annotated[dict[str, str] | None, told(_HEADERS)] = None

    @field_validator("store_url_env_var", "api_key_env_var")
    @classmethod
    def _is_a_name(cls, value: str | None) -> str | None:
        if value is not None and not _VARIABLE.fullmatch(value):
            raise ValueError("must be the name of an environment variable, such as OPENAI_API_KEY")
        return value

    @model_validator(mode="after")
    def _names_one_store(self) -> "Connection":
        OpenAIConnection(base_url=self.base_url, header_env=self.header_env_vars or {})
        if (self.store_url is None) == (self.store_url_env_var is None):
            raise ValueError("connection needs one of store_url and store_url_env_var")
        if self.store_url and re.search(r"://[^/@]*:[^/@]*@", self.store_url):
            raise ValueError(
                "store_url holds a password, which Dagster would keep in the snapshot of the code location: put the "
                "URL into an environment variable and name that by store_url_env_var"
            )
        return self


def resolve_prompt(_context: dg.ResolutionContext, text: str) -> str:
    """The text as it stands: braces are the template's, so Jinja does not read them."""
    PromptTemplate(text)
    return text


def as_it_stands(_context: dg.ResolutionContext, value: Any) -> Any:
    return value


def resolve_output_model(_context: dg.ResolutionContext, path: Any) -> type[BaseModel] | None:
    """The class called module:Class or module.Class; ValueError says what is not there."""
    if path is None or isinstance(path, type):
        return path
    module_name, _, class_name = path.partition(":") if ":" in path else path.rpartition(".")
    if not (module_name and class_name):
        raise ValueError(f"{path!r} is not module:Class")
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        # The module is a user's code, so anything may come out of it.
        raise ValueError(f"cannot import {module_name!r}: {type(error).__name__}: {error}") from error
    for part in class_name.split("."):
        found = getattr(found, part, None)
    if not (isinstance(found, type) and issubclass(found, BaseModel)):
        raise ValueError(f"{module_name} has no Pydantic model {class_name!r}")
    return found


def resolve_output_fields(_context: dg.ResolutionContext, fields: OutputFields | None) -> OutputFields | None:
    if fields is not None:
        check_field_names(fields)
    return fields


_HINTS = get_type_hints(BatchorChecks)
# The same fields in YAML as in Python, whichever there are.
ChecksModel: type[BaseModel] = create_model(
    "Checks",
    __base__=dg.Model,
    **{one.name: (_HINTS[one.name], one.default) for one in dataclasses.fields(BatchorChecks)},  # pyright: ignore[reportCallIssue, reportArgumentType]
)


def resolve_checks(_context: dg.ResolutionContext, given: Any) -> BatchorChecks:
    return given if isinstance(given, BatchorChecks) else BatchorChecks(**given.model_dump(exclude_unset=True))


class AssetTranslation(dg.Model, dg.Resolvable):
    """What both assets show, as templates over `spec` (the spec so far) and `data` (the batch job)."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    key: str | None = None
    key_prefix: str | Sequence[str] | None = None
    group_name: str | None = None
    description: str | None = None
    owners: Sequence[str] | None = None
    tags: Mapping[str, str] | None = None
    kinds: Sequence[str] | None = None
    metadata: Mapping[str, Any] | None = None
    automation_condition: dg.Injected[dg.AutomationCondition] | None = None

    def apply(self, spec: dg.AssetSpec) -> dg.AssetSpec:
        """The spec with what was given; tags and metadata are added, the rest is replaced."""
        key = dg.AssetKey.from_user_string(self.key) if self.key else spec.key
        replaced: dict[str, Any] = {"key": key.with_prefix(self.key_prefix) if self.key_prefix else key}
        for name in ("group_name", "description", "owners", "kinds", "automation_condition"):
            if (value := getattr(self, name)) is not None:
                replaced[name] = set(value) if name == "kinds" else value
        return spec.replace_attributes(**replaced).merge_attributes(
            tags=self.tags or ..., metadata=self.metadata or ...
        )
