"""The job a user hands to a runner."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic

from batchor_engine.config import ProviderConfig
from batchor_engine.models import ArtifactPolicy, ChunkPolicy, Form, ModelT, PayloadT, PromptBuilder, RetryPolicy
from batchor_engine.ports.sources import BatchItems


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
