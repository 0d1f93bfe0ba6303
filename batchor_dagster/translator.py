"""How a batch job shows itself in Dagster: key, description and kinds of its two assets."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import dagster as dg
from pydantic import BaseModel

from batchor_engine import ProviderConfig

BATCH_SUFFIX = "_batch"


class BatchorAssetRole(StrEnum):
    """Which of the two assets of a batch job is meant."""

    BATCH = "batch"
    RESULTS = "results"


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


class DagsterBatchorTranslator:
    """Makes the spec of each asset; subclass it to name, group or tag all batch jobs of a project in one place.

    What is given to `@batchor_assets` itself wins over what the translator says.

    Example:
        >>> class Ours(DagsterBatchorTranslator):
        ...     def get_asset_spec(self, data):
        ...         return super().get_asset_spec(data).replace_attributes(group_name="llm", owners=["team:ml"])
    """

    def get_asset_spec(self, data: BatchorAssetData) -> dg.AssetSpec:
        """The spec of one of the two assets: `<name>_batch`, or `<name>`, which depends on it."""
        is_batch = data.role is BatchorAssetRole.BATCH
        what = "Submits the rows to the provider and ends at once." if is_batch else "The provider's answers by row."
        kinds = {"openai"} if is_batch or data.structured_output is None else {"openai", "pydantic"}
        return dg.AssetSpec(
            key=[*data.key_prefix, f"{data.name}{BATCH_SUFFIX}" if is_batch else data.name],
            deps=[data.submitted_by] if data.submitted_by else [],
            description=f"{data.description.strip()}\n\n{what}" if data.description else what,
            kinds=kinds,
        )
