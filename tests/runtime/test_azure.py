"""A server with Azure OpenAI's habits, as its guide describes them: reached by configuration alone.

Nobody has tried this on Azure itself; the sandbox takes the strictest reading of the guide.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from batchor_engine import ChunkPolicy, OpenAIConnection, OpenAIEndpoint, OpenAIProviderConfig, ProviderError
from batchor_engine.sandbox import SandboxConfig

from ..stores import dump
from .conftest import World

CHAT = OpenAIEndpoint.CHAT_COMPLETIONS
TWO_WEEKS = 14 * 86_400


@pytest.fixture
def sandbox_config() -> SandboxConfig:
    return SandboxConfig(clock="polls", azure=True, models=("my-deployment",), max_unexpiring_files=1, window_sec=0)


def azure(**options: Any) -> OpenAIProviderConfig:
    settings = {"endpoint": CHAT, "batch_endpoint": "/chat/completions", **options}
    return OpenAIProviderConfig(model="my-deployment", **settings)


def urls(world: World) -> set[str]:
    texts = [file.read_bytes().decode() for file in world.files("*/requests/*.jsonl")]
    return {json.loads(line)["url"] for text in texts for line in text.split("\n") if line}


@pytest.mark.parametrize(
    ("options", "url"),
    [
        ({}, "/v1/chat/completions"),
        ({"line_url": "/chat/completions"}, "/chat/completions"),
        ({"endpoint": OpenAIEndpoint.RESPONSES}, "/v1/responses"),
    ],
)
def test_the_lines_and_the_batch_name_the_endpoint_each_in_its_own_way(
    world: World, options: dict[str, Any], url: str
) -> None:
    assert world.sandbox.base_url.endswith("/openai/v1")
    run = world.runner().run_and_wait(world.job(2, provider_config=azure(**options)))
    assert run.summary().completed_items == 2
    assert urls(world) == {url}


def test_without_the_servers_spelling_the_refusal_names_what_it_takes(world: World) -> None:
    results = world.runner().run_and_wait(world.job(2, provider_config=azure(batch_endpoint=None))).results()
    assert [result.error and result.error.error_class for result in results] == ["batch_error"] * 2
    assert "Supported values are: '/responses', '/chat/completions'" in results[0].error.message  # type: ignore[union-attr]
    assert world.stats()["paid_lines"] == 0


def test_a_batch_past_its_window_goes_on_and_an_empty_error_file_is_no_failure(world: World) -> None:
    # The window of this sandbox ends at once; a server that kept it would expire every row.
    run = world.runner().run_and_wait(world.job(3, provider_config=azure()))
    assert [(batch.remote_status, batch.items) for batch in run.batches()] == [("completed", 3)]
    assert (run.summary().completed_items, run.failure_counts()) == (3, {})


def test_files_with_an_expiry_do_not_use_up_the_servers_room(world: World) -> None:
    config = azure(input_expires_after_sec=TWO_WEEKS, output_expires_after_sec=TWO_WEEKS)
    run = world.runner().run_and_wait(world.job(3, provider_config=config, chunk_policy=ChunkPolicy(max_requests=1)))
    assert run.summary().completed_items == 3
    held = world.sandbox.desk.files("", "asc", None)
    assert len(held) > 3
    assert all(file.expires_at == file.created_at + TWO_WEEKS for file in held)
    assert {file.purpose for file in held} == {"batch", "batch_output"}


def test_the_api_key_header_comes_from_the_environment_and_is_stored_nowhere(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_AZURE_KEY", "very-secret-azure-key")
    connection = OpenAIConnection(base_url=world.sandbox.base_url, api_key_env="MY_AZURE_KEY")
    config = azure(header_env={"api-key": "MY_AZURE_KEY"})
    run = world.runner(connection=connection).run_and_wait(world.job(1, provider_config=config), run_id="named")
    assert run.summary().completed_items == 1
    stored = b"".join(file.read_bytes() for file in world.files())
    stored += dump(world.store_url).encode()
    assert b"MY_AZURE_KEY" in stored
    assert b"very-secret" not in stored


def test_another_process_finds_key_and_headers_by_the_stored_names(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("MY_AZURE_KEY", "very-secret-azure-key")
    names = {"api_key_env": "MY_AZURE_KEY", "header_env": {"api-key": "MY_AZURE_KEY"}}
    config = azure(**names, base_url=world.sandbox.base_url, input_expires_after_sec=TWO_WEEKS)
    world.runner(connection=None).start(world.job(1, provider_config=config), run_id="handed")
    assert world.runner(connection=None).get_run("handed").wait().summary().completed_items == 1
    world.runner(connection=None).start(world.job(1, provider_config=config), run_id="stranded")
    monkeypatch.delenv("MY_AZURE_KEY")
    with pytest.raises(ValueError, match="environment variable MY_AZURE_KEY is not set"):
        world.runner(connection=None).get_run("stranded").wait()
    monkeypatch.setenv("MY_AZURE_KEY", "very-secret-azure-key")
    assert world.runner(connection=None).get_run("stranded").wait().summary().completed_items == 1


def test_a_secret_from_a_header_is_in_no_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_TOKEN", "opensesame12345")
    world.fault("http_error", on="batches.retrieve", status=400, message="bad token opensesame12345")
    provider = world.runner().host.provider(azure(header_env={"x-gateway": "GATEWAY_TOKEN"}))
    with pytest.raises(ProviderError) as caught:
        provider.get_batch("batch_1")
    assert "opensesame" not in str(caught.value)
    assert "[redacted]" in str(caught.value)
