"""batchor_engine: very many prompts through a provider's Batch API, no row lost, nothing paid twice."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from batchor_engine.artifacts.local import LocalArtifactStore
from batchor_engine.config import (
    OpenAIConnection,
    OpenAIEndpoint,
    OpenAIEnqueueLimitConfig,
    OpenAIModel,
    OpenAIModelName,
    OpenAIProviderConfig,
    OpenAIReasoningEffort,
    OpenAIReasoningLevel,
    ProviderConfig,
    ProviderKind,
)
from batchor_engine.core.costs import Cost, usd
from batchor_engine.core.prompt_template import PromptTemplate
from batchor_engine.core.remote_files import RemoteCleanup
from batchor_engine.core.strict_schema import default_schema_name, model_output_schema
from batchor_engine.core.text import counted
from batchor_engine.errors import (
    ApiKeyMissingError,
    BatchorError,
    DuplicateItemError,
    ModelResolutionError,
    OtherAccountError,
    PromptBuildError,
    ProviderError,
    RunIngestionSourceRequiredError,
    RunMismatchError,
    RunNotFinishedError,
    RunPausedError,
    RunSubmissionIndeterminateError,
    SourceRowError,
    StoreError,
    StructuredOutputError,
    StructuredOutputSchemaError,
    UnknownRunError,
)
from batchor_engine.events import RunEvent, Troubles
from batchor_engine.job import BatchJob
from batchor_engine.models import (
    ArtifactExportResult,
    ArtifactPolicy,
    ArtifactPruneResult,
    BatchInfo,
    BatchItem,
    BudgetInfo,
    ChunkPolicy,
    EmbeddingItemResult,
    ItemFailure,
    Moderation,
    PollReport,
    PromptParts,
    RetryPolicy,
    RunInfo,
    RunSnapshot,
    RunSummary,
    RunTally,
    RunUsage,
    StructuredItemResult,
    TerminalResultsExportResult,
    TerminalResultsPage,
    TextItemResult,
)
from batchor_engine.ports.artifacts import ArtifactStore
from batchor_engine.ports.providers import BatchProvider, StructuredOutputSchema
from batchor_engine.ports.sources import (
    CheckpointedBatchItem,
    CheckpointedItemSource,
    IndexedBatchItem,
    ItemSource,
    ResumableItemSource,
    SourceIdentity,
)
from batchor_engine.ports.state import StateStore
from batchor_engine.providers.openai import OpenAIBatchProvider, resolve_openai_api_key
from batchor_engine.providers.registry import ProviderRegistry, build_default_provider_registry
from batchor_engine.results.frames import ColumnDescription, column_descriptions
from batchor_engine.runtime.costs import RunEstimate
from batchor_engine.runtime.doctor import DoctorReport
from batchor_engine.runtime.estimate import JobPlan
from batchor_engine.runtime.grouped_job import grouped_job
from batchor_engine.runtime.housekeeping import DeletedRun, RunHasLiveBatchesError, RunPage
from batchor_engine.runtime.run import Run
from batchor_engine.runtime.runner import BatchRunner
from batchor_engine.sources.composite import CompositeItemSource
from batchor_engine.sources.files import CsvItemSource, JsonlItemSource
from batchor_engine.sources.frames import DataFrameItemSource
from batchor_engine.sources.limited import first_items
from batchor_engine.sources.parquet import ParquetItemSource
from batchor_engine.sources.tables import open_item_files
from batchor_engine.states import ItemStatus, RunControlState, RunLifecycleStatus
from batchor_engine.storage.registry import StorageKind, StorageRegistry, build_default_storage_registry

if TYPE_CHECKING:
    from batchor_engine.storage.memory import MemoryStateStore
    from batchor_engine.storage.postgres import PostgresStorage
    from batchor_engine.storage.sqlite import SQLiteStorage

# Names whose modules bring SQLAlchemy along, which takes as long to load as all the rest of the engine.
_LOADED_WHEN_NAMED = {
    "MemoryStateStore": "batchor_engine.storage.memory",
    "PostgresStorage": "batchor_engine.storage.postgres",
    "SQLiteStorage": "batchor_engine.storage.sqlite",
}


def __getattr__(name: str) -> Any:
    home = _LOADED_WHEN_NAMED.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(home), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_LOADED_WHEN_NAMED})


__version__ = "0.1.0"

__all__ = [
    "ApiKeyMissingError",
    "ArtifactExportResult",
    "ArtifactPolicy",
    "ArtifactPruneResult",
    "ArtifactStore",
    "BatchInfo",
    "BatchItem",
    "BatchJob",
    "BatchProvider",
    "BatchRunner",
    "BatchorError",
    "BudgetInfo",
    "CheckpointedBatchItem",
    "CheckpointedItemSource",
    "ChunkPolicy",
    "ColumnDescription",
    "CompositeItemSource",
    "Cost",
    "CsvItemSource",
    "DataFrameItemSource",
    "DeletedRun",
    "DoctorReport",
    "DuplicateItemError",
    "EmbeddingItemResult",
    "IndexedBatchItem",
    "ItemFailure",
    "ItemSource",
    "ItemStatus",
    "JobPlan",
    "JsonlItemSource",
    "LocalArtifactStore",
    "MemoryStateStore",
    "ModelResolutionError",
    "Moderation",
    "OpenAIBatchProvider",
    "OpenAIConnection",
    "OpenAIEndpoint",
    "OpenAIEnqueueLimitConfig",
    "OpenAIModel",
    "OpenAIModelName",
    "OpenAIProviderConfig",
    "OpenAIReasoningEffort",
    "OpenAIReasoningLevel",
    "OtherAccountError",
    "ParquetItemSource",
    "PollReport",
    "PostgresStorage",
    "PromptBuildError",
    "PromptParts",
    "PromptTemplate",
    "ProviderConfig",
    "ProviderError",
    "ProviderKind",
    "ProviderRegistry",
    "RemoteCleanup",
    "ResumableItemSource",
    "RetryPolicy",
    "Run",
    "RunControlState",
    "RunEstimate",
    "RunEvent",
    "RunHasLiveBatchesError",
    "RunInfo",
    "RunIngestionSourceRequiredError",
    "RunLifecycleStatus",
    "RunMismatchError",
    "RunNotFinishedError",
    "RunPage",
    "RunPausedError",
    "RunSnapshot",
    "RunSubmissionIndeterminateError",
    "RunSummary",
    "RunTally",
    "RunUsage",
    "SQLiteStorage",
    "SourceIdentity",
    "SourceRowError",
    "StateStore",
    "StorageKind",
    "StorageRegistry",
    "StoreError",
    "StructuredItemResult",
    "StructuredOutputError",
    "StructuredOutputSchema",
    "StructuredOutputSchemaError",
    "TerminalResultsExportResult",
    "TerminalResultsPage",
    "TextItemResult",
    "Troubles",
    "UnknownRunError",
    "build_default_provider_registry",
    "build_default_storage_registry",
    "column_descriptions",
    "counted",
    "default_schema_name",
    "first_items",
    "grouped_job",
    "model_output_schema",
    "open_item_files",
    "resolve_openai_api_key",
    "usd",
]
