"""Pause, resume, cancel, collect, and what waiting says in each of these states."""

from __future__ import annotations

import pytest

from batchor_engine.sandbox import SandboxServer
from tests.cli.conftest import Shell

pytestmark = pytest.mark.usefixtures("slow_sandbox")


def test_waiting_on_a_paused_run_says_so_and_how_to_go_on(shell: Shell) -> None:
    shell.start()
    assert shell.on("pause", "r").json["control_state"] == "paused"
    waited = shell.on("wait", "r")
    assert waited.code == 1
    assert waited.complaint.startswith("Run 'r' is paused (manual): `batchor resume --run-id r --db-path runs.sqlite3`")


def test_a_timeout_is_told_apart_from_every_other_failure(shell: Shell) -> None:
    shell.start()
    waited = shell.on("wait", "r", "--timeout", 0.05, "--poll-interval", 0.01)
    assert waited.code == 1
    assert waited.complaint.startswith("timeout: run 'r' is not finished after 0.05 s.")


def test_collect_brings_in_answers_while_paused(shell: Shell, slow_sandbox: SandboxServer) -> None:
    shell.start()
    shell.on("pause", "r")
    slow_sandbox.finish()
    collected = shell.on("collect", "r").json
    assert (collected["completed_items"], collected["control_state"]) == (3, "paused")


def test_resume_lets_a_run_end(shell: Shell, slow_sandbox: SandboxServer) -> None:
    shell.start()
    shell.on("pause", "r")
    assert shell.on("resume", "r").json["control_state"] == "running"
    slow_sandbox.finish()
    assert shell.on("wait", "r", "--timeout", 20).json["status"] == "completed"


def test_cancel_is_final(shell: Shell, slow_sandbox: SandboxServer) -> None:
    shell.start()
    assert shell.on("cancel", "r").json["control_state"] == "cancel_requested"
    refused = shell.on("resume", "r")
    assert refused.code == 1
    assert "cancelled" in refused.complaint
    slow_sandbox.finish()
    ended = shell.on("wait", "r", "--timeout", 20).json
    assert ended["status"] == "completed_with_failures"
    assert ended["completed_items"] + ended["failed_items"] == 3


def test_cancel_with_drain_keeps_what_is_still_answered(shell: Shell, slow_sandbox: SandboxServer) -> None:
    shell.start()
    shell.on("cancel", "r", "--drain")
    slow_sandbox.finish()
    assert shell.on("wait", "r", "--timeout", 20).json["completed_items"] == 3


def test_pausing_and_resuming_need_no_key(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.start()
    monkeypatch.delenv("OPENAI_API_KEY")
    assert shell.on("pause", "r").code == 0
    assert shell.on("resume", "r").code == 0
    waited = shell.on("wait", "r")
    assert waited.code == 1
    assert "OPENAI_API_KEY" in waited.complaint


def test_results_of_a_run_that_goes_on_name_the_command_that_waits(shell: Shell) -> None:
    shell.start()
    early = shell.on("results", "r")
    assert (early.code, early.out) == (1, b"")
    assert early.complaint == "Run 'r' has not finished: `batchor wait --run-id r --db-path runs.sqlite3` first."


def test_failed_rows_are_sent_again_on_demand(shell: Shell, slow_sandbox: SandboxServer) -> None:
    slow_sandbox.faults.add({"kind": "line_error", "custom_ids": ["b:*"], "status": 400, "times": 1})
    shell.start()
    slow_sandbox.finish()
    assert shell.on("wait", "r", "--timeout", 20).json["failed_items"] == 1
    again = shell.on("retry-failed", "r")
    assert again.json["status"] == "running"
    assert "`batchor wait --run-id r --db-path runs.sqlite3`" in again.err
    # Long enough to send them, and then it gives up.
    assert shell.on("wait", "r", "--timeout", 0.5, "--poll-interval", 0.01).code == 1
    slow_sandbox.finish()
    assert shell.on("wait", "r", "--timeout", 20).json["completed_items"] == 3


def test_resolving_needs_one_answer_and_something_to_resolve(shell: Shell) -> None:
    shell.start()
    for words in ((), ("--created", "batch_1", "--not-created")):
        assert shell.on("resolve", "r", *words).code == 2
    refused = shell.on("resolve", "r", "--not-created")
    assert refused.code == 1
    assert "not exactly one unresolved submission" in refused.complaint
