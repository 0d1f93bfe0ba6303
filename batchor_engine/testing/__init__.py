"""For tests of your own: a clock that only moves when told, crashes at named points, a check of every law a store must
keep, and the tests that a store of your own must pass.

Law: the checker reads through the public port only, so it works on any store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from batchor_engine.runtime.invariants import Finding, Severity, budget_diagnoses, run_diagnoses
from batchor_engine.runtime.runner import BatchRunner
from batchor_engine.sandbox import Fault, SandboxServer
from batchor_engine.testing.clock import ManualClock
from batchor_engine.testing.store_contract import StoreContract

__all__ = [
    "FAULT_SCRIPTS",
    "CrashError",
    "CrashPoints",
    "ManualClock",
    "StoreContract",
    "check_invariants",
    "faulty_sandbox",
]

# Bad days of a provider, ready to use; every run gets through them with a result for each row.
FAULT_SCRIPTS: Mapping[str, tuple[Fault, ...]] = {
    "lost answer to create": (Fault("lost_answer", on="batches.create"),),
    "create fails without a trace": (Fault("http_error", on="batches.create", status=503),),
    "rate limited": (Fault("http_error", on="batches.create", status=429, retry_after=20, times=2),),
    "flaky network": tuple(
        Fault("drop", on=on, times=2) for on in ("files.create", "batches.retrieve", "files.content")
    ),
    "file not visible yet": (Fault("not_visible", times=2),),
    "token limit": (Fault("token_limit_exceeded"),),
    "batch expired": (Fault("expire", at=1),),
    "batch cancelled by somebody": (Fault("cancel", at=1),),
    "lines missing and doubled": (Fault("missing_line", lines=(1,)), Fault("duplicate_line", lines=(2,))),
    "lines unreadable": (Fault("garbage_line", lines=(1,)), Fault("null_line", lines=(2,))),
    "last line cut off": (Fault("truncated_last_line"),),
    "download breaks": (Fault("break_download", after_bytes=100),),
    "lines rejected": (Fault("validation_failed", lines=(1,)),),
    "model refuses": (Fault("refusal", lines=(1,)),),
}


class CrashError(BaseException):
    """The process "died" here. Not an Exception, so nothing that handles errors can handle it."""


class CrashPoints:
    """Install with `install(runner)`; the runtime then reports each crash point it passes.

    `at` maps a name to the how-manieth passing that crashes; `seen` counts all passings. A crash raises CrashError,
    or calls `die`, which a test of real processes sets to kill its own.
    """

    def __init__(self, at: Mapping[str, int] | None = None, die: Callable[[str], None] | None = None) -> None:
        self.at = dict(at or {})
        self.seen: Counter[str] = Counter()
        self._die = die or _raise_crash

    def install(self, runner: BatchRunner) -> CrashPoints:
        runner.host.reached = self._reached
        return self

    def _reached(self, name: str) -> None:
        self.seen[name] += 1
        if self.at.get(name) == self.seen[name]:
            self._die(f"{name}, time {self.seen[name]}")


def faulty_sandbox(script: str = "", *, faults: Iterable[Fault] = (), **config: Any) -> SandboxServer:
    """A sandbox on a free port, to be used as a context manager, with a script of FAULT_SCRIPTS and faults of your own.

    Batches move with every look at them unless `config` (see SandboxConfig) says otherwise.
    """
    armed = (*(FAULT_SCRIPTS[script] if script else ()), *faults)
    settings: dict[str, Any] = {"clock": "polls", **config}
    return SandboxServer(faults=armed, **settings)


def _raise_crash(where: str) -> None:
    raise CrashError(f"crashed at {where}")


# What must hold at every instant, whoever was killed where. The other findings of doctor() are about time and people.
_LAWS = frozenset({"counters", "rows", "sequence", "results", "orphan_file", "missing_file", "budget"})


def check_invariants(runner: BatchRunner, *, files: bool = True) -> list[str]:
    """Every broken law of every run in the runner's store, as sentences; an empty list is the good answer.

    `files` also looks for files that no row points to, which a crash may leave until the run ends.
    """
    host = runner.host
    found = [
        one
        for run in host.store.runs(limit=1_000_000)
        for one, _ in run_diagnoses(host, run, files=files, results=True)
    ]
    found += [one for one, _ in budget_diagnoses(host.store)]
    return [f"run {one.run_id}: {one.message}" if one.run_id else one.message for one in found if _breaks_a_law(one)]


def _breaks_a_law(one: Finding) -> bool:
    return one.check in _LAWS and (one.severity is Severity.PROBLEM or one.check == "orphan_file")
