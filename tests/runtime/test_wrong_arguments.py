"""Arguments of the wrong kind: a TypeError that names the argument, before anything is stored or sent."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from pydantic import BaseModel

from batchor_engine import (
    BatchItem,
    BatchJob,
    BatchRunner,
    ChunkPolicy,
    MemoryStateStore,
    OpenAIProviderConfig,
    PromptBuildError,
    PromptParts,
    RetryPolicy,
)
from batchor_engine.errors import StoreError
from batchor_engine.runtime.hold import held

from .conftest import World


class Dish(BaseModel):
    name: str


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"items": 5.5}, "BatchJob.items must be BatchItem objects or a source, not float"),
        ({"items": "abc"}, "BatchJob.items must be BatchItem objects or a source, not str"),
        ({"items": pd.DataFrame({"a": [1]})}, r"BatchJob.items is a DataFrame: pass DataFrameItemSource\(table"),
        ({"items": [{"a": 1}]}, "items must be BatchItem objects, not dict"),
        ({"items": [BatchItem(7, 1)]}, r"item_id must be a string, not int \(7\)"),  # type: ignore[arg-type]
        ({"build_prompt": None}, "BatchJob.build_prompt must be a function of an item, not NoneType"),
        ({"provider_config": "gpt-5"}, "BatchJob.provider_config must be of type ProviderConfig, not str"),
        ({"structured_output": dict}, "structured_output must be a Pydantic model class, not <class 'dict'>"),
        ({"structured_output": Dish(name="soup")}, "structured_output must be a Pydantic model class, not Dish"),
        ({"chunk_policy": 5}, "BatchJob.chunk_policy must be of type ChunkPolicy, not int"),
        ({"retry_policy": {"max_attempts": 1}}, "BatchJob.retry_policy must be of type RetryPolicy, not dict"),
        ({"batch_metadata": {"a": 1}}, r"batch_metadata\['a'\] must be a string, not int"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_job_with_a_wrong_part_is_refused_by_start_and_by_plan(
    world: World, options: dict[str, Any], message: str
) -> None:
    runner = world.runner()
    with pytest.raises(TypeError, match=message):
        runner.start(world.job(**options))
    assert runner.find_runs() == []
    if "batch_metadata" not in options:  # a plan lists it among its blockers
        with pytest.raises(TypeError, match=message):
            runner.plan(world.job(**options))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"prompt": 5}, "PromptParts.prompt must not be of type int"),
        ({"prompt": "x", "system_prompt": 5}, "PromptParts.system_prompt must not be of type int"),
        ({"prompt": "x", "messages": "hi"}, "PromptParts.messages must not be of type str"),
        ({"prompt": "x", "request_options": None}, "PromptParts.request_options must not be of type NoneType"),
    ],
)
def test_a_prompt_of_wrong_parts_is_no_request(world: World, parts: dict[str, Any], message: str) -> None:
    with pytest.raises(PromptBuildError, match=message):
        world.runner().start(world.job(build_prompt=lambda item: PromptParts(**parts)))
    assert world.sandbox.batches() == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ChunkPolicy(max_requests="5"), "ChunkPolicy.max_requests must be a whole number, not '5'"),
        (lambda: ChunkPolicy(max_file_bytes=True), "ChunkPolicy.max_file_bytes must be a whole number, not True"),
        (lambda: RetryPolicy(max_attempts=2.5), "RetryPolicy.max_attempts must be a whole number, not 2.5"),
        (lambda: RetryPolicy(base_backoff_sec="1"), "RetryPolicy.base_backoff_sec must be a number, not '1'"),
        (lambda: OpenAIProviderConfig(model=3), "model must be of type str, not int"),
        (lambda: OpenAIProviderConfig("m", request_timeout_sec="5"), "request_timeout_sec must be of type int"),
        (lambda: BatchRunner(storage=5), "storage must be a store, a kind or a URL, not int"),
        (lambda: BatchRunner(storage="memory").start("job"), "a run is started with a BatchJob, not with str"),
        (
            lambda: BatchRunner(storage="memory").start(
                BatchJob([], lambda item: "x", OpenAIProviderConfig("m", api_key="sk-test")), run_id=5
            ),
            r"run_id must be a text, not int \(5\)",
        ),
    ],
)
def test_a_wrong_value_is_refused_where_it_is_given(make: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make()


class Full(MemoryStateStore):
    """A store whose disk has no room for giving a lease back."""

    full = True

    def release(self, lease: Any) -> None:
        if self.full:
            raise StoreError("the disk is full")
        super().release(lease)


def test_a_lease_that_could_not_be_given_back_does_not_stand_in_the_way_of_its_own_process() -> None:
    store = Full()
    with pytest.raises(LookupError, match="the news"), held(store, "run:r"):
        raise LookupError("the news")
    with held(store, "run:r") as again:
        assert again is not None
        with held(store, "run:r") as meanwhile:
            assert meanwhile is None
