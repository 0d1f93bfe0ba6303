"""A poll of many batches: what one account or one batch does to the look at the others."""

from __future__ import annotations

from typing import Any

import pytest

from batchor_engine import (
    ApiKeyMissingError,
    BatchRunner,
    ChunkPolicy,
    OpenAIConnection,
    OpenAIProviderConfig,
    ProviderError,
)
from batchor_engine.providers.openai import OpenAIBatchProvider
from batchor_engine.sandbox import Fault, SandboxServer

from .conftest import World


def account(organization: str, **options: Any) -> OpenAIProviderConfig:
    return OpenAIProviderConfig(model="gpt-5-mini", organization=organization, **options)


def states(runner: BatchRunner, run_id: str) -> set[str]:
    return {batch.state for batch in runner.get_run(run_id).batches()}


def test_a_missing_key_of_one_account_does_not_hide_the_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_OF_A", "sk-a")
    runner = world.runner()
    keyless = world.job(1, provider_config=account("a", api_key_env="KEY_OF_A"))
    world.runner(connection=OpenAIConnection(base_url=world.sandbox.base_url)).start(keyless, run_id="a")
    runner.start(world.job(1, provider_config=account("b")), run_id="b")
    world.sandbox.finish()
    monkeypatch.delenv("KEY_OF_A")
    with pytest.raises(ApiKeyMissingError, match="KEY_OF_A"):
        world.runner().poll()
    assert (states(runner, "a"), states(runner, "b")) == ({"submitted"}, {"ended"})


def test_a_revoked_key_of_one_account_does_not_hide_the_others(world: World) -> None:
    with SandboxServer(clock="manual") as other:
        urls = {
            "first": min(other.base_url, world.sandbox.base_url),
            "last": max(other.base_url, world.sandbox.base_url),
        }
        runner = world.runner()
        for name, url in urls.items():
            config = OpenAIProviderConfig(model="gpt-5-mini", base_url=url)
            runner.start(world.job(1, provider_config=config), run_id=name)
        servers = {server.base_url: server for server in (other, world.sandbox)}
        servers[urls["first"]].faults.add(Fault("http_error", on="*", status=401, message="Revoked", times=None))
        servers[urls["last"]].finish()
        with pytest.raises(ProviderError, match="Revoked"):
            runner.poll()
        assert (states(runner, "first"), states(runner, "last")) == ({"submitted"}, {"ended"})
        assert [event.run_id for event in world.happened("batch_poll_retry")] == ["first"]


class Unlisting(OpenAIBatchProvider):
    """A provider that cannot say which batches exist."""

    @property
    def lists_batches(self) -> bool:
        return False


ONE_ROW = ChunkPolicy(max_requests=1)


@pytest.mark.parametrize("status", [404, 500])
def test_a_batch_that_cannot_be_asked_for_keeps_no_other_waiting(world: World, status: int) -> None:
    runner = world.runner(provider_factory=Unlisting)
    run = runner.start(world.job(4, chunk_policy=ONE_ROW), run_id="r")
    poisoned = str(run.batches()[0].provider_batch_id)
    world.fault("http_error", on="batches.retrieve", id=poisoned, status=status, times=None)
    world.sandbox.finish()
    report = runner.poll()
    assert (report.calls, report.ended, report.complete) == (4, 3, False)
    assert run.refresh().completed_items == 3


def test_a_rate_limit_ends_the_look_at_its_account(world: World) -> None:
    runner = world.runner(provider_factory=Unlisting)
    runner.start(world.job(4, chunk_policy=ONE_ROW), run_id="r")
    world.fault("http_error", on="batches.retrieve", status=429, times=None)
    assert runner.poll().calls == 1


@pytest.mark.parametrize("ticks", [False, True], ids=["one process", "a process for each poll"])
def test_batches_without_news_keep_no_other_from_its_turn(world: World, ticks: bool) -> None:
    world.fault("stuck", times=12)
    runner = world.runner(provider_factory=Unlisting)
    run = runner.start(world.job(15, chunk_policy=ONE_ROW), run_id="r")
    for batch in run.batches()[12:]:
        world.sandbox.finish(batch.provider_batch_id)
    for _ in range(20 if ticks else 2):
        (world.runner(provider_factory=Unlisting) if ticks else runner).poll()
        world.clock.advance(30)
    assert [batch.state for batch in run.batches()] == ["submitted"] * 12 + ["ended"] * 3
