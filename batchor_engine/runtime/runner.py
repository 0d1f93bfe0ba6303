"""The front door: jobs in, runs out.

Law: nothing is stored and no call is made before the job is known to be sound.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from batchor_engine.artifacts.urls import artifact_place, open_artifacts, recorded_place
from batchor_engine.config import OpenAIConnection
from batchor_engine.core.identity import check_batch_metadata, check_run_id, config_differences, new_run_id
from batchor_engine.core.records import Lease, NewRun, RunRecord
from batchor_engine.core.remote_files import RemoteCleanup
from batchor_engine.core.strict_schema import model_output_schema, schema_hash
from batchor_engine.core.summary import summarize
from batchor_engine.errors import BatchorError, RunBusyError, RunMismatchError
from batchor_engine.events import Observer
from batchor_engine.job import BatchJob, check_job, form_of
from batchor_engine.models import (
    ArtifactExportResult,
    ArtifactPruneResult,
    BudgetInfo,
    JSONObject,
    PollReport,
    RunInfo,
    TerminalResultsExportResult,
    TerminalResultsPage,
)
from batchor_engine.ports.artifacts import ArtifactStore
from batchor_engine.ports.providers import BatchProvider
from batchor_engine.ports.sources import CheckpointedItemSource
from batchor_engine.ports.state import StateStore
from batchor_engine.providers.registry import ProviderRegistry, build_default_provider_registry
from batchor_engine.runtime.advance import advance_held, read_run
from batchor_engine.runtime.doctor import DoctorReport, doctor
from batchor_engine.runtime.due import run_infos
from batchor_engine.runtime.estimate import JobPlan, estimate
from batchor_engine.runtime.feed import (
    PLAIN_KIND,
    check_ids,
    check_same_rows,
    check_same_source,
    first_position,
    warn_of_change,
)
from batchor_engine.runtime.hold import held, run_lease
from batchor_engine.runtime.host import Host
from batchor_engine.runtime.housekeeping import DeletedRun, RunPage, delete_run, leave_place, list_runs, take_back
from batchor_engine.runtime.poll import keep_places, poll
from batchor_engine.runtime.run import Run
from batchor_engine.runtime.signature import check_free, sign, signed
from batchor_engine.runtime.steps import Stop, stop_after
from batchor_engine.runtime.submit import budget_of
from batchor_engine.runtime.tidy import tidy
from batchor_engine.states import RunControlState, RunLifecycleStatus
from batchor_engine.storage.registry import StorageRegistry, build_default_storage_registry, open_store

_PAGE = 500
# Another worker that creates the run reads the source for its fingerprint first; so long start() waits to join it.
_CREATION_SEC = 5.0
_CREATION_LOOK_SEC = 0.05


class BatchRunner:
    """Runs jobs in one store.

    `storage` is a store, a registered kind ("sqlite", "postgres", "memory"), a URL ("sqlite:///runs.sqlite3",
    "postgresql://user:password@host/db?schema=batchor"), or None for ~/.batchor/default.sqlite3. `artifacts_url` is
    where the files of new runs go: a folder or an object-store URL (s3://bucket/path, gs://, az://, memory://), whose
    credentials come from the environment. `connection` supplies key, URL and account where a job's config leaves them
    open. `remote_cleanup` says which of a batch's files are deleted at the provider once its answers are safe here.
    `max_transfers` files at most are uploaded or downloaded at once; 1 does one thing after the other.
    """

    def __init__(
        self,
        *,
        storage: str | StateStore | None = None,
        provider_registry: ProviderRegistry | None = None,
        storage_registry: StorageRegistry | None = None,
        provider_factory: Callable[[Any], BatchProvider] | None = None,
        observer: Observer | None = None,
        sleep: Callable[[float], None] | None = None,
        artifact_store: ArtifactStore | None = None,
        temp_root: str | Path | None = None,
        artifacts_url: str | Path | None = None,
        connection: OpenAIConnection | None = None,
        remote_cleanup: RemoteCleanup | str = RemoteCleanup.NONE,
        max_transfers: int = 4,
    ) -> None:
        self._owns_registry = provider_registry is None
        self._registry = provider_registry or build_default_provider_registry()
        stores = storage_registry or build_default_storage_registry(provider_registry=self._registry)
        self.host = Host(
            store=open_store(storage, stores),
            load_config=self._registry.load_config,
            make_provider=provider_factory or self._registry.create,
            open_artifacts=open_artifacts,
            connection=connection or OpenAIConnection(),
            observer=observer,
            sleep=sleep or time.sleep,
            given_artifacts=artifact_store,
            artifacts_place=_place(temp_root, artifacts_url),
            remote_cleanup=RemoteCleanup(remote_cleanup),
            max_transfers=_at_least_one(max_transfers),
        )
        if self.host.artifacts_place is not None:
            # Better now than after a million rows: the library may not be installed.
            self.host.artifacts_at(self.host.artifacts_place)

    @property
    def storage(self) -> StateStore:
        return self.host.store

    # --- before a cent is spent

    def plan(self, job: BatchJob[Any, Any], *, sample: int = 3) -> JobPlan:
        """What a job would send: rows, files, tokens, cost range, rows too large, schema verdict, `sample` requests.

        Stores nothing, calls nobody, needs no key. ValueError for a generator, which planning would use up.
        """
        check_job(job)
        return estimate(self.host, job, sample=sample)

    # --- starting

    def start(
        self,
        job: BatchJob[Any, Any],
        *,
        run_id: str | None = None,
        labels: Mapping[str, str] | None = None,
        deadline: float | None = None,
    ) -> Run:
        """Begin a run, or go on with the stored one of this id; returns without waiting for answers.

        Ingests and submits as far as capacity, back-off, control and `deadline` (seconds) allow. StructuredOutput-
        SchemaError, ValueError and TypeError come before anything is stored or sent. `labels` are stored with a new
        run, for find_runs().
        """
        run_id = check_run_id(run_id) if run_id is not None else new_run_id(self.storage.now(), uuid.uuid4().hex)
        config = self._stored_config(job)
        stored = self.storage.run(run_id)
        if stored is None or not stored.is_finished:
            self.host.provider(job.provider_config).check_ready()
        stop, give_up = stop_after(self.host, deadline), stop_after(self.host, _CREATION_SEC)
        while True:
            with held(self.storage, run_lease(run_id)) as lease:
                if lease is not None:
                    created = self._open_run(run_id, job, config, labels or {}, lease)
                    self._go_on(run_id, job, lease, stop, created=created)
                    break
            if (busy := self.storage.run(run_id)) is not None:
                return self._join_busy(busy, job, config)
            if give_up() or stop():
                raise RunBusyError(run_id, "just being created")
            self.host.sleep(_CREATION_LOOK_SEC)
        tidy(self.host, read_run(self.host, run_id))
        return self.get_run(run_id)

    def _go_on(self, run_id: str, job: BatchJob[Any, Any], lease: Lease, stop: Stop, *, created: bool) -> None:
        """Ingest and submit for the first time in this process."""
        run = read_run(self.host, run_id)
        self.host.attach(run, job)
        self.host.emit(run, "run_created" if created else "run_resumed")
        try:
            if run.is_empty:
                sign(self.host, run)
            advance_held(self.host, run_id, lease, stop)
        except Exception:
            # A run that failed before its first row protects nothing and would only stand in the way; so would a
            # signature that outlives its run.
            with suppress(BatchorError, OSError):
                take_back(self.host, run_id, lease)
            raise

    def run_and_wait(self, job: BatchJob[Any, Any], *, run_id: str | None = None) -> Run:
        """start() and wait()."""
        return self.start(job, run_id=run_id).wait()

    def _join_busy(self, run: RunRecord, job: BatchJob[Any, Any], config: JSONObject) -> Run:
        """Another worker has the run: check that it is this job, and stand ready to go on when that worker stops."""
        self._check_same_job(run, job, config)
        self.host.attach(run, job)
        self.host.emit(run, "run_busy")
        return self.get_run(run.run_id)

    def _open_run(
        self, run_id: str, job: BatchJob[Any, Any], config: JSONObject, labels: Mapping[str, str], lease: Lease
    ) -> bool:
        """Create the run, or check that the stored one is this job's."""
        stored = self.storage.run(run_id)
        if stored is None or stored.gives_way:
            root = recorded_place(self.host.artifact_root(), self.storage.folder)
            config = signed(config, stored)
            check_free(self.host, run_id, config, stored)
            new = NewRun(run_id, config, root, first_position(job.items), dict(labels))
            check_ids(run_id, job.items)
            leave_place(self.host, stored, root, lease)
            if self.storage.create_run(new):
                return True
            # Paused or cancelled at this moment, which needs no lease.
            stored = read_run(self.host, run_id)
        self._check_same_job(stored, job, config)
        if not stored.ingest.finished:
            check_ids(run_id, job.items)
        return False

    def _check_same_job(self, stored: RunRecord, job: BatchJob[Any, Any], config: JSONObject) -> None:
        _check_same_config(stored, config)
        resumable = isinstance(job.items, CheckpointedItemSource)
        if not stored.ingest.finished:
            check_same_source(stored.run_id, stored.ingest, first_position(job.items))
        elif resumable or stored.ingest.source_kind != PLAIN_KIND:
            warn_of_change(stored.run_id, job.items, stored.ingest)
        else:
            gave_up = stored.control is RunControlState.CANCEL_REQUESTED
            check_same_rows(stored.run_id, job.items, stored.ingest, more_allowed=gave_up)

    def _stored_config(self, job: BatchJob[Any, Any]) -> JSONObject:
        """What is stored of a job; `compared` is what a resume must share with it. Holds no secret."""
        check_job(job)
        check_batch_metadata(job.batch_metadata)
        config = job.provider_config
        form, named = form_of(job), None
        if job.structured_output is not None:
            named = model_output_schema(job.structured_output, schema_name=job.schema_name)
        compared: dict[str, Any] = {
            "provider": config.answer_payload(),
            "chunk_policy": asdict(job.chunk_policy),
            "retry_policy": asdict(job.retry_policy),
            "artifact_policy": job.artifact_policy.to_payload(),
            "batch_metadata": dict(job.batch_metadata),
            "schema": {"name": named[0], "hash": schema_hash(named[1])} if named else None,
            "model": {"module": form.__module__, "qualname": form.__qualname__} if form else None,
        }
        dumped = self._registry.dump_config(config, include_secrets=False)
        return {"provider": dumped, "compared": compared, "schema": named[1] if named else None}

    # --- runs by id

    def get_run(self, run_id: str) -> Run:
        """A handle on a stored run; needs neither job nor key. UnknownRunError where there is none."""
        return Run(runner=self, run_id=run_id, summary=summarize(read_run(self.host, run_id), self.host.clock))

    def pause_run(self, run_id: str) -> Run:
        run = self.get_run(run_id)
        run.pause()
        return run

    def resume_run(self, run_id: str) -> Run:
        run = self.get_run(run_id)
        run.resume()
        return run

    def cancel_run(self, run_id: str, *, drain: bool = False) -> Run:
        run = self.get_run(run_id)
        run.cancel(drain=drain)
        return run

    def read_terminal_results(
        self, run_id: str, *, after_sequence: int = 0, limit: int | None = None
    ) -> TerminalResultsPage:
        return self.get_run(run_id).read_terminal_results(after_sequence=after_sequence, limit=limit)

    def export_terminal_results(
        self,
        run_id: str,
        *,
        destination: str | Path,
        after_sequence: int = 0,
        append: bool = True,
        limit: int | None = None,
    ) -> TerminalResultsExportResult:
        return self.get_run(run_id).export_terminal_results(
            destination, after_sequence=after_sequence, append=append, limit=limit
        )

    def export_artifacts(self, run_id: str, *, destination_dir: str | Path) -> ArtifactExportResult:
        return self.get_run(run_id).export_artifacts(destination_dir)

    def prune_artifacts(self, run_id: str, *, include_raw_output_artifacts: bool = False) -> ArtifactPruneResult:
        return self.get_run(run_id).prune_artifacts(include_raw_output_artifacts=include_raw_output_artifacts)

    # --- looking after many

    def info(self, run_id: str) -> RunInfo:
        """What find_runs() says about one run; UnknownRunError where there is none."""
        return run_infos(self.host, [read_run(self.host, run_id)])[0]

    def find_runs(
        self,
        labels: Mapping[str, str] | None = None,
        *,
        limit: int | None = None,
        unfinished: bool = False,
        created_after: datetime | None = None,
    ) -> list[RunInfo]:
        """Runs that carry all these labels, newest first, with what is due for each; needs no key.

        With `unfinished` only runs that are not over, with `created_after` (aware) only those made then or later: what
        a host that asks again and again needs, whatever the length of the history.
        """
        found: list[RunInfo] = []
        before: int | None = None
        since = None if created_after is None else created_after.timestamp()
        while limit is None or len(found) < limit:
            wanted = _PAGE if limit is None else min(_PAGE, limit - len(found))
            page = self.storage.runs(
                labels=labels, before=before, limit=wanted, unfinished=unfinished, created_after=since
            )
            found += run_infos(self.host, page)
            if len(page) < wanted:
                break
            before = page[-1].pk
        return found

    def fingerprint(
        self,
        labels: Mapping[str, str] | None = None,
        *,
        created_before: datetime | None = None,
        finished: bool = False,
    ) -> tuple[int, int]:
        """How many runs these are and the sum of their revisions: another value after any change to any of them.

        With `finished` only runs that are over. One query that adds up; no run is read.
        """
        until = None if created_before is None else created_before.timestamp()
        return self.storage.fingerprint(labels or {}, until, finished=finished)

    def budget_of(self, run_id: str) -> BudgetInfo:
        """The token budget that a run shares with others of its account and model; needs no key."""
        return budget_of(self.host, read_run(self.host, run_id))

    def list_runs(
        self,
        *,
        status: RunLifecycleStatus | RunControlState | str | None = None,
        labels: Mapping[str, str] | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> RunPage:
        """A page of runs, newest first; go on with `before=page.next_before`."""
        return list_runs(self.host, status=status, labels=labels, limit=limit, before=before)

    def delete_run(self, run_id: str, *, force: bool = False, remote: bool = False) -> DeletedRun:
        """Forget a run and its files, with `remote` also those at the provider; needs no live batch unless `force`."""
        return delete_run(self.host, run_id, force=force, remote=remote)

    def doctor(self, *, repair: bool = False, provider: bool = True, deep: bool = False) -> DoctorReport:
        """Check every run against its files and, with `provider`, against what the provider has.

        With `repair` mend what is safe to mend: counters, budgets, orphan files. Rows and money are never touched.
        """
        return doctor(self.host, repair=repair, provider=provider, deep=deep)

    def poll(self, *, deadline: float | None = None) -> PollReport:
        """Look at every active batch of the store in a few cheap calls; downloads and submits nothing."""
        keep_places(self.host)
        return poll(self.host, stop=stop_after(self.host, deadline))

    def close(self) -> None:
        """Close connections to the store and to providers, and remove a private artifact directory."""
        self.storage.close()
        self.host.close()
        if self._owns_registry:
            self._registry.close()


def _check_same_config(stored: RunRecord, given: JSONObject) -> None:
    if different := config_differences(stored.config, given):
        raise RunMismatchError(
            f"Run {stored.run_id!r} was started with another config: {'; '.join(different)}. Pass the same job to go "
            "on, or start a new run_id."
        )


def _place(folder: str | Path | None, url: str | Path | None) -> str | None:
    """Where new runs keep their files, as recorded with them; None where the store decides."""
    if folder is not None:
        return str(Path(folder).expanduser().absolute())
    return None if url is None else artifact_place(url)


def _at_least_one(transfers: int) -> int:
    if transfers < 1:
        raise ValueError(f"max_transfers must be at least 1, but is {transfers}")
    return transfers


__all__ = ["BatchRunner", "Run"]
