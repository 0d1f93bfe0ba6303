"""Kills workers under load, at crash points and in random moments, then holds the books of both sides together.

Law: every decision comes from one seed; what differs between two runs of a seed is only how far a process got.
"""

from __future__ import annotations

import json
import random
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batchor_engine.results.segments import read_rows
from batchor_engine.sandbox import Fault, Phases, SandboxServer
from batchor_engine.testing import check_invariants

from ..stores import STORES, new_url
from .load import runner_for
from .points import POINTS

WORKERS = 2
RUNS_AT_ONCE = 2
# Lines that the sandbox answers, bills and then loses: they must go again, and only they.
STANDING_FAULTS = (
    Fault("missing_line", every=9, times=None),
    Fault("garbage_line", every=7, times=None, nth=2),
)
PASSING_FAULTS = (
    Fault("lost_answer"),
    Fault("drop", on="batches.create"),
    Fault("lost_answer", on="files.create"),
    Fault("http_error", on="batches.create", status=500),
    Fault("http_error", on="files.content", status=503),
    Fault("expire", at=4),
    Fault("cancel", at=6),
)
PATIENCE_SEC = 120.0


class Process:
    """One worker; its standard output is read line by line."""

    def __init__(self, options: dict[str, Any]) -> None:
        command = [sys.executable, "-W", "error", str(Path(__file__).with_name("load.py")), json.dumps(options)]
        self.target = next(iter(options.get("at") or {}), None)
        self.began = time.monotonic()
        # A pipe that nobody reads would stop a worker that complains much.
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - end() closes it
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._errors, text=True)
        self.pid = self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def await_ready(self) -> bool:
        """True once it works; False when it ended before."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], PATIENCE_SEC)
        return bool(ready) and self._process.stdout.readline() == "ready\n"

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> tuple[int, str, str]:
        """Code, output and errors of a process that is over, or soon will be."""
        output, _ = self._process.communicate(timeout=PATIENCE_SEC)
        self._errors.seek(0)
        with self._errors as errors:
            return self._process.returncode, output, errors.read()


@dataclass
class Torture:
    """One sandbox, one store, generations of runs, and the kills so far."""

    sandbox: SandboxServer
    folder: Path
    seed: int
    rows: int = 150
    kind: str = STORES[0]
    store: str = ""
    artifacts: str = ""
    kills: Counter[str] = field(default_factory=Counter[str])
    runs: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.store = self.store or new_url(self.kind, self.folder)
        self.artifacts = self.artifacts or str(self.folder / "files")

    def go(self, kills: int, *, all_points: bool) -> None:
        """Generations of runs until there were so many random kills, and each crash point was hit."""
        self.sandbox.faults.add(*STANDING_FAULTS)
        while self.kills["random"] < kills or (all_points and any(not self.kills[point] for point in POINTS)):
            self._generation(kills)

    def _generation(self, kills: int) -> None:
        names = [f"run-{len(self.runs) + n}" for n in range(RUNS_AT_ONCE)]
        self.runs += names
        crowd: list[Process] = []
        try:
            crowd += [self.spawn(names) for _ in range(WORKERS)]
            while crowd:
                self._moment(crowd, names, kills)
        finally:
            for one in crowd:
                one.kill()
                one.end()

    def _moment(self, crowd: list[Process], names: list[str], kills: int) -> None:
        """Trouble now and then, a short while, perhaps a kill; who is dead is followed by another."""
        if self.chance.random() < 0.3:
            self.sandbox.faults.add(self.chance.choice(PASSING_FAULTS))
        time.sleep(self.chance.uniform(0.02, 0.5))
        victim = self.chance.choice(crowd)
        # One that is to die at a crash point gets some seconds to come there.
        due = victim.target is None or time.monotonic() - victim.began > 3.0
        if victim.running and due and self.kills["random"] < kills:
            self._kill(victim)
        for one in [one for one in crowd if not one.running]:
            crowd.remove(one)
            if not self._finished(one):
                crowd.append(self.spawn(names))

    def _kill(self, victim: Process) -> None:
        victim.kill()
        victim.target = None
        self.kills["random"] += 1

    def spawn(self, names: list[str], *, killed: bool = True) -> Process:
        """A worker; where it may be `killed`, some are to die at a crash point, one that was hit least."""
        options: dict[str, Any] = {
            "store": self.store, "artifacts": self.artifacts, "base_url": self.sandbox.base_url, "runs": names,
            "rows": self.rows,
        }  # fmt: skip
        if killed and self.chance.random() < 0.4:
            fewest = min(self.kills[point] for point in POINTS)
            point = self.chance.choice([point for point in POINTS if self.kills[point] == fewest])
            options["at"] = {point: self.chance.randint(1, 3)}
        process = Process(options)
        process.await_ready()
        return process

    def _finished(self, process: Process) -> bool:
        """Whether it brought all runs to their end; a death is counted, anything else is told at the end."""
        code, output, errors = process.end()
        lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
        struck = next((line["struck"] for line in lines if "struck" in line), None)
        if struck is not None:
            self.kills[struck] += 1
        if code not in (0, -9):
            raise AssertionError(f"a worker ended with {code}: {errors[-2000:]}")
        return code == 0

    # --- the books

    def report(self) -> dict[str, Any]:
        """Both sides' counts; problems() says what does not fit."""
        paid = self.sandbox.paid()
        return {
            "seed": self.seed,
            "kills": sum(self.kills.values()),
            "random kills": self.kills["random"],
            "kills by crash point": {point: self.kills[point] for point in POINTS},
            "runs": len(self.runs),
            "rows in": len(self.runs) * self.rows,
            "rows out": sum(len(results) for results in self._results().values()),
            "paid lines": len(paid),
            "dropped on purpose": sum(line["dropped"] is not None for line in paid),
            "ledger": len(self._ledger()),
        }

    def problems(self) -> list[str]:
        runner = runner_for(self.store, self.artifacts, self.sandbox.base_url)
        found = check_invariants(runner)
        runner.close()
        wanted = [f"row-{n}" for n in range(self.rows)]
        for run_id, results in self._results().items():
            if [one.item_id for one in results] != wanted:
                found.append(f"{run_id}: rows out are not rows in")
            bad = {one.error.error_class for one in results if one.error}
            if bad:
                found.append(f"{run_id}: rows failed for no reason of their own: {bad}")
        kept = {(line["batch_id"], line["custom_id"]) for line in self.sandbox.paid() if line["dropped"] is None}
        ledger = self._ledger()
        if kept != ledger:
            found.append(f"paid, not in the ledger: {sorted(kept - ledger)[:5]}; unpaid: {sorted(ledger - kept)[:5]}")
        answers = Counter((self._run_of[batch_id], custom_id) for batch_id, custom_id in kept)
        found += [f"{key} was paid {count} times" for key, count in answers.items() if count > 1]
        return found

    @property
    def _run_of(self) -> dict[str, str]:
        return {batch["id"]: batch["metadata"]["run_id"] for batch in self.sandbox.batches()}

    def _results(self) -> dict[str, list[Any]]:
        runner = runner_for(self.store, self.artifacts, self.sandbox.base_url)
        results = {run_id: list(runner.get_run(run_id).iter_results()) for run_id in self.runs}
        runner.close()
        return results

    def _ledger(self) -> set[tuple[str, str]]:
        """Every collected answer as (remote batch, custom id)."""
        runner = runner_for(self.store, self.artifacts, self.sandbox.base_url)
        remote = {batch.pk: str(batch.provider_batch_id) for batch in runner.storage.batches()}
        found: set[tuple[str, str]] = set()
        for run_id in self.runs:
            stored = runner.storage.run(run_id)
            assert stored is not None
            for segment in runner.storage.segments(stored.pk):
                with runner.host.artifacts(stored).local_file(segment.key) as path:
                    answered = [row for row in read_rows(path, final_only=False) if row.text is not None]
                found |= {(remote[segment.batch or 0], str(row.custom_id)) for row in answered}
        runner.close()
        return found


@contextmanager
def new_sandbox() -> Generator[SandboxServer]:
    """A quick sandbox."""
    with SandboxServer(phases=Phases(0.02, 0.1, 0.02, 0.02)) as sandbox:
        yield sandbox
