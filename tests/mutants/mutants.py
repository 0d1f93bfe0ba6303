"""One removed law each: where it stands in the source, what takes its place, and the tests that must notice.

Law: `old` stands exactly once in its file. When an edit of the engine breaks that, the mutant is brought up
to date, not dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

EFFECTS = "tests/properties/test_every_effect.py"
DEATH = f"{EFFECTS}::test_death_at_any_effect_loses_no_row_and_pays_no_row_twice"
STALL = f"{EFFECTS}::test_a_stall_past_the_lease_at_any_effect_changes_nothing_after_the_take_over"
LATE = f"{EFFECTS}::test_a_create_that_arrives_late_is_adopted_and_not_repeated"
FAULTS = "tests/runtime/test_faults.py"
LAWS = "tests/properties/test_laws.py"


@dataclass(frozen=True)
class Mutant:
    """A law of DESIGN.md §6 by number, taken away by one replacement."""

    name: str
    law: int
    file: str
    old: str
    new: str
    killers: tuple[str, ...]


def mutant(name: str, law: int, file: str, old: str, new: str, *killers: str) -> Mutant:
    return Mutant(name, law, f"batchor_engine/{file}", old, new, killers)


MUTANTS = (
    mutant(
        "no intent in the remote metadata", 1, "core/identity.py",
        "return {**batch_metadata, RUN_KEY: run_id, INTENT_KEY: intent_id}",
        'return {**batch_metadata, RUN_KEY: run_id, INTENT_KEY: ""}',
        f"{FAULTS}::test_a_lost_answer_to_create_never_pays_twice",
    ),
    mutant(
        "no note before create", 1, "runtime/submit.py",
        "work.store.note_batch(batch, work.lease, create_at=begun)",
        "pass",
        LATE,
    ),
    mutant(
        "blind re-create instead of adoption", 1, "runtime/recover.py",
        "return (self._found or {}).get(batch.intent_id, [])",
        "return []",
        f"{FAULTS}::test_a_lost_answer_to_create_never_pays_twice",
    ),
    mutant(
        "a late create is not waited for", 1, "runtime/recover.py",
        "if listing.read_at < (batch.create_at or 0.0) + create_timeout_sec(work) + work.host.late_call_margin_sec:",
        "if listing.read_at < 0.0:",
        LATE,
    ),
    mutant(
        "a lost answer to create counts as a no", 1, "runtime/submit.py",
        "if error.kind is ProviderErrorKind.AMBIGUOUS:",
        "if error.kind is None:",
        f"{FAULTS}::test_a_lost_answer_to_create_never_pays_twice",
    ),
    mutant(
        "a create call may come long after its note", 1, "runtime/submit.py",
        "while work.host.clock - begun >= _LONGEST_NOTE_SEC:",
        "while begun < 0:",
        "tests/runtime/test_recovery.py::test_a_note_that_took_long_is_made_again_before_the_batch_is",
    ),
    mutant(
        "the SDK repeats calls that create", 1, "providers/openai.py",
        '"max_retries": 0,',
        '"max_retries": 2,',
        f"{LAWS}::test_a_create_is_sent_once_whatever_it_comes_to",
    ),
    mutant(
        "a commit without an answer is done again on a guess", 1, "storage/transactions.py",
        "if receipt is None or self._landed(receipt):",
        "if receipt is None:",
        "tests/storage/test_postgres.py::test_a_commit_without_an_answer_happens_once",
    ),
    mutant(
        "a commit without an answer is taken for done", 1, "storage/transactions.py",
        "if receipt is None or self._landed(receipt):",
        "if True:",
        "tests/storage/test_postgres.py::test_a_commit_without_an_answer_happens_once",
    ),
    mutant(
        "an earlier commit proves a later one", 1, "storage/receipts.py",
        ".fence >= receipt.fence",
        ".fence >= 1",
        "tests/storage/test_receipts.py::test_a_transaction_that_a_killed_server_lost_is_done_again",
    ),
    mutant(
        "a look for a receipt that fails does the write again", 1, "storage/transactions.py",
        "with suppress(DBAPIError):",
        "if True:",
        "tests/storage/test_receipts.py::test_a_look_for_a_receipt_that_fails_does_nothing_again[40001]",
    ),
    mutant(
        "a swept receipt says that nothing happened", 1, "storage/receipts.py",
        "return None if server_time(connection) >= receipt.swept_at else False",
        "return False",
        "tests/storage/test_receipts.py::test_a_receipt_that_may_have_been_swept_proves_nothing_by_its_absence",
    ),
    mutant(
        "two transactions share a receipt", 1, "storage/receipts.py",
        "self._spare.pop()",
        "self._spare[-1]",
        "tests/storage/test_receipts.py::test_no_two_transactions_under_way_share_a_receipt",
    ),
    mutant(
        "tables are made without a lock", 2, "storage/dialect.py",
        "    connection.execute(select(func.pg_advisory_xact_lock(key)))\n",
        "    del key\n",
        "tests/storage/test_postgres.py::test_eight_that_create_the_schema_at_once_all_succeed",
    ),
    mutant(
        "PostgreSQL may lose what it acknowledged", 11, "storage/engine.py",
        '"synchronous_commit": "on"',
        '"synchronous_commit": "off"',
        "tests/storage/test_postgres.py::test_sessions_are_durable_and_bounded",
    ),
    mutant(
        "no lease", 2, "storage/leases.py",
        "return row.owner is not None and row.owner != dead_owner and row.expires_at > now",
        "return False",
        f"{LAWS}::test_a_busy_run_is_left_alone",
    ),
    mutant(
        "no fence check", 2, "storage/leases.py",
        "if row is None or row.fence != lease.fence or row.owner != lease.owner:",
        "if row is None:",
        STALL,
    ),
    mutant(
        "a fence that does not grow", 2, "storage/leases.py",
        "lease = Lease(resource, owner, row.fence + 1, now + ttl_sec)",
        "lease = Lease(resource, owner, row.fence, now + ttl_sec)",
        f"{LAWS}::test_a_fence_grows_with_every_owner",
    ),
    mutant(
        "the dead keep their lease", 2, "storage/leases.py",
        "and row.owner != dead_owner and",
        "and",
        f"{LAWS}::test_a_provably_dead_owner_is_followed_at_once",
    ),
    mutant(
        "an observation without a state guard", 2, "storage/batch_writes.py",
        ".where(batches.c.id == look.batch, batches.c.state == BatchState.SUBMITTED.value)",
        ".where(batches.c.id == look.batch)",
        f"{LAWS}::test_a_late_observation_does_not_reopen_a_collected_batch",
    ),
    mutant(
        "a batch moves from anywhere", 2, "storage/batch_writes.py",
        ".where(batches.c.id == batch.pk, batches.c.state == batch.state.value)",
        ".where(batches.c.id == batch.pk)",
        f"{LAWS}::test_a_batch_moves_once_from_where_it_was_seen",
    ),
    mutant(
        "rows move from anywhere", 2, "storage/batch_writes.py",
        "                items.c.batch == batch.pk,\n                items.c.state == ITEM_CODES[source],\n",
        "",
        f"{FAULTS}::test_a_curable_failure_is_counted_and_tried_again",
    ),
    mutant(
        "no salvage of a batch that ended early", 3, "runtime/collect.py",
        "_apply(found, unanswered(status, failure, work.batch.items), failure)",
        'if status == "expired":\n'
        "            found = type(found)(found.work, None, None)\n"
        "        _apply(found, unanswered(status, failure, work.batch.items), failure)",
        f"{FAULTS}::test_a_batch_that_ends_early_keeps_its_paid_rows",
    ),
    mutant(
        "lines that do not end their row are not kept", 3, "runtime/collect.py",
        "if verdict.final or verdict.ref is not None or verdict.text is not None:",
        "if verdict.final:",
        f"{LAWS}::test_every_paid_line_is_in_the_ledger",
    ),
    mutant(
        "counted failures retry for ever", 4, "core/settle.py",
        "attempts - row.granted < policy.max_attempts if outcome.counts",
        "True if outcome.counts",
        f"{LAWS}::test_a_row_that_always_fails_is_tried_as_often_as_the_policy_says",
    ),
    mutant(
        "uncounted failures retry for ever", 4, "core/settle.py",
        "again = rest.curable and missing < cap and",
        "again = rest.curable and",
        f"{LAWS}::test_a_row_without_an_answer_is_sent_as_often_as_the_policy_says",
    ),
    mutant(
        "permanent errors are retried", 4, "core/settle.py",
        "again = outcome.curable and left",
        "again = left",
        f"{FAULTS}::test_a_status_that_no_retry_cures_fails_at_once",
    ),
    mutant(
        "a missing row counts as an attempt", 4, "core/settle.py",
        "return Verdict(to, row.attempts, uncounted, retry_at, None, failure, None, None)",
        "return Verdict(to, row.attempts + 1, uncounted, retry_at, None, failure, None, None)",
        f"{FAULTS}::test_a_row_without_a_readable_line_goes_again_alone",
    ),
    mutant(
        "back-off does not grow", 4, "core/backoff.py",
        "consecutive=backoff.consecutive + 1,",
        "consecutive=1,",
        f"{FAULTS}::test_back_off_grows_while_nothing_gets_through",
    ),
    mutant(
        "Retry-After is ignored", 4, "core/backoff.py",
        "wait = max(delay_sec(backoff.consecutive + 1, policy), retry_after_sec or 0.0)",
        "wait = delay_sec(backoff.consecutive + 1, policy)",
        f"{FAULTS}::test_a_refused_create_waits_and_tries_again",
    ),
    mutant(
        "quota does not pause the run", 4, "runtime/submit.py",
        "case ProviderErrorKind.QUOTA | ProviderErrorKind.FILE_STORAGE:",
        "case None:",
        f"{FAULTS}::test_an_exhausted_quota_pauses_the_run_and_resume_goes_on",
    ),
    mutant(
        "a checkpoint ahead of its rows", 5, "runtime/ingest.py",
        "self._held_over = fed, line, tokens\n",
        "self._held_over = fed, line, tokens\n                part.passed(fed)\n",
        DEATH,
    ),
    mutant(
        "a deadline skips the row in hand",
        5,
        "runtime/ingest.py",
        "                if stop():\n                    return part\n",
        "                if stop():\n                    for skipped in self._rows:\n"
        "                        part.passed(skipped)\n                        break\n"
        "                    return part\n",
        "tests/runtime/test_ingest.py::test_a_deadline_cuts_ingestion_and_skips_no_row",
    ),
    mutant(
        "lines are split as text", 6, "providers/outcome_index.py",
        "for line in stream:",
        "for line in (one.encode() for one in stream.read().decode().splitlines()):",
        f"{EFFECTS}::test_the_eventful_run_ends_well_when_nobody_dies",
    ),
    mutant(
        "one bad line stops the batch", 6, "providers/wire.py",
        "    try:\n        found = from_json(line.removeprefix(_BOM), cache_strings=\"keys\")\n    except ValueError:",
        "    try:\n        found = from_json(line.removeprefix(_BOM), cache_strings=\"keys\")\n    except KeyError:",
        f"{LAWS}::test_bytes_that_are_no_text_cost_nothing",
    ),
    mutant(
        "a source is read to its end at once", 7, "runtime/feed.py",
        "    for item in begin(items):\n",
        "    for item in list(begin(items)):\n",
        f"{LAWS}::test_a_source_is_read_no_further_than_the_part_in_hand",
    ),
    mutant(
        "capacity is not asked for", 8, "core/budget.py",
        "total, _least(_scaled(per_batch, scope.scale), total),",
        "None, _least(_scaled(per_batch, scope.scale), total),",
        f"{LAWS}::test_no_more_tokens_are_enqueued_than_the_budget_allows",
    ),
    mutant(
        "reservations are not released", 8, "storage/scopes.py",
        "values(reserved=scopes.c.reserved - row.tokens)",
        "values(reserved=scopes.c.reserved)",
        f"{LAWS}::test_a_reservation_is_given_back_once",
    ),
    mutant(
        "reservations are released twice", 8, "storage/scopes.py",
        ".where(batches.c.id == batch_pk, batches.c.reserve_until > 0)",
        ".where(batches.c.id == batch_pk)",
        f"{LAWS}::test_a_reservation_is_given_back_once",
    ),
    mutant(
        "reads that write",
        9,
        "storage/store.py",
        "return self._read(lambda it: reads.run(it, run_id), None)",
        "return self._write(lambda it: reads.run(it, run_id))",
        "tests/storage/test_sqlite.py::test_reads_of_a_store_that_is_not_there_create_nothing",
    ),
    mutant(
        "a summary needs the model", 9, "runtime/run.py",
        "        self._summary = summarize(",
        "        self._model()\n        self._summary = summarize(",
        "tests/runtime/test_walk.py::test_status_and_results_need_neither_key_nor_model",
    ),
    mutant(
        "cancel is not final", 10, "storage/run_writes.py",
        " or run.control is RunControlState.CANCEL_REQUESTED or run.control is wish",
        " or run.control is wish",
        "tests/runtime/test_control.py::test_cancel_is_final_in_any_order",
    ),
    mutant(
        "cancel does not reach the provider", 10, "core/planner.py",
        "if one.cancel_asked_at is None",
        "if one is None",
        "tests/runtime/test_control.py::test_cancel_reaches_the_provider_and_keeps_what_was_answered",
    ),
    mutant(
        "a paused run is polled", 10, "runtime/poll.py",
        "return run is not None and (paused_too or run.control is not RunControlState.PAUSED)",
        "return run is not None",
        f"{LAWS}::test_a_paused_run_is_not_polled",
    ),
    mutant(
        "a paused run is collected unasked", 10, "runtime/steps.py",
        "if not run.is_finished and run.control is not RunControlState.PAUSED:",
        "if not run.is_finished:",
        f"{LAWS}::test_a_paused_run_is_not_polled",
    ),
    mutant(
        "a key in the stored config", 11, "runtime/runner.py",
        "self._registry.dump_config(config, include_secrets=False)",
        "self._registry.dump_config(config, include_secrets=True)",
        f"{LAWS}::test_no_key_is_in_any_file_of_a_run",
    ),
    mutant(
        "a key is cut before it is hidden", 11, "providers/failures.py",
        "redact(message, secrets)[:_SHOWN]",
        "redact(message[:_SHOWN], secrets)",
        "tests/providers/test_credentials.py::test_a_key_that_a_cut_goes_through_is_not_shown_in_part",
    ),
    mutant(
        "a failed file stays half written", 11, "artifacts/atomic.py",
        "        unfinished.unlink(missing_ok=True)\n        remove_empty_folders(path.parent, root)\n        if",
        "        unfinished.replace(path)\n        if",
        "tests/artifacts/test_local_store.py",
    ),
    mutant(
        "an acknowledged write may be lost with the power", 11, "storage/engine.py",
        "PRAGMA synchronous=FULL",
        "PRAGMA synchronous=OFF",
        "tests/storage",
    ),
    mutant(
        "an unknown status ends a batch", 12, "core/polling.py",
        "ended=status in LAST_WORDS,",
        'ended=status not in {"validating", "in_progress", "finalizing", "cancelling"},',
        f"{LAWS}::test_an_unknown_status_means_still_running",
    ),
    mutant(
        "a poll error is a verdict", 12, "runtime/poll.py",
        "            self._miss(batches, error.message)\n",
        "            self._miss(batches, error.message)\n"
        '            ended = [observation(one, {"id": "", "status": "failed"}) for one in batches]\n'
        "            self._record(ended, list(batches))\n",
        f"{LAWS}::test_a_poll_that_fails_changes_nothing",
    ),
)  # fmt: skip
