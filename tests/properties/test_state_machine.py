"""Two workers, one store, a provider with faults, and death or a stall between any two effects.

Whatever Hypothesis does, the laws hold at every step; and once it stops, every run comes to its end with each row
answered once, each paid line in the ledger and each attempt counted as API.md §3 says.

    pytest tests/properties --hypothesis-profile=long --hypothesis-seed=N     the long profile
"""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ..stores import STORES, is_there
from .cloud import LINE_KINDS, Fate, Trouble
from .profile import LONG
from .world import LEASE_SEC, World, bury, make_job

MOST_RUNS = 6
WHICH = st.integers(0, 2)
STEPS = ("start", "refresh", "advance", "collect", "poll")
WORKERS = st.integers(0, 1)
# As many effects as a round of runs of this size may have.
EFFECTS = st.sampled_from(range(1, 61))
ROUNDS = st.integers(1, 4)
# A cancel ends most of what could still happen to a run, so it is the rarest.
WISHES = ("pause", "resume", "resume", "retry_failed", "cancel", "pause")
LINE_FATES = st.dictionaries(st.integers(0, 4), st.sampled_from(LINE_KINDS), min_size=1, max_size=4)
SIZES = st.tuples(st.integers(1, 9), st.integers(1, 5), st.booleans())
FATES = st.one_of(
    st.builds(Fate, lines=LINE_FATES),
    st.builds(Fate, lines=LINE_FATES),
    st.builds(Fate, end=st.sampled_from(["expired", "cancelled"]), at=st.integers(0, 4), lines=LINE_FATES),
    st.builds(
        Fate, end=st.just("failed"), code=st.sampled_from(["server_error", "token_limit_exceeded", "invalid_request"])
    ),
)
TROUBLES = st.one_of(
    st.builds(
        Trouble,
        on=st.sampled_from(["files.create", "batches.create"]),
        what=st.sampled_from(["before", "lost", 500, 408, 429, 409]),
    ),
    st.builds(Trouble, on=st.just("batches.create"), what=st.just("late"), after_sec=st.sampled_from([1.0, 50.0])),
    st.builds(Trouble, on=st.just("batches.create"), what=st.just(404)),
    st.builds(Trouble, on=st.just("batches.create"), what=st.just(429), code=st.just("insufficient_quota")),
    st.builds(
        Trouble,
        on=st.sampled_from(["batches.list", "batches.retrieve", "files.content", "files.list"]),
        what=st.sampled_from(["before", 500, 429]),
    ),
)


def fail_on(problems: list[str]) -> None:
    if problems:
        raise AssertionError("\n".join(problems))


