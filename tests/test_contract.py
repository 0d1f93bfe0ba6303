"""The public names, their homes, their signatures and defaults, as the contract binds them.

A row is `name: signature`. Trailing parameters and fields of our own may follow (marked with … below), never precede.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from typing import Any

import pytest

import batchor_engine as engine

NAMES = """
BatchItem BatchJob PromptParts ItemStatus RunLifecycleStatus ChunkPolicy RetryPolicy ArtifactPolicy
ProviderConfig OpenAIProviderConfig OpenAIEnqueueLimitConfig BatchProvider OpenAIBatchProvider
ProviderRegistry build_default_provider_registry StructuredOutputSchema ProviderKind OpenAIEndpoint
OpenAIModel OpenAIModelName OpenAIReasoningEffort OpenAIReasoningLevel resolve_openai_api_key ItemSource
CheckpointedItemSource ResumableItemSource CsvItemSource JsonlItemSource ParquetItemSource CompositeItemSource
SourceIdentity IndexedBatchItem CheckpointedBatchItem StateStore SQLiteStorage PostgresStorage MemoryStateStore
StorageKind StorageRegistry build_default_storage_registry ArtifactStore LocalArtifactStore ArtifactExportResult
ArtifactPruneResult BatchRunner Run RunControlState RunEvent TextItemResult StructuredItemResult ItemFailure
RunSummary RunSnapshot TerminalResultsPage TerminalResultsExportResult ModelResolutionError
RunNotFinishedError RunPausedError StructuredOutputSchemaError StructuredOutputError default_schema_name
model_output_schema UnknownRunError RunIngestionSourceRequiredError RunSubmissionIndeterminateError
DataFrameItemSource grouped_job first_items EmbeddingItemResult Moderation
PromptTemplate open_item_files
BudgetInfo RunInfo BatchInfo Cost usd counted RunTally RunEstimate
""".split()  # noqa: SIM905 - a wall of quotes would hide what is missing

HOMES = {
    "batchor_engine.runtime.runner": ["BatchRunner", "Run"],
    "batchor_engine.providers.openai": ["OpenAIBatchProvider", "resolve_openai_api_key"],
    "batchor_engine.sources.base": [
        "SourceIdentity",
        "IndexedBatchItem",
        "CheckpointedBatchItem",
        "ItemSource",
        "CheckpointedItemSource",
        "ResumableItemSource",
    ],
    "batchor_engine.sources.composite": ["CompositeItemSource"],
    "batchor_engine.sources.files": ["CsvItemSource", "JsonlItemSource", "ParquetItemSource"],
    "batchor_engine.storage.sqlite": ["SQLiteStorage"],
    "batchor_engine.storage.postgres": ["PostgresStorage"],
    "batchor_engine.core.types": ["JSONValue", "JSONObject", "BatchRequestLine", "BatchRemoteRecord"],
}

# Fields in order; "=" means that there is a default (compared below where it is a plain value).
FIELDS = {
    "BatchItem": "item_id payload metadata={}",
    "PromptParts": "prompt system_prompt=None",
    "PromptTemplate": "template system_prompt=None",  # [ext]
    "BatchJob": "items build_prompt provider_config structured_output=None schema_name=None chunk_policy=ChunkPolicy() "
    "retry_policy=RetryPolicy() batch_metadata={} artifact_policy=ArtifactPolicy()",
    "ChunkPolicy": "max_requests=50000 max_file_bytes=157286400 chars_per_token=4",
    "RetryPolicy": "max_attempts=3 base_backoff_sec=1.0 max_backoff_sec=300.0",
    "ArtifactPolicy": "persist_raw_output_artifacts=True",
    "OpenAIEnqueueLimitConfig": "enqueued_token_limit=0 target_ratio=0.7 headroom=0 max_batch_enqueued_tokens=0",
    "OpenAIProviderConfig": "model api_key='' endpoint=/v1/responses completion_window='24h' request_timeout_sec=30 "
    "poll_interval_sec=1.0 reasoning_effort=None enqueue_limits=OpenAIEnqueueLimitConfig()",
    "StructuredOutputSchema": "name schema",
    "SourceIdentity": "source_kind source_ref source_fingerprint",
    "IndexedBatchItem": "item_index item",
    "CheckpointedBatchItem": "next_checkpoint item",
    "ItemFailure": "error_class message retryable raw_error=None",
    "TextItemResult": "item_id status attempt_count output_text=None raw_response=None error=None metadata={}",
    # [ext]
    "EmbeddingItemResult": "item_id status attempt_count embedding=None output_text=None raw_response=None error=None "
    "metadata={}",
    "StructuredItemResult": "item_id status attempt_count output=None output_text=None raw_response=None error=None "
    "metadata={}",
    "RunSummary": "run_id status control_state total_items completed_items failed_items status_counts active_batches "
    "backoff_remaining_sec",
    "RunSnapshot": "run_id status control_state total_items completed_items failed_items status_counts active_batches "
    "backoff_remaining_sec items",
    "TerminalResultsPage": "run_id items next_after_sequence",
    "TerminalResultsExportResult": "run_id destination_path exported_count next_after_sequence",
    "ArtifactExportResult": "run_id destination_dir manifest_path results_path exported_artifact_paths",
    "ArtifactPruneResult": "run_id removed_artifact_paths missing_artifact_paths cleared_item_pointers "
    "cleared_batch_pointers=0",
    "RunEvent": "event_type run_id provider_kind=None data={}",
}

SIGNATURES = {
    "CsvItemSource": "path * item_id_from_row payload_from_row metadata_from_row=None encoding='utf-8'",
    "JsonlItemSource": "path * item_id_from_row payload_from_row metadata_from_row=None encoding='utf-8'",
    "ParquetItemSource": "path * item_id_from_row payload_from_row metadata_from_row=None columns=None",
    "CompositeItemSource": "sources",
    "open_item_files": "paths * id_column template encoding='utf-8'",  # [ext]
    "SQLiteStorage": "* name='default' path=None now=None engine=None provider_registry=None",
    "PostgresStorage": "* dsn schema='batchor' now=None engine=None provider_registry=None …",
    "MemoryStateStore": "* now=None",
    "StorageRegistry.register": "self * kind factory",
    "StorageRegistry.create": "self kind",
    "build_default_storage_registry": "* provider_registry=None",
    "LocalArtifactStore": "root",
    "ArtifactStore.write_text": "self key content * encoding='utf-8'",
    "ArtifactStore.read_text": "self key * encoding='utf-8'",
    "ArtifactStore.delete": "self key",
    "ArtifactStore.stage_local_copy": "self key",
    "ArtifactStore.export_to_directory": "self key destination_root",
    "BatchRunner": "* storage=None provider_registry=None storage_registry=None provider_factory=None observer=None "
    "sleep=None artifact_store=None temp_root=None …",
    "BatchRunner.start": "self job * run_id=None …",
    "BatchRunner.run_and_wait": "self job * run_id=None …",
    "BatchRunner.get_run": "self run_id",
    "BatchRunner.info": "self run_id",  # [ext]
    "BatchRunner.find_runs": "self labels=None * limit=None unfinished=False created_after=None",  # [ext]
    "BatchRunner.fingerprint": "self labels=None * created_before=None finished=False",  # [ext]
    "BatchRunner.budget_of": "self run_id",  # [ext]
    "Run.attempts": "self",  # [ext]
    "BatchRunner.pause_run": "self run_id",
    "BatchRunner.resume_run": "self run_id",
    "BatchRunner.cancel_run": "self run_id …",
    "BatchRunner.read_terminal_results": "self run_id * after_sequence=0 limit=None",
    "BatchRunner.export_terminal_results": "self run_id * destination after_sequence=0 append=True limit=None",
    "BatchRunner.export_artifacts": "self run_id * destination_dir",
    "BatchRunner.prune_artifacts": "self run_id * include_raw_output_artifacts=False",
    "Run": "* runner run_id summary",
    "Run.refresh": "self …",
    "Run.wait": "self * timeout=None poll_interval=None",
    "Run.summary": "self",
    "Run.snapshot": "self",
    "Run.results": "self",
    "Run.read_terminal_results": "self * after_sequence=0 limit=None",
    "Run.export_terminal_results": "self destination * after_sequence=0 append=True limit=None",
    "Run.export_artifacts": "self destination_dir",
    "Run.prune_artifacts": "self * include_raw_output_artifacts=False",
    "Run.pause": "self",
    "Run.resume": "self",
    "Run.cancel": "self …",
    "OpenAIBatchProvider": "config client=None",
    "OpenAIBatchProvider.parse_jsonl": "content",
    "BatchProvider.build_request_line": "self * custom_id prompt_parts structured_output=None",
    "BatchProvider.upload_input_file": "self input_path",
    "BatchProvider.delete_input_file": "self file_id",
    "BatchProvider.create_batch": "self * input_file_id metadata=None",
    "BatchProvider.get_batch": "self batch_id",
    "BatchProvider.download_file_content": "self file_id",
    "BatchProvider.parse_batch_output": "self * output_content error_content",
    "BatchProvider.estimate_request_tokens": "self request_line * chars_per_token",
    "ProviderRegistry.register": "self * kind factory loader",
    "ProviderRegistry.create": "self config",
    "ProviderRegistry.dump_config": "self config * include_secrets=True",
    "ProviderRegistry.load_config": "self payload",
    "resolve_openai_api_key": "config",
    "default_schema_name": "model",
    "model_output_schema": "model * schema_name=None",
    "ModelResolutionError": "module_name qualname",
    "RunNotFinishedError": "run_id",
    "RunPausedError": "run_id …",
    "StructuredOutputError": "error_class message * raw_error=None",
}

ENUMS = {
    "ItemStatus": "pending queued_local submitted completed failed_retryable failed_permanent",
    "RunLifecycleStatus": "running completed completed_with_failures",
    "RunControlState": "running paused cancel_requested",
    "ProviderKind": "openai",
    "OpenAIModel": "gpt-5.2 gpt-5.1 gpt-5 gpt-5-mini gpt-5-nano gpt-4.1 gpt-4.1-mini gpt-4.1-nano",
    "OpenAIReasoningEffort": "none minimal low medium high xhigh",
    "StorageKind": "sqlite postgres memory",
}


def found(dotted: str) -> Any:
    value: Any = engine
    for name in dotted.split("."):
        value = getattr(value, name)
    return value


def shown(name: str, default: object) -> str:
    if default is inspect.Parameter.empty:
        return name
    plain = str(default) if type(default).__module__.startswith("batchor_engine") and "/" in str(default) else None
    text = plain or (f"{type(default).__name__}()" if dataclasses.is_dataclass(default) else repr(default))
    return f"{name}={text}"


def signature(target: Any) -> list[str]:
    words: list[str] = []
    for parameter in inspect.signature(target).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in words:
            words.append("*")
        words.append(shown(parameter.name, parameter.default))
    return words


def field_words(cls: Any) -> list[str]:
    words: list[str] = []
    for field in dataclasses.fields(cls):
        made = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        words.append(shown(field.name, inspect.Parameter.empty if made is dataclasses.MISSING else made))
    return words


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_at_the_top(name: str) -> None:
    assert hasattr(engine, name)
    assert name in engine.__all__


@pytest.mark.parametrize("home", HOMES)
def test_a_module_home_resolves(home: str) -> None:
    module = importlib.import_module(home)
    for name in HOMES[home]:
        assert hasattr(module, name)


@pytest.mark.parametrize("name", FIELDS)
def test_fields_stand_in_the_contracts_order_with_its_defaults(name: str) -> None:
    cls = found(name)
    wanted = FIELDS[name].split()
    assert field_words(cls)[: len(wanted)] == wanted
    extra = [field for field in field_words(cls)[len(wanted) :] if "=" not in field]
    assert extra == []
    assert cls.__dataclass_params__.frozen


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_signature_is_the_contracts(name: str) -> None:
    wanted = SIGNATURES[name].split()
    given = signature(found(name))
    if wanted[-1] == "…":
        wanted = wanted[:-1]
        extra = [word for word in given[len(wanted) :] if word != "*" and "=" not in word]
        assert extra == []
        given = given[: len(wanted)]
    assert given == wanted


@pytest.mark.parametrize("name", ENUMS)
def test_enum_values_keep_their_spelling(name: str) -> None:
    assert [member.value for member in found(name)] == ENUMS[name].split()


def test_the_first_endpoints_are_the_contracts() -> None:
    ours = ["/v1/embeddings", "/v1/moderations"]  # [ext]
    assert [one.value for one in engine.OpenAIEndpoint] == ["/v1/responses", "/v1/chat/completions", *ours]
