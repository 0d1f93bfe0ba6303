"""Run config of `<name>_batch`: what an operator may set in the launchpad, for one run.

Law: a field that is left alone changes nothing about the job; what was set is stored with the engine's run.
"""

import inspect
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import dagster as dg
from pydantic import Field, create_model, field_validator

from batchor_engine import (
    BatchJob,
    OpenAIEnqueueLimitConfig,
    OpenAIProviderConfig,
    ProviderConfig,
    RunInfo,
    first_items,
)

CONFIG_PARAMETER = "config"
FIELD = "batchor"
OVERRIDES_LABEL = "overrides"
NEW, RESUME = "new", "resume"


class BatchorRunConfig(dg.Config):
    """Overrides for one submission; whatever is null is as the job says."""

    model: str | None = Field(default=None, description="Model to ask")
    reasoning_effort: str | None = Field(default=None, description="none, minimal, low, medium, high or xhigh")
    request_options: dict[str, Any] | None = Field(
        default=None, description="Merged into every request body, over the job's own options; null takes one away"
    )
    first_rows: int | None = Field(
        default=None, description="Send only this many rows of each partition, to try the job on"
    )
    generation: str = Field(
        default=NEW,
        description="new: a run of its own, while a re-execution goes on with the run it re-executes. resume: go on "
        "with the latest run of this partition. Any other name: start the run of that name, or go on with it.",
    )
    max_attempts: int | None = Field(default=None, description="Attempts of one row, the first one included")
    enqueued_token_limit: int | None = Field(
        default=None, description="Tokens that the account may have enqueued at once; 0 for no limit"
    )
    max_batch_enqueued_tokens: int | None = Field(default=None, description="Tokens of one batch; 0 for no limit")

    @field_validator("generation")
    @classmethod
    def _known_word(cls, given: str) -> str:
        """Whoever writes "Resume" means the word; as a name it would begin a run and pay again."""
        word = given.strip().lower()
        return word if word in (NEW, RESUME) else given

    def overrides(self) -> dict[str, Any]:
        """The fields that were set, but for the generation, which says where they apply."""
        return {name: value for name, value in self.model_dump().items() if value is not None and name != "generation"}


def config_class(fn: Callable[..., Any]) -> type[dg.Config] | None:
    """The config of an asset: ours under `batchor`, beside the fields of the function's own Config class.

    None where the function's config is no class with fields, so that there is no room for ours.
    """
    own = inspect.signature(fn, eval_str=True).parameters.get(CONFIG_PARAMETER)
    base = dg.Config if own is None else own.annotation
    if not (isinstance(base, type) and issubclass(base, dg.Config)):
        return None
    if FIELD in base.model_fields:
        raise dg.DagsterInvalidDefinitionError(
            f"{base.__name__}.{FIELD}: every batch asset has a run config of this name; rename the field"
        )
    ours: Any = (BatchorRunConfig, Field(default_factory=BatchorRunConfig, description="Overrides for this run"))
    name = "BatchorConfig" if own is None else base.__name__
    return create_model(name, __base__=base, __module__=base.__module__, __doc__=base.__doc__, **{FIELD: ours})


def run_config_of(config: Any) -> BatchorRunConfig:
    """Our part of an asset's config; the defaults where it has none."""
    found = getattr(config, FIELD, None)
    return found if isinstance(found, BatchorRunConfig) else BatchorRunConfig()


def stored_overrides(info: RunInfo) -> dict[str, Any]:
    """What was set when a run was started."""
    return json.loads(info.labels.get(OVERRIDES_LABEL, "{}"))


def labels_for(overrides: dict[str, Any]) -> dict[str, str]:
    """The label that keeps them; none without any."""
    return {OVERRIDES_LABEL: json.dumps(overrides, sort_keys=True)} if overrides else {}


def overridden(job: BatchJob[Any, Any], overrides: dict[str, Any]) -> BatchJob[Any, Any]:
    """The job with what was set; ValueError where its provider has no such setting."""
    if "max_attempts" in overrides:
        job = replace(job, retry_policy=replace(job.retry_policy, max_attempts=overrides["max_attempts"]))
    if "first_rows" in overrides:
        job = replace(job, items=first_items(job.items, overrides["first_rows"]))
    return replace(job, provider_config=_provider(job.provider_config, overrides))


def _provider(config: ProviderConfig, overrides: dict[str, Any]) -> ProviderConfig:
    wanted = {name: value for name, value in overrides.items() if name not in {"max_attempts", "first_rows"}}
    if not wanted:
        return config
    if not isinstance(config, OpenAIProviderConfig):
        names = ", ".join(sorted(wanted))
        raise ValueError(f"{type(config).__name__} has no such settings: {names}. Leave them out of the run config.")
    limits = _limits(config.enqueue_limits, wanted)
    options = {**config.request_options, **wanted.get("request_options", {})}
    return replace(
        config,
        model=wanted.get("model", config.model),
        reasoning_effort=wanted.get("reasoning_effort", config.reasoning_effort),
        request_options={name: value for name, value in options.items() if value is not None},
        enqueue_limits=limits,
    )


def _limits(limits: OpenAIEnqueueLimitConfig, wanted: dict[str, Any]) -> OpenAIEnqueueLimitConfig:
    names = {"enqueued_token_limit", "max_batch_enqueued_tokens"}
    return replace(limits, **{name: value for name, value in wanted.items() if name in names})
