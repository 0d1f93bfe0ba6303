"""Every metadata key and run tag that this package writes, under the namespace `batchor`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import dagster as dg

NAMESPACE = "batchor"

# Run tags: who asked for a run, for which engine run, at which revision of it, and why.
SENSOR_TAG = f"{NAMESPACE}/sensor"
RUN_ID_TAG = f"{NAMESPACE}/run_id"
REVISION_TAG = f"{NAMESPACE}/revision"
REASON_TAG = f"{NAMESPACE}/reason"

# Definition metadata by which a sensor recognises a result asset.
RESULTS_OF_KEY = f"{NAMESPACE}/results_of"
RESOURCE_KEY = f"{NAMESPACE}/resource"


@dataclass(frozen=True, kw_only=True)
class BatchorMetadataSet:
    """Metadata of one engine run; splat it into a `metadata=` mapping, fields that are None stay out.

    Counts are rows unless the name says otherwise; `hours_at_provider` runs from the first submission to the last end.
    """

    run_id: str | None = None
    revision: int | None = None
    status: str | None = None
    rows: int | None = None
    completed: int | None = None
    failed: int | None = None
    answered: int | None = None
    progress_percent: float | None = None
    batches: int | None = None
    provider_batches: dg.JsonMetadataValue | None = None
    attempts: int | None = None
    failures: dg.JsonMetadataValue | None = None
    input_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost: str | None = None
    hours_at_provider: float | None = None
    preview: dg.TableMetadataValue | None = None

    def keys(self) -> Iterable[str]:
        """The namespaced keys of the fields that are set."""
        return [f"{NAMESPACE}/{field.name}" for field in fields(self) if getattr(self, field.name) is not None]

    def __getitem__(self, key: str) -> Any:
        return getattr(self, key.removeprefix(f"{NAMESPACE}/"))

    @classmethod
    def extract(cls, metadata: Mapping[str, Any]) -> BatchorMetadataSet:
        """Read the set back from an event's metadata; other keys are skipped."""
        known = {field.name for field in fields(cls)}
        found = {
            key.removeprefix(f"{NAMESPACE}/"): value
            for key, value in metadata.items()
            if key.startswith(f"{NAMESPACE}/")
        }
        return cls(**{name: _plain(value) for name, value in found.items() if name in known})


def _plain(value: Any) -> Any:
    scalar = (dg.TextMetadataValue, dg.IntMetadataValue, dg.FloatMetadataValue)
    return value.value if isinstance(value, scalar) else value
