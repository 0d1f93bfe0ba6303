"""What every state store must do, as tests: pytest collects them from a subclass that says how to open a store.

Law: they speak to the port alone, so they hold for a store of any kind.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from batchor_engine.core.records import (
    Backoff,
    BatchRecord,
    ItemMove,
    Lease,
    NewItem,
    NewRun,
    Observation,
    Settlement,
)
from batchor_engine.errors import DuplicateItemError, LeaseLostError, UnknownRunError
from batchor_engine.ports.state import StateStore
from batchor_engine.states import BatchState, IllegalTransitionError, ItemStatus, RunControlState
from batchor_engine.testing.clock import ManualClock
from batchor_engine.testing.store_bench import LENGTH, START, TOKENS, TTL_SEC, StoreBench, counts, refused, segment


class StoreContract:
    """Subclass it in a test module under a name that begins with Test, and define open_store().

    Example:
        >>> class TestMyStore(StoreContract):
        ...     def open_store(self, now):
        ...         return MyStore(now=now)
    """

    def open_store(self, now: Callable[[], datetime]) -> StateStore:
        """An empty store whose clock is `now`."""
        raise NotImplementedError

    def _bench(self) -> StoreBench:
        clock = ManualClock()
        store = self.open_store(clock.now)
        self._opened = store
        return StoreBench(store, clock)

    def teardown_method(self) -> None:
        if hasattr(self, "_opened"):
            self._opened.close()

    # --- an empty store

    def test_an_empty_store_has_nothing(self) -> None:
        store = self._bench().store
        assert (store.run("r"), store.runs(), store.batches(), store.scope("s").reserved) == (None, [], [], 0)

    def test_a_wish_for_a_run_that_is_not_there_is_refused(self) -> None:
        with refused(UnknownRunError):
            self._bench().store.set_control("r", RunControlState.PAUSED, reason="manual")

    def test_the_clock_is_the_given_one(self) -> None:
        bench = self._bench()
        bench.clock.advance(5)
        assert bench.store.now() == bench.clock.now()

    # --- runs

    def test_a_run_without_rows_is_replaced_and_one_with_rows_is_not(self) -> None:
        bench = self._bench()
        assert bench.store.create_run(NewRun("r", {"n": 1}, "/a", START, {"old": "label"}))
        assert bench.store.create_run(NewRun("r", {"n": 2}, "/a", START, {"new": "label"}))
        assert bench.run().config == {"n": 2}
        assert bench.store.labels([bench.run().pk]) == {bench.run().pk: {"new": "label"}}
        bench.ingest(run_id="full")
        assert not bench.store.create_run(NewRun("full", {"n": 3}, "/a", START))

    def test_runs_are_found_by_all_their_labels_newest_first(self) -> None:
        store = self._bench().store
        for n in range(4):
            store.create_run(NewRun(f"r{n}", {}, "/a", START, {"even": str(n % 2 == 0), "n": str(n)}))
        even = store.runs(labels={"even": "True"})
        assert [run.run_id for run in even] == ["r2", "r0"]
        assert [run.run_id for run in store.runs(labels={"even": "True", "n": "1"})] == []
        assert [run.run_id for run in store.runs(before=even[0].pk, limit=1)] == ["r1"]

    def test_a_cancel_is_final_and_a_resume_ends_the_waiting(self) -> None:
        bench = self._bench()
        run, lease = bench.ingest()
        bench.store.set_backoff(run.pk, lease, Backoff(3, 3, 9e9, "network"))
        bench.store.set_control("r", RunControlState.PAUSED, reason="manual")
        resumed = bench.store.set_control("r", RunControlState.RUNNING, reason=None)
        assert (resumed.backoff.consecutive, resumed.backoff.total, resumed.backoff.until) == (0, 3, 0.0)
        bench.store.set_control("r", RunControlState.CANCEL_REQUESTED, reason="manual")
        again = bench.store.set_control("r", RunControlState.RUNNING, reason=None)
        assert again.control is RunControlState.CANCEL_REQUESTED

    def test_every_change_of_a_run_shows_in_its_revision(self) -> None:
        bench = self._bench()
        run, lease = bench.ingest()
        bench.store.mark_tidied(run.pk, lease)
        assert bench.run().revision > run.revision

    # --- leases

    def test_a_lease_is_one_owners_until_it_runs_out_or_he_is_dead(self) -> None:
        bench = self._bench()
        first = bench.lease("x", "first")
        assert bench.store.acquire("x", "second", TTL_SEC) == "first"
        taken = bench.store.acquire("x", "second", TTL_SEC, dead_owner="first")
        assert isinstance(taken, Lease)
        bench.clock.advance(TTL_SEC + 1)
        third = bench.lease("x", "third")
        assert first.fence < taken.fence < third.fence
        bench.store.release(third)
        assert bench.lease("x", "fourth").fence > third.fence

    def test_a_renewed_lease_lasts_longer(self) -> None:
        bench = self._bench()
        lease = bench.lease("x", "first")
        bench.clock.advance(TTL_SEC - 1)
        assert bench.store.renew(lease, TTL_SEC).expires_at > lease.expires_at
        bench.clock.advance(TTL_SEC - 1)
        assert bench.store.acquire("x", "second", TTL_SEC) == "first"

    def test_an_old_fence_writes_nothing(self) -> None:
        bench = self._bench()
        run, old = bench.ingest()
        bench.store.release(old)
        bench.lease("run:r", "second")
        before = bench.run()
        store = bench.store
        writes: list[Callable[[], object]] = [
            lambda: store.finish_ingest(run.pk, old),
            lambda: store.reopen_due(run.pk, old),
            lambda: store.renew(old, TTL_SEC),
            lambda: store.retry_failed(run.pk, old),
            lambda: bench.claim(run, old, 0, 1),
            lambda: store.delete_run("r", old),
        ]
        for write in writes:
            with refused(LeaseLostError):
                write()
        store.release(old)
        assert store.acquire("run:r", "third", TTL_SEC) == "second"
        assert bench.run() == before

    # --- ingest

    def test_rows_part_and_checkpoint_are_stored_together(self) -> None:
        bench = self._bench()
        run, _ = bench.ingest(5, failed=[1])
        assert counts(run) == {ItemStatus.PENDING: 4, ItemStatus.FAILED_PERMANENT: 1}
        assert (run.ingest.checkpoint, run.ingest.next_index, run.last_sequence) == (5, 5, 1)
        (part,) = bench.store.fresh_parts(run.pk, limit=9)
        assert (part.left_items, part.left_tokens) == (4, 4 * TOKENS)
        rows = bench.store.items_between(run.pk, 1, 3)
        assert [(row.item_id, row.status.value, row.group) for row in rows] == [
            ("row-1", "failed_permanent", 1), ("row-2", "pending", 0), ("row-3", "pending", 1),
        ]  # fmt: skip

    def test_a_duplicate_id_rolls_back_the_whole_part(self) -> None:
        bench = self._bench()
        run, lease = bench.ingest()
        for ids in (["new", "row-2"], ["twin", "twin"]):
            items = [NewItem(5 + n, name, 0, LENGTH, TOKENS, 0, False) for n, name in enumerate(ids)]
            with refused(DuplicateItemError):
                bench.store.append_part(run.pk, lease, part=None, items=items, position=START, failures=None)
        assert bench.run() == run

    # --- submission

    def test_a_claim_queues_its_rows_and_reserves_their_tokens(self) -> None:
        bench = self._bench()
        run, lease = bench.ingest()
        batch = bench.planned(run, lease, 0, 2)
        assert (batch.state, batch.items, batch.reserves) == (BatchState.PLANNED, 3, True)
        assert counts(bench.run()) == {ItemStatus.PENDING: 2, ItemStatus.QUEUED_LOCAL: 3}
        assert bench.store.scope("scope").reserved == 3 * TOKENS
        assert [part.left_items for part in bench.store.fresh_parts(run.pk, limit=9)] == [2]

    def test_rows_are_claimed_once(self) -> None:
        bench = self._bench()
        run, lease = bench.ingest()
        bench.planned(run, lease, 0, 2)
        before = bench.run()
        with refused(IllegalTransitionError):
            bench.claim(run, lease, 2, 3)
        assert bench.run() == before
        assert bench.store.scope("scope").reserved == 3 * TOKENS

    def test_a_claim_above_the_budget_or_of_a_paused_run_is_none(self) -> None:
        bench = self._bench()
        run, lease = bench.ingest()
        assert bench.claim(run, lease, 0, 2, budget=3 * TOKENS - 1) is None
        bench.store.set_control("r", RunControlState.PAUSED, reason="manual")
        assert bench.claim(run, lease, 0, 2) is None
        assert counts(bench.run()) == {ItemStatus.PENDING: 5}

    def test_who_waited_for_budget_comes_before_who_has_some(self) -> None:
        bench = self._bench()
        large, large_lease = bench.ingest(8, "large")
        small, small_lease = bench.ingest(2, "small")
        budget = 4 * TOKENS
        first = bench.claim(large, large_lease, 0, 3, budget=budget)
        assert first is not None
        assert bench.claim(small, small_lease, 0, 1, budget=budget) is None
        assert bench.store.release_batch(first, large_lease, BatchState.ABANDONED, backoff=None)
        assert bench.store.scope("scope").reserved == 0
        assert bench.planned(large, large_lease, 4, 5)
        # It fits, but who has nothing waits for it.
        assert bench.claim(large, large_lease, 6, 7, budget=budget) is None
        assert bench.claim(small, small_lease, 0, 1, budget=budget) is not None

    def test_a_batch_moves_only_from_where_it_was_seen(self) -> None:
        bench = self._bench()
        run, lease = bench.ingest()
        planned = bench.planned(run, lease, 0, 2)
        assert bench.store.move_batch(planned, lease, BatchState.INTENDED)
        assert not bench.store.move_batch(planned, lease, BatchState.INTENDED)
        with refused(IllegalTransitionError):
            bench.store.move_batch(bench.again(planned), lease, BatchState.COLLECTED)

    def test_a_submitted_batch_takes_its_rows_along(self) -> None:
        bench = self._bench()
        run, lease = bench.ingest()
        batch = bench.submitted(run, lease, 0, 2)
        assert (batch.state, batch.provider_batch_id) == (BatchState.SUBMITTED, f"remote-{batch.intent_id}")
        assert counts(bench.run()) == {ItemStatus.PENDING: 2, ItemStatus.SUBMITTED: 3}
        assert [(one.pk, one.run_id) for one in bench.store.away()] == [(batch.pk, run.run_id)]

    def test_batches_without_a_word_from_the_provider_are_counted_apart(self) -> None:
        bench = self._bench()
        run, lease = bench.ingest()

        def counted() -> tuple[int, int]:
            record = bench.run()
            assert [one.unsent_batches for one in bench.store.runs()] == [record.unsent_batches]
            return record.live_batches, record.unsent_batches

        bench.ended(run, lease, 0, 0)
        assert counted() == (1, 0)
        batch = bench.planned(run, lease, 1, 2)
        assert counted() == (2, 1)
        for state in (BatchState.INTENDED, BatchState.UPLOADED, BatchState.INDETERMINATE):
            assert bench.store.move_batch(batch, lease, state)
            batch = replace(batch, state=state)
            assert counted() == (2, 1)
        assert bench.store.confirm_submitted(batch, lease, provider_batch_id="remote", status="validating")
        assert counted() == (2, 0)
        refused = bench.planned(run, lease, 3, 3)
        assert bench.store.release_batch(refused, lease, BatchState.ABANDONED, backoff=None)
        assert counted() == (2, 0)

    # --- polling and collection

    def test_an_end_is_observed_once_and_gives_the_budget_back_once(self) -> None:
        bench = self._bench()
        run, lease = bench.ingest()
        batch = bench.submitted(run, lease, 0, 2)
        assert bench.store.observe([Observation(batch.pk, "in_progress", ended=False, completed=1)]) == []
        assert bench.again(batch).remote_completed == 1
        looks = [Observation(batch.pk, "completed", ended=True)]
        assert [bench.store.observe(looks), bench.store.observe(looks)] == [[batch.pk], []]
        assert bench.store.scope("scope").reserved == 0
        bench.settle(bench.again(batch), bench.lease(f"batch:{batch.pk}"))
        assert bench.store.observe(looks) == []
        assert bench.again(batch).state is BatchState.COLLECTED

    def test_a_settlement_moves_every_row_or_none(self) -> None:
        bench = self._bench()
        run, lease = bench.ingest()
        batch = bench.ended(run, lease, 0, 3)
        mine = bench.lease(f"batch:{batch.pk}")
        before = bench.run()
        with refused(IllegalTransitionError):
            bench.settle(batch, mine, rows=2)
        assert bench.run() == before
        moves = [ItemMove(0, ItemStatus.FAILED_RETRYABLE, 1, 0, 5e9), ItemMove(2, ItemStatus.FAILED_PERMANENT, 1, 0)]
        bench.settle(batch, mine, moves)
        run = bench.run()
        assert counts(run) == {
            ItemStatus.PENDING: 1, ItemStatus.COMPLETED: 2, ItemStatus.FAILED_RETRYABLE: 1,
            ItemStatus.FAILED_PERMANENT: 1,
        }  # fmt: skip
        assert (run.live_batches, run.last_sequence) == (0, 3)
        assert bench.store.next_retry_at(run.pk) == 5e9

    def test_sequences_are_given_without_a_gap(self) -> None:
        bench = self._bench()
        run, lease = bench.ingest(6)
        for first in (0, 2, 4):
            batch = bench.ended(run, lease, first, first + 1)
            bench.settle(batch, bench.lease(f"batch:{batch.pk}"))
        spans = [(one.first_sequence, one.last_sequence) for one in bench.store.segments(run.pk)]
        assert spans == [(1, 2), (3, 4), (5, 6)]
        assert [one.first_sequence for one in bench.store.segments(run.pk, after_sequence=3)] == [3, 5]

    def test_a_row_whose_delay_is_over_goes_again(self) -> None:
        bench = self._bench()
        run, lease = bench.ingest(2)
        batch = bench.ended(run, lease, 0, 1)
        due = bench.clock.now().timestamp() + 10
        bench.settle(
            batch, bench.lease(f"batch:{batch.pk}"), [ItemMove(0, ItemStatus.FAILED_RETRYABLE, 1, 0, due)]
        )  # fmt: skip
        assert bench.store.reopen_due(run.pk, lease) == 0
        bench.clock.advance(11)
        assert bench.store.reopen_due(run.pk, lease) == 1
        assert [row.item_id for row in bench.store.reopened_items(run.pk, limit=9)] == ["row-0"]
        assert bench.claim(run, lease, 0, 0, attempt=2) is not None

    def test_a_failed_row_that_is_tried_again_loses_its_result(self) -> None:
        bench = self._bench()
        run, lease = bench.ingest(2)
        batch = bench.ended(run, lease, 0, 1)
        bench.settle(batch, bench.lease(f"batch:{batch.pk}"), [ItemMove(0, ItemStatus.FAILED_PERMANENT, 1, 0)])
        assert bench.store.retry_failed(run.pk, lease) == 1
        (stored,) = bench.store.segments(run.pk)
        assert (bench.run().superseded, stored.superseded) == (1, 1)
        assert bench.store.superseded_indexes(run.pk, stored) == {0}

    def test_rows_that_are_not_away_can_be_failed(self) -> None:
        bench = self._bench()
        run, lease = bench.ingest()
        bench.submitted(run, lease, 0, 1)
        waiting = [row.item_index for row in bench.store.open_items(run.pk, after_index=-1, limit=9)]
        assert waiting == [2, 3, 4]
        assert bench.store.fail_open_items(run.pk, lease, waiting, segment(0, 3, 2, 4)) == 3
        assert bench.store.fresh_parts(run.pk, limit=9) == []
        before = bench.run()
        with refused(IllegalTransitionError):
            bench.store.fail_open_items(run.pk, lease, [0], segment(0, 1, 0, 0))
        assert bench.run() == before

    # --- keeping

    def test_what_was_learned_of_a_scope_is_kept(self) -> None:
        bench = self._bench()
        run, lease = bench.ingest()
        bench.planned(run, lease, 0, 2)
        bench.store.learn(replace(bench.store.scope("scope"), reserved=0, learned_limit=90, scale=0.5))
        stored = bench.store.scope("scope")
        assert (stored.reserved, stored.learned_limit, stored.scale) == (3 * TOKENS, 90, 0.5)
        assert not bench.store.learn(replace(stored, scale=1.0), known=replace(stored, learned_limit=None))
        assert bench.store.scope("scope") == stored
        assert bench.store.learn(replace(stored, scale=1.0), known=stored)

    def test_pruned_parts_are_marked_once(self) -> None:
        bench = self._bench()
        run, lease = bench.ingest()
        assert bench.store.record_prune(run.pk, lease, raw=False) == (5, 0)
        assert bench.store.record_prune(run.pk, lease, raw=True) == (0, 0)
        assert all(part.pruned_at is not None for part in bench.store.parts(run.pk))

    def test_a_deleted_run_leaves_nothing_and_gives_its_budget_back(self) -> None:
        bench = self._bench()
        run, lease = bench.ingest()
        bench.planned(run, lease, 0, 2)
        other, _ = bench.ingest(run_id="other")
        assert not bench.store.discard_empty_run("r", lease)
        assert bench.store.delete_run("r", lease)
        assert (bench.store.run("r"), bench.store.batches(), bench.store.scope("scope").reserved) == (None, [], 0)
        assert bench.run("other") == other
        assert bench.store.create_run(NewRun("r", {}, "/a", START))

    def test_a_collection_that_comes_after_the_deletion_writes_nothing(self) -> None:
        bench = self._bench()
        run, lease = bench.ingest()
        batch = bench.ended(run, lease, 0, 2)
        (lines,) = bench.store.ranges(batch.pk)
        assert bench.store.delete_run("r", lease)
        change = Settlement(batch.pk, BatchState.COLLECTED, segment(3, 0, 0, lines.last_index), 3, (), None)
        with refused(LeaseLostError):
            bench.store.settle(run.pk, bench.lease(f"batch:{batch.pk}"), change)
        assert bench.store.runs() == []

    def test_threads_share_a_store(self) -> None:
        bench = self._bench()
        run, lease = bench.ingest(40)
        failures: list[BaseException] = []
        leases = {first: bench.submitted(run, lease, first, first + 4) for first in range(0, 40, 5)}

        def collect(batch: BatchRecord) -> None:
            try:
                bench.store.observe([Observation(batch.pk, "completed", ended=True)])
                bench.settle(bench.again(batch), bench.lease(f"batch:{batch.pk}"))
            except BaseException as error:  # noqa: BLE001 - told below, whatever it is
                failures.append(error)

        crowd = [threading.Thread(target=collect, args=(batch,)) for batch in leases.values()]
        for one in crowd:
            one.start()
        for one in crowd:
            one.join()
        assert failures == []
        assert counts(bench.run()) == {ItemStatus.COMPLETED: 40}
        assert (bench.run().last_sequence, bench.run().live_batches) == (40, 0)
        assert bench.store.scope("scope").reserved == 0
