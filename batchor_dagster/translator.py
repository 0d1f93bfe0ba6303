"""How a batch job shows itself in Dagster: key, description and kinds of its two assets."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import dagster as dg
from pydantic import BaseModel

from batchor_engine import ProviderConfig

BATCH_SUFFIX = "_batch"


class BatchorAssetRole(StrEnum):
    """Which of the assets of a batch job is meant."""

    BATCH = "batch"
    RESULTS = "results"
    FAILURES = "failures"


@dataclass(frozen=True, kw_only=True)
class BatchorAssetData:
    """What is known of a batch job when its assets are defined.

    `name` and `key_prefix` are those of the result asset. `provider_config` is known to builders and components; a
    decorated function makes it later, so it is None there. `submitted_by` is the key of `<name>_batch`, which is
    translated first; it is None while that happens.
    """

    role: BatchorAssetRole
    name: str
    key_prefix: tuple[str, ...] = ()
    description: str | None = None
    structured_output: type[BaseModel] | None = None
    provider_config: ProviderConfig | None = None
    submitted_by: dg.AssetKey | None = None

    @property
    def llm_model(self) -> str | None:
        """The model's name, where it is known."""
        return self.provider_config.scope_model() or None if self.provider_config else None


_SUFFIX = {BatchorAssetRole.BATCH: BATCH_SUFFIX, BatchorAssetRole.RESULTS: "", BatchorAssetRole.FAILURES: "_failures"}
_WHAT = {
    BatchorAssetRole.BATCH: "Submits the rows to the provider and ends at once.",
    BatchorAssetRole.RESULTS: "The provider's answers by row.",
    BatchorAssetRole.FAILURES: "The rows that failed for good, each with its reason.",
}


class DagsterBatchorTranslator:
    """Makes the spec of each asset; subclass it to name, group or tag all batch jobs of a project in one place.

    What is given to `@batchor_assets` itself wins over what the translator says.

    Example:
        >>> class Ours(DagsterBatchorTranslator):
        ...     def get_asset_spec(self, data):
        ...         return super().get_asset_spec(data).replace_attributes(group_name="llm", owners=["team:ml"])
    """

    def get_asset_spec(self, data: BatchorAssetData) -> dg.AssetSpec:
        """The spec of one of the assets: `<name>_batch`, or `<name>` and `<name>_failures`, which depend on it."""
        is_typed = data.role is BatchorAssetRole.RESULTS and data.structured_output is not None
        what = _WHAT[data.role]
        return dg.AssetSpec(
            key=[*data.key_prefix, data.name + _SUFFIX[data.role]],
            deps=[data.submitted_by] if data.submitted_by else [],
            description=f"{data.description.strip()}\n\n{what}" if data.description else what,
            kinds={"openai", "pydantic"} if is_typed else {"openai"},
        )
