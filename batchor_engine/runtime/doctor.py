"""A store examined: its counters, rows and files, its live batches, its budget, and what the provider knows of it.

Law: without `repair` nothing changes anywhere. A repair touches only what can be told again from rows (counters,
budget) or what nothing points to any more; it never loses a row or a paid answer, and resends nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import cast

from pydantic_core import to_jsonable_python

from batchor_engine.artifacts import keys
from batchor_engine.artifacts.atomic import is_unfinished, walk_files
from batchor_engine.artifacts.local import LocalArtifactStore
from batchor_engine.core.records import DELETING, BatchRecord, RunRecord
from batchor_engine.errors import BatchorError
from batchor_engine.models import JSONObject
from batchor_engine.runtime.host import Host
from batchor_engine.runtime.invariants import (
    Diagnosis,
    Finding,
    Severity,
    budget_diagnoses,
    named,
    run_diagnoses,
)
from batchor_engine.runtime.remote_checks import remote_diagnoses
from batchor_engine.runtime.signature import sharers
from batchor_engine.states import BATCH_LIVE, BATCH_UNSETTLED, BatchState

_PAGE = 500
_HOUR = 3600.0
# A window is 24 hours, and cancelling or finalizing may take some more.
_OVERDUE_SEC = 30 * _HOUR
# The provider keeps output files for 30 days.
_FILES_SOON_GONE_SEC = 25 * 24 * _HOUR
_ABANDONED_LEASE_SEC = 600.0
_UNFINISHED_SEC = _HOUR


@dataclass(frozen=True)
class DoctorReport:
    """What an examination of a store came to, worst first where one run has several."""

    runs: int
    findings: tuple[Finding, ...]
    provider_asked: bool

    @property
    def healthy(self) -> bool:
        """No problem is left unrepaired; notes do not count."""
        return not any(one.severity is Severity.PROBLEM and not one.repaired for one in self.findings)

    def to_payload(self) -> JSONObject:
        """The report as JSON."""
        return cast(JSONObject, to_jsonable_python({**asdict(self), "healthy": self.healthy}))


def doctor(host: Host, *, repair: bool = False, provider: bool = True, deep: bool = False) -> DoctorReport:
    """Examine every run of a store; `deep` reads every stored answer too, `repair` does what its findings offer.

    Without `provider`, and for accounts of which this process has no key, nothing is asked over the network.
    """
    runs = 0
    findings: list[Finding] = []
    for run in _runs(host):
        runs += 1
        findings += _treated(_of_run(host, run, deep), repair)
    findings += _treated(budget_diagnoses(host.store), repair)
    findings += _treated(_leases(host), repair)
    if provider:
        findings += _treated(remote_diagnoses(host), repair)
    return DoctorReport(runs, tuple(findings), provider)


def _runs(host: Host) -> Iterator[RunRecord]:
    before: int | None = None
    while page := host.store.runs(before=before, limit=_PAGE):
        yield from page
        before = page[-1].pk


def _treated(diagnoses: Iterable[Diagnosis], repair: bool) -> Iterator[Finding]:
    for finding, cure in diagnoses:
        if not repair or cure is None:
            yield finding
            continue
        try:
            yield replace(finding, repaired=cure())
        except (BatchorError, OSError) as error:
            yield replace(finding, message=f"{finding.message} (the repair failed: {error})")


def _of_run(host: Host, run: RunRecord, deep: bool) -> Iterator[Diagnosis]:
    if run.control_reason == DELETING:
        message = "its deletion was begun and not ended: delete it again"
        yield Diagnosis(Finding("deletion", message, run.run_id))
        return
    try:
        yield from run_diagnoses(host, run, files=True, results=deep)
        yield from _unfinished_files(host, run)
    except (BatchorError, OSError, ValueError) as error:
        yield Diagnosis(Finding("artifacts", f"its files cannot be looked at: {error}", run.run_id))
    for batch in host.store.batches(run_pk=run.pk, states=BATCH_LIVE):
        yield from _live_batch(batch, host.clock)


def _unfinished_files(host: Host, run: RunRecord) -> Iterator[Diagnosis]:
    """What killed writers left; only local folders can hold such files."""
    artifacts = host.artifacts(run)
    if not isinstance(artifacts, LocalArtifactStore) or sharers(host, run):
        return
    prefix = keys.run_prefix(run.run_id)
    left = [path.name for path in walk_files(artifacts.resolve_path(prefix)) if is_unfinished(path.name)]
    if left:
        message = f"{named(left)} were never finished, or are being written"
        repair = "delete those older than an hour"
        yield Diagnosis(
            Finding("unfinished_file", message, run.run_id, Severity.NOTE, repair),
            lambda: artifacts.sweep_unfinished(prefix, older_than_sec=_UNFINISHED_SEC) > 0,
        )


def _live_batch(batch: BatchRecord, now: float) -> Iterator[Diagnosis]:
    found = _state_of(batch, now)
    if found is not None:
        severity, message = found
        yield Diagnosis(Finding("live_batch", message, batch.run_id, severity))


def _state_of(batch: BatchRecord, now: float) -> tuple[Severity, str] | None:
    """What is to be said about a batch that is not over; None when it is just on its way."""
    name = batch.provider_batch_id or f"of intent {batch.intent_id}"
    away = now - (batch.submitted_at or batch.created_at)
    since_end = now - (batch.ended_at or now)
    match batch.state:
        case BatchState.INDETERMINATE:
            return Severity.PROBLEM, (
                f"nobody can tell whether batch {name} exists: look for it at the provider, then `batchor resolve "
                f"--run-id {batch.run_id} --intent {batch.intent_id} (--created BATCH_ID | --not-created)`"
            )
        case BatchState.SUBMITTED if away > _OVERDUE_SEC:
            return Severity.NOTE, f"batch {name} is away for {away / _HOUR:.0f} h and was not seen to end: poll it"
        case BatchState.ENDED if since_end > _FILES_SOON_GONE_SEC:
            return Severity.PROBLEM, f"batch {name} ended {since_end / _HOUR / 24:.0f} days ago: collect it now"
        case BatchState.ENDED if since_end > _HOUR:
            tries = f", {batch.collect_failures} tries failed" if batch.collect_failures else ""
            return Severity.NOTE, f"batch {name} ended {since_end / _HOUR:.0f} h ago and is not collected{tries}"
        case state if state in BATCH_UNSETTLED and now - batch.created_at > _HOUR:
            return Severity.NOTE, f"batch {name} is {state} since {away / _HOUR:.0f} h: the next refresh settles it"
        case _:
            return None


def _leases(host: Host) -> Iterator[Diagnosis]:
    """Runs whose owner went away; the lease itself stops nobody once it has expired."""
    now = host.clock
    for lease in host.store.held_leases():
        kind, _, run_id = lease.resource.partition(":")
        if kind != "run" or now - lease.expires_at < _ABANDONED_LEASE_SEC:
            continue
        run = host.store.run(run_id)
        if run is not None and not run.is_finished:
            ago = (now - lease.expires_at) / 60
            message = f"its worker went away {ago:.0f} minutes ago without an end: wait() or refresh() takes over"
            yield Diagnosis(Finding("lease", message, run_id, Severity.NOTE))
