"""The runner's doors to planning, cost, housekeeping and clean-up lead where they say."""

from __future__ import annotations

import psutil
import pytest

from batchor_engine import ChunkPolicy, OpenAIProviderConfig, RemoteCleanup, UnknownRunError

from ..stores import is_there
from .conftest import World


def test_a_plan_stores_nothing_and_calls_nobody(world: World) -> None:
    plan = world.runner(connection=None).plan(world.job(5, chunk_policy=ChunkPolicy(max_requests=2)))
    assert (plan.rows, plan.request_files) == (5, 3)
    assert plan.can_start
    assert world.stats()["calls_total"] == 0
    assert not is_there(world.store_url)


@pytest.mark.parametrize(("policy", "left"), [("none", 2), ("input", 1), (RemoteCleanup.ALL, 0)])
def test_remote_files_go_by_policy_once_answers_are_safe(world: World, policy: str, left: int) -> None:
    run = world.runner(remote_cleanup=policy).run_and_wait(world.job(3))
    assert world.stats()["files"] == left
    assert len(run.results()) == 3


def test_cost_is_told_or_said_to_be_unknown(world: World) -> None:
    known = world.runner().run_and_wait(world.job(3)).cost()
    assert known.amount_usd is None or known.amount_usd > 0
    config = OpenAIProviderConfig(model="my-own-model")
    unknown = world.runner().run_and_wait(world.job(3, provider_config=config)).cost()
    assert unknown.amount_usd is None
    assert unknown.note


def test_runs_are_listed_and_deleted(world: World) -> None:
    runner = world.runner()
    for run_id in ("one", "two"):
        runner.run_and_wait(world.job(2), run_id=run_id)
    assert [run.summary.run_id for run in runner.list_runs(status="completed").runs] == ["two", "one"]
    assert runner.delete_run("one").removed_files > 0
    assert [run.summary.run_id for run in runner.list_runs().runs] == ["two"]
    with pytest.raises(UnknownRunError):
        runner.delete_run("one")


def test_a_healthy_store_has_no_findings(world: World) -> None:
    runner = world.runner()
    runner.run_and_wait(world.job(2))
    assert runner.doctor(deep=True).healthy


def test_output_expiry_is_passed_on_and_checked(world: World) -> None:
    with pytest.raises(ValueError, match="output_expires_after_sec"):
        OpenAIProviderConfig(model="m", output_expires_after_sec=60)
    config = OpenAIProviderConfig(model="gpt-5-mini", output_expires_after_sec=7200)
    assert len(world.runner().run_and_wait(world.job(2, provider_config=config)).results()) == 2


def test_a_closed_runner_keeps_no_connection_and_opens_one_when_it_is_used_again(world: World) -> None:
    runner = world.runner()
    port = world.sandbox.port

    def connected() -> int:
        mine = psutil.Process().net_connections("tcp")
        return sum(bool(one.raddr) and one.raddr.port == port for one in mine if one.status == psutil.CONN_ESTABLISHED)

    for run_id in ("one", "two"):
        runner.run_and_wait(world.job(2), run_id=run_id)
    assert connected() >= 1
    runner.close()
    assert connected() == 0
    assert runner.run_and_wait(world.job(2), run_id="three").is_finished