class Machine(RuleBasedStateMachine):
    """The rules; every one of them is a moment in which anything may die."""

    kind = STORES[0]

    def __init__(self) -> None:
        super().__init__()
        self.world = World(kind=self.kind)

    def teardown(self) -> None:
        try:
            self.world.heal()
            fail_on(self.world.final_problems())
        finally:
            self.world.close()

    # --- runs

    @initialize(size=SIZES, fates=st.lists(FATES, max_size=3), troubles=st.lists(TROUBLES, max_size=2))
    def first_run(self, size: tuple[int, int, bool], fates: list[Fate], troubles: list[Trouble]) -> None:
        self.new_run(size, fates, troubles)

    @rule(size=SIZES, fates=st.lists(FATES, max_size=3), troubles=st.lists(TROUBLES, max_size=2))
    def new_run(self, size: tuple[int, int, bool], fates: list[Fate], troubles: list[Trouble]) -> None:
        # No precondition: downloads are threads, so what is open may differ when Hypothesis repeats the same steps, and
        # which steps it may draw must not.
        if len(self.world.jobs) >= MOST_RUNS or self.world.open_runs()[1:]:
            return
        rows, batch_rows, tight = size
        name = f"run-{len(self.world.jobs) + 1}"
        self.world.jobs[name] = make_job(rows, batch_rows=batch_rows, budget=160 if tight else 0)
        self.world.cloud.fates += fates
        self.world.cloud.troubles += troubles

    @rule(at=WORKERS, which=WHICH, what=st.sampled_from(STEPS))
    def step(self, at: int, which: int, what: str) -> None:
        self.world.act(at, what, self._pick(which))

    def _pick(self, which: int) -> str:
        """A run by its age, those that still go on first."""
        runs = [*self.world.open_runs(), *self.world.jobs]
        return runs[which % len(runs)]

    @rule(at=WORKERS, rounds=ROUNDS)
    def rounds(self, at: int, rounds: int) -> None:
        self._rounds(at, rounds)

    @rule(at=WORKERS, rounds=ROUNDS, effects=EFFECTS)
    def rounds_with_a_death(self, at: int, rounds: int, effects: int) -> None:
        self.world.workers[at].die_in(effects)
        self._rounds(at, rounds)

    @rule(at=WORKERS, rounds=ROUNDS, effects=EFFECTS)
    def rounds_with_a_stall(self, at: int, rounds: int, effects: int) -> None:
        """The worker sleeps past its lease; the other one takes over; then the first goes on as if nothing were."""
        self.world.stall_in(at, effects)
        self._rounds(at, rounds)

    def _rounds(self, at: int, rounds: int) -> None:
        """The ordinary life of runs: each is started once and refreshed, then the provider does something."""
        for _ in range(rounds):
            for run_id in self.world.open_runs():
                if run_id not in self.world.workers[at].started:
                    self.world.act(at, "start", run_id)
                self.world.act(at, "refresh", run_id)
            self.world.cloud.work()
            self.world.clock.advance(2.0)
        self.world.workers[at].mortality.disarm()

    # --- control

    @rule(at=WORKERS, which=WHICH, wish=st.sampled_from(WISHES), drain=st.booleans())
    def control(self, at: int, which: int, wish: str, drain: bool) -> None:
        run_id = self._pick(which)
        if wish == "cancel":
            self.world.act(at, "cancel", run_id, drain=drain)
        elif wish == "pause":
            self.world.act(at, "pause", run_id)
            self._look_at_paused(at, run_id)
        elif wish == "retry_failed":
            self._retry_failed(at, run_id)
        else:
            self._resume(at)

    def _retry_failed(self, at: int, run_id: str) -> None:
        if run_id not in self.world.cancelled:
            self.world.act(at, "retry_failed", run_id)

    def _look_at_paused(self, at: int, run_id: str) -> None:
        """A paused run submits nothing and polls nothing."""
        stored = self.world.workers[at].storage.run(run_id)
        if stored is not None and stored.control == "paused":
            before = dict(self.world.cloud.calls)
            self.world.act(1 - at, "refresh", run_id)
            self.world.act(at, "advance", run_id)
            assert dict(self.world.cloud.calls) == before

    def _resume(self, at: int) -> None:
        for run_id in self.world.open_runs():
            if run_id not in self.world.cancelled:
                self.world.act(at, "resume", run_id)

    # --- time and the provider

    @rule(seconds=st.sampled_from([1.0, 20.0, LEASE_SEC + 1, 200.0]), buried=st.booleans())
    def time_passes(self, seconds: float, buried: bool) -> None:
        """Left leases run out, or their owners are found to be dead."""
        if buried:
            # A server has no schema before the first run is written.
            if is_there(self.world.store_url):
                bury(self.world.workers[0].storage)
        else:
            self.world.clock.advance(seconds)

    @rule(troubles=st.lists(TROUBLES, max_size=3), steps=st.integers(0, 4))
    def the_provider_acts(self, troubles: list[Trouble], steps: int) -> None:
        self.world.cloud.troubles += troubles
        for _ in range(steps):
            self.world.cloud.work()

    @invariant()
    def the_laws_hold(self) -> None:
        fail_on(self.world.problems())


def settings_for(examples: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=60 if LONG else 35,
        derandomize=not LONG,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        # Shrinking takes minutes; the long profile does it.
        phases=[Phase.generate, Phase.shrink] if LONG else [Phase.generate],
    )


TestMachine = Machine.TestCase
TestMachine.settings = settings_for(2000 if LONG else 60)

# The same machine on the other databases: what it does is the same, so fewer lives are enough to meet their own traps.
for _kind in STORES[1:]:
    _machine = type(f"MachineOn{_kind.title()}", (Machine,), {"kind": _kind, "__module__": __name__})
    _case = _machine.TestCase
    _case.settings = settings_for(500 if LONG else 6)
    globals()[f"Test{_machine.__name__}"] = _case
    del _case
