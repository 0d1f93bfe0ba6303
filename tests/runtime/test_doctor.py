"""The doctor finds what is wrong with a store, says what it would do, and does only what can lose nothing."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from batchor_engine import BatchRunner, ChunkPolicy, OpenAIConnection, OpenAIEnqueueLimitConfig, OpenAIProviderConfig
from batchor_engine.core.identity import INTENT_KEY
from batchor_engine.runtime.doctor import DoctorReport, doctor
from batchor_engine.runtime.housekeeping import delete_run
from batchor_engine.runtime.invariants import run_diagnoses
from batchor_engine.runtime.prune import prune_artifacts
from batchor_engine.testing import CrashError, CrashPoints, check_invariants

from .. import stores
from .conftest import World


def change(world: World, sql: str, *values: Any) -> None:
    stores.change(world.store_url, sql, *values)


def checks(report: DoctorReport) -> list[tuple[str, str, bool]]:
    return [(one.check, one.severity.value, one.repaired) for one in report.findings]


def finished(world: World, run_id: str = "run", **options: Any) -> BatchRunner:
    runner = world.runner()
    runner.run_and_wait(world.job(3, **options), run_id=run_id)
    return runner


def spend(world: World) -> tuple[int, int]:
    """What the provider has been asked to make and has been paid for."""
    stats = world.stats()
    return len(stats["batches"]), stats["paid_lines"]


def test_a_healthy_store_has_no_findings(world: World) -> None:
    runner = finished(world)
    runner.start(world.job(3), run_id="going")
    report = doctor(runner.host, deep=True)
    assert (report.findings, report.runs, report.healthy) == ((), 2, True)


def test_an_absent_store_is_healthy_and_stays_absent(world: World) -> None:
    assert doctor(world.runner().host, repair=True).runs == 0
    assert not list(world.folder.iterdir())


def test_wrong_counters_are_found_and_counted_again(world: World) -> None:
    runner = finished(world)
    change(world, "UPDATE runs SET n_completed = 7, n_pending = 1, live_batches = 2")
    seen = doctor(runner.host, provider=False)
    assert checks(seen) == [("counters", "problem", False)]
    assert "7 items as completed, 3 are" in seen.findings[0].message
    assert (seen.findings[0].repair, seen.healthy) == ("count again", False)
    assert runner.get_run("run").summary().completed_items == 7
    repaired = doctor(runner.host, provider=False, repair=True)
    assert (checks(repaired), repaired.healthy) == ([("counters", "problem", True)], True)
    assert runner.get_run("run").summary().completed_items == 3
    assert doctor(runner.host, deep=True).findings == ()


def test_counters_of_a_run_that_somebody_advances_are_left_to_him(world: World) -> None:
    runner = finished(world)
    change(world, "UPDATE runs SET n_completed = 7")
    lease = runner.storage.acquire("run:run", "somebody/else", 60.0)
    assert checks(doctor(runner.host, provider=False, repair=True)) == [("counters", "problem", False)]
    assert not isinstance(lease, str)
    runner.storage.release(lease)
    doctor(runner.host, provider=False, repair=True)


def test_a_wrong_budget_is_found_and_counted_again(world: World) -> None:
    limits = OpenAIEnqueueLimitConfig(enqueued_token_limit=100_000)
    config = OpenAIProviderConfig(model="gpt-5-mini", enqueue_limits=limits)
    runner = world.runner()
    runner.start(world.job(3, provider_config=config), run_id="going")
    scope = runner.storage.batches()[0].scope
    held = runner.storage.scope(scope).reserved
    change(world, "UPDATE scopes SET reserved = reserved + 5000")
    assert checks(doctor(runner.host, provider=False)) == [("budget", "problem", False)]
    assert doctor(runner.host, provider=False, repair=True).healthy
    assert runner.storage.scope(scope).reserved == held > 0


def test_budget_of_a_run_that_is_gone_is_found_too(world: World) -> None:
    runner = finished(world)
    delete_run(runner.host, "run")
    change(world, "UPDATE scopes SET reserved = 99")
    assert doctor(runner.host, repair=True).findings[0].repaired
    assert doctor(runner.host).findings == ()


def test_a_batch_that_ended_and_still_holds_budget_gives_it_back(world: World) -> None:
    runner = finished(world)
    change(world, "UPDATE batches SET reserve_until = 9e12")
    change(world, "UPDATE scopes SET reserved = (SELECT sum(tokens) FROM batches)")
    assert doctor(runner.host, repair=True).healthy
    assert doctor(runner.host).findings == ()
    assert runner.storage.scopes()[0].reserved == 0


def test_a_missing_results_file_is_a_problem_that_no_repair_can_hide(world: World) -> None:
    runner = finished(world)
    path = world.file("*.parquet")
    aside = path.read_bytes()
    path.unlink()
    report = doctor(runner.host, repair=True, deep=True)
    assert {one.check for one in report.findings} == {"missing_file", "results"}
    assert path.name in report.findings[-1].message
    assert not report.healthy
    path.write_bytes(aside)


@pytest.mark.parametrize("pattern", ["requests_*.jsonl", "*_output.jsonl"])
def test_a_finished_run_without_its_requests_or_raw_files_is_only_noted(world: World, pattern: str) -> None:
    runner = finished(world)
    world.file(pattern).unlink()
    report = doctor(runner.host)
    assert (checks(report), report.healthy) == ([("missing_file", "note", False)], True)
    assert len(runner.get_run("run").results()) == 3


def test_requests_of_a_run_that_is_not_over_are_a_problem(world: World) -> None:
    runner = world.runner()
    run = runner.start(world.job(3), run_id="going")
    path = world.file("*.items")
    aside = path.read_bytes()
    path.unlink()
    assert checks(doctor(runner.host)) == [("missing_file", "problem", False)]
    path.write_bytes(aside)
    assert run.wait().is_finished


def test_pruned_files_are_not_missed(world: World) -> None:
    runner = finished(world)
    stored = runner.storage.run("run")
    assert stored is not None
    prune_artifacts(runner.host, stored)
    assert doctor(runner.host, deep=True).findings == ()


@pytest.mark.files_in_a_folder
def test_a_file_that_leads_out_of_the_root_is_a_problem(world: World) -> None:
    runner = finished(world)
    path, outside = Path(world.artifacts_url, world.file("requests_*.jsonl").key), world.folder / "outside"
    path.rename(outside)
    path.symlink_to(outside)
    report = doctor(runner.host, repair=True)
    assert checks(report) == [("odd_file", "problem", False)]
    assert path.is_symlink()


def test_orphans_of_a_finished_run_are_deleted_on_request(world: World) -> None:
    runner = finished(world)
    orphan = world.file("*.parquet").with_name("nobody.parquet")
    orphan.write_bytes(b"?")
    assert checks(doctor(runner.host)) == [("orphan_file", "problem", False)]
    assert check_invariants(runner)
    assert orphan.exists()
    assert doctor(runner.host, repair=True).healthy
    assert not orphan.exists()
    assert len(runner.get_run("run").results()) == 3


def test_a_file_of_a_run_that_goes_on_may_be_pointed_to_any_moment(world: World) -> None:
    runner = world.runner()
    run = runner.start(world.job(3), run_id="going")
    fresh = world.file("requests_*.jsonl").with_name("requests_" + "0" * 32 + ".jsonl")
    fresh.write_bytes(b"{}\n")
    assert checks(doctor(runner.host, repair=True)) == [("orphan_file", "note", False)]
    assert fresh.exists()
    run.wait()
    assert not fresh.exists()


@pytest.mark.files_in_a_folder
def test_what_a_killed_writer_left_goes_when_it_is_old(world: World) -> None:
    runner = finished(world)
    folder = Path(world.artifacts_url, world.file("*.parquet").key).parent
    old, young = folder / f".{'a' * 32}.unfinished", folder / f".{'b' * 32}.unfinished"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    assert checks(doctor(runner.host)) == [("unfinished_file", "note", False)]
    assert checks(doctor(runner.host, repair=True)) == [("unfinished_file", "note", True)]
    assert (old.exists(), young.exists()) == (False, True)


def test_an_answer_that_belongs_to_another_row_is_seen_by_a_deep_look_alone(world: World) -> None:
    runner = finished(world)
    change(world, "UPDATE items SET item_id = 'somebody' WHERE idx = 1")
    assert doctor(runner.host).findings == ()
    report = doctor(runner.host, deep=True)
    assert [one.message for one in report.findings] == [
        "item somebody is completed, its result says row-1 is completed"
    ]
    change(world, "UPDATE items SET item_id = 'row-1' WHERE idx = 1")


def test_an_interrupted_deletion_is_named_and_left_to_the_one_who_asked(world: World) -> None:
    runner = finished(world)
    CrashPoints({"delete.files_removed": 1}).install(runner)
    with pytest.raises(CrashError):
        delete_run(runner.host, "run")
    fresh = world.runner()
    report = doctor(fresh.host, repair=True)
    assert checks(report) == [("deletion", "problem", False)]
    delete_run(fresh.host, "run")
    assert doctor(fresh.host).findings == ()


def test_a_worker_that_went_away_is_noted_after_a_while(world: World) -> None:
    runner = world.runner()
    runner.start(world.job(3), run_id="left")
    runner.storage.acquire("run:left", "gone/worker", 60.0)
    world.clock.advance(120)
    assert doctor(runner.host).findings == ()
    world.clock.advance(3600)
    assert checks(doctor(runner.host, repair=True)) == [("lease", "note", False)]
    assert runner.get_run("left").wait().is_finished


def test_a_batch_that_is_away_too_long_or_was_not_collected_is_told(world: World) -> None:
    runner = world.runner()
    runner.start(world.job(3), run_id="slow")
    world.clock.advance(31 * 3600)
    assert "away for 31 h" in doctor(runner.host).findings[0].message
    world.sandbox.finish()
    runner.poll()
    world.clock.advance(2 * 3600)
    assert "ended 2 h ago and is not collected" in doctor(runner.host).findings[0].message
    world.clock.advance(26 * 24 * 3600)
    assert not doctor(runner.host).healthy


def test_a_batch_that_the_provider_does_not_know_is_a_problem(world: World) -> None:
    runner = world.runner()
    run = runner.start(world.job(3), run_id="lost")
    real = runner.storage.batches()[0].provider_batch_id
    change(world, "UPDATE batches SET provider_batch_id = 'batch_nowhere'")
    report = doctor(runner.host, repair=True)
    assert [one.check for one in report.findings] == ["remote_unknown", "remote_uncollected"]
    assert "batch_nowhere" in report.findings[0].message
    change(world, "UPDATE batches SET provider_batch_id = ?", real)
    assert run.wait().is_finished


def test_a_second_batch_of_one_intent_is_told_and_not_touched(world: World) -> None:
    runner = world.runner()
    run = runner.start(world.job(3), run_id="twin")
    mine = runner.storage.batches()[0]
    stored = runner.storage.run("twin")
    assert stored is not None
    provider = runner.host.provider_of(stored)
    twin = provider.create_batch(input_file_id=str(mine.input_file_id), metadata={INTENT_KEY: mine.intent_id})
    before = spend(world)
    report = doctor(runner.host, repair=True)
    assert checks(report) == [("remote_uncollected", "problem", False)]
    assert twin["id"] in report.findings[0].message
    assert "cancel it at the provider" in report.findings[0].message
    assert spend(world) == before
    run.wait()


def test_a_batch_whose_creation_was_not_answered_is_noted_before_it_is_adopted(world: World) -> None:
    runner = world.runner()
    world.fault("lost_answer")
    run = runner.start(world.job(3), run_id="unsure")
    (finding,) = doctor(runner.host).findings
    assert "the next refresh adopts it" in finding.message
    run.wait()
    assert len(world.stats()["batches"]) == 1
    assert doctor(runner.host).findings == ()


def test_live_batches_of_another_store_are_noted(world: World) -> None:
    world.runner(storage="memory").start(world.job(2), run_id="elsewhere")
    runner = finished(world)
    report = doctor(runner.host, repair=True)
    assert checks(report) == [("remote_uncollected", "note", False), ("remote_file", "note", False)]
    assert report.healthy
    assert not {batch["status"] for batch in world.sandbox.batches()} & {"cancelling", "cancelled"}


def test_a_request_file_that_no_batch_uses_is_deleted_on_request(world: World) -> None:
    runner = finished(world)
    batch = runner.storage.batches()[0]
    stored = runner.storage.run("run")
    assert stored is not None
    again = world.folder / f"batchor_{batch.intent_id}.jsonl"
    again.write_text('{"custom_id":"a","method":"POST","url":"/v1/responses","body":{"model":"m","input":"x"}}\n')
    runner.host.provider_of(stored).upload_input_file(again)
    before = world.stats()["files"]
    assert checks(doctor(runner.host)) == [("remote_file", "problem", False)]
    assert world.stats()["files"] == before
    assert doctor(runner.host, repair=True).healthy
    assert world.stats()["files"] == before - 1
    assert doctor(runner.host).findings == ()


def test_without_a_key_the_provider_is_not_asked_and_it_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    finished(world)
    keyless = world.runner(connection=OpenAIConnection(base_url=world.sandbox.base_url))
    before = world.stats()["calls_total"]
    report = doctor(keyless.host)
    assert checks(report) == [("provider", "note", False)]
    assert "OPENAI_API_KEY" in report.findings[0].message
    assert world.stats()["calls_total"] == before
    assert doctor(keyless.host, provider=False).findings == ()


def test_another_account_is_named_and_not_asked(world: World) -> None:
    finished(world)
    connection = OpenAIConnection(api_key="sk-other", base_url=world.sandbox.base_url, project="another")
    (finding,) = doctor(world.runner(connection=connection).host).findings
    assert "was not asked" in finding.message


def test_a_provider_that_fails_does_not_hide_what_was_found_here(world: World) -> None:
    runner = finished(world)
    change(world, "UPDATE runs SET n_completed = 7")
    world.fault("http_error", on="batches.list", status=500, times=None)
    assert [one.check for one in doctor(runner.host, repair=True).findings] == ["counters", "provider"]


def test_an_examination_spends_nothing_and_resends_nothing(world: World) -> None:
    runner = world.runner()
    runner.start(world.job(6, chunk_policy=ChunkPolicy(max_requests=2)), run_id="many")
    before = spend(world)
    doctor(runner.host, repair=True, deep=True)
    assert spend(world) == before


def test_a_report_is_json(world: World) -> None:
    runner = finished(world)
    change(world, "UPDATE runs SET n_completed = 7")
    payload = json.loads(json.dumps(doctor(runner.host, repair=True).to_payload()))
    assert payload["healthy"] is True
    assert payload["findings"][0]["check"] == "counters"


def test_a_repair_deletes_no_file_of_a_run_that_was_reopened_since_it_was_listed(world: World) -> None:
    """A segment of rows that are tried again is on disk before anything points to it."""
    world.fault("line_error", custom_ids=("row-1:*",), status=400)
    runner = finished(world)
    listed = runner.storage.run("run")
    assert listed is not None
    segment = world.file("*.parquet").with_name("being-committed.parquet")
    segment.write_bytes(b"paid answers")
    (orphan,) = run_diagnoses(runner.host, listed, files=True, results=False)
    runner.get_run("run").retry_failed()
    assert orphan.cure is not None
    assert not orphan.cure()
    assert segment.exists()
    runner.get_run("run").wait()
