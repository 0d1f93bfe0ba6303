"""The job a user hands to a runner."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, cast

from pydantic import BaseModel

from batchor_engine.config import ProviderConfig
from batchor_engine.models import ArtifactPolicy, ChunkPolicy, Form, ModelT, PayloadT, PromptBuilder, RetryPolicy
from batchor_engine.ports.sources import BatchItems, ItemSource


def _no_labels() -> dict[str, str]:
    return {}


@dataclass(frozen=True)
class BatchJob(Generic[PayloadT, ModelT]):
    """Rows, how to ask about one, whom to ask, and what shape the answer has (None: text)."""

    items: BatchItems[PayloadT]
    build_prompt: PromptBuilder
    provider_config: ProviderConfig
    structured_output: type[ModelT] | None = None
    schema_name: str | None = None
    chunk_policy: ChunkPolicy = field(default_factory=ChunkPolicy)
    retry_policy: RetryPolicy = field(default_factory=RetryPolicy)
    batch_metadata: dict[str, str] = field(default_factory=_no_labels)
    artifact_policy: ArtifactPolicy = field(default_factory=ArtifactPolicy)


def form_of(job: BatchJob[Any, Any]) -> Form:
    """What the job's answers are read as; ValueError for a model on an endpoint that does not answer with text."""
    fixed = job.provider_config.answer_form()
    if fixed is None:
        return job.structured_output
    if job.structured_output is not None:
        raise ValueError(
            f"structured_output={job.structured_output.__name__} needs an endpoint that answers with text; this one "
            f"answers with {fixed.__name__} by itself: leave structured_output out"
        )
    return fixed


def check_job(job: object) -> None:
    """TypeError naming the argument that is of a wrong kind, and what it should be."""
    if not isinstance(job, BatchJob):
        raise TypeError(f"a run is started with a BatchJob, not with {_kind(job)}")
    given: dict[str, object] = dict(vars(cast("BatchJob[object, BaseModel]", job)))
    for name, kind in _KINDS.items():
        if not isinstance(given[name], kind):
            raise TypeError(f"BatchJob.{name} must be of type {kind.__name__}, not {_kind(given[name])}")
    _check_items(given["items"])
    if not callable(given["build_prompt"]):
        raise TypeError(f"BatchJob.build_prompt must be a function of an item, not {_kind(given['build_prompt'])}")
    model = given["structured_output"]
    if model is not None and not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise TypeError(f"BatchJob.structured_output must be a Pydantic model class, not {model!r:.80}")


def _check_items(items: object) -> None:
    kind = _kind(items)
    if hasattr(items, "columns") and not isinstance(items, ItemSource):
        raise TypeError(f"BatchJob.items is a {kind}: pass DataFrameItemSource(table, item_id=...)")
    if isinstance(items, str | bytes | dict) or not isinstance(items, Iterable):
        raise TypeError(f"BatchJob.items must be BatchItem objects or a source, not {kind}")


_KINDS: dict[str, type] = {
    "provider_config": ProviderConfig,
    "chunk_policy": ChunkPolicy,
    "retry_policy": RetryPolicy,
    "artifact_policy": ArtifactPolicy,
    "batch_metadata": dict,
}


def _kind(value: object) -> str:
    return type(value).__name__
