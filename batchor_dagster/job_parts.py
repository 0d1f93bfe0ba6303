"""A job from its parts, for those who have no function: builders and components."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from batchor_engine import ArtifactPolicy, BatchJob, ChunkPolicy, ItemSource, PromptParts, ProviderConfig, RetryPolicy


def _no_pairs() -> dict[str, str]:
    return {}


@dataclass(frozen=True, kw_only=True)
class BatchorJobParts:
    """What a `BatchJob` is made of, but for the model of its answers, which the assets name.

    `items` is a source that can be read again, or a function with the parameters of an asset function (upstream assets,
    `context`, `config`, resources) that returns one.
    """

    items: Any
    build_prompt: Callable[..., PromptParts | str]
    provider_config: ProviderConfig
    schema_name: str | None = None
    chunk_policy: ChunkPolicy = field(default_factory=ChunkPolicy)
    item_retry_policy: RetryPolicy = field(default_factory=RetryPolicy)
    batch_metadata: dict[str, str] = field(default_factory=_no_pairs)
    artifact_policy: ArtifactPolicy = field(default_factory=ArtifactPolicy)

    def job(self, items: Any) -> BatchJob[Any, Any]:
        """The job for these items."""
        return BatchJob(
            items=items,
            build_prompt=self.build_prompt,
            provider_config=self.provider_config,
            schema_name=self.schema_name,
            chunk_policy=self.chunk_policy,
            retry_policy=self.item_retry_policy,
            batch_metadata=self.batch_metadata,
            artifact_policy=self.artifact_policy,
        )


def job_function(parts: BatchorJobParts) -> Callable[..., BatchJob[Any, Any]]:
    """A function with the parameters of `parts.items` that returns the job."""
    if isinstance(parts.items, Iterator):
        raise dg.DagsterInvalidDefinitionError(
            "items can be read only once, but every partition and every retry reads them: pass a list, an item source, "
            "or a function that returns one"
        )
    make = None if isinstance(parts.items, ItemSource) or not callable(parts.items) else parts.items

    def job(**given: Any) -> BatchJob[Any, Any]:
        return parts.job(make(**given) if make else parts.items)

    job.__doc__ = inspect.getdoc(make) if make else None
    job.__signature__ = inspect.signature(make, eval_str=True) if make else inspect.Signature()  # pyright: ignore[reportFunctionMemberAccess]
    job.batchor_parts = parts  # pyright: ignore[reportFunctionMemberAccess]
    return job
