"""What every step of the runtime needs at hand: store, files, provider, clock, observer.

Law: an event is told after its commit, and an observer that fails changes nothing.
"""

from __future__ import annotations

import atexit
import importlib
import logging
import os
import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from pydantic import BaseModel

from batchor_engine.artifacts.urls import found_place
from batchor_engine.config import OpenAIConnection, ProviderConfig, ProviderKind
from batchor_engine.core.records import RunLife, RunRecord
from batchor_engine.core.remote_files import RemoteCleanup
from batchor_engine.core.strict_schema import model_output_schema, same_answers
from batchor_engine.errors import ModelResolutionError, RunMismatchError, StructuredOutputSchemaError
from batchor_engine.events import Observer, RunEvent
from batchor_engine.job import BatchJob
from batchor_engine.models import (
    ArtifactPolicy,
    ChunkPolicy,
    EmbeddingItemResult,
    Form,
    JSONObject,
    JSONValue,
    RetryPolicy,
)
from batchor_engine.ports.artifacts import ArtifactStore
from batchor_engine.ports.providers import BatchProvider, StructuredOutputSchema
from batchor_engine.ports.state import StateStore
from batchor_engine.sources.once import forget_unheld
from batchor_engine.states import RunControlState

log = logging.getLogger("batchor_engine")

Codec = Callable[[Mapping[str, JSONValue]], ProviderConfig]


@dataclass(frozen=True)
class _Attached:
    """What this process does one run with; another run of its id has no part in it."""

    life: RunLife
    provider: BatchProvider
    job: BatchJob[Any, Any] | None = None


@dataclass
class Host:
    """The effects of one runner. `reached` is called at every crash point by name; tests trip over it."""

    store: StateStore
    load_config: Codec
    make_provider: Callable[[ProviderConfig], BatchProvider]
    open_artifacts: Callable[[str], ArtifactStore]
    connection: OpenAIConnection
    observer: Observer | None
    sleep: Callable[[float], None]
    given_artifacts: ArtifactStore | None = None
    artifacts_place: str | None = None
    remote_cleanup: RemoteCleanup = RemoteCleanup.NONE
    max_transfers: int = 4
    # A create call may still be on its way to the provider this long after its own timeout.
    late_call_margin_sec: float = 30.0
    reached: Callable[[str], None] = field(default=lambda _name: None)
    # The batch that a poll asked for last by its id, by account and by whether a list page had shown it.
    asked_last: dict[tuple[str, bool], int] = field(default_factory=dict[tuple[str, bool], int])
    # Readers of runs whose rows can be had only once, by run id.
    unread: dict[str, object] = field(default_factory=dict[str, object])
    _artifacts: dict[str, ArtifactStore] = field(default_factory=dict[str, ArtifactStore])
    _attached: dict[str, _Attached] = field(default_factory=dict[str, _Attached])
    _models: dict[str, tuple[RunLife, type[BaseModel]]] = field(
        default_factory=dict[str, tuple[RunLife, "type[BaseModel]"]]
    )
    _private_root: str | None = None
    _private_root_of: int = 0
    _lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def clock(self) -> float:
        return self.store.now().timestamp()

    def artifact_root(self) -> str:
        """Where a new run's files go: the given store or place, else beside the database, else a private folder."""
        if self.given_artifacts is not None:
            return self.given_artifacts.location
        return self.artifacts_place or self.store.default_artifact_root or self._make_private_root()

    def _make_private_root(self) -> str:
        with self._lock:
            if self._private_root is None:
                self._private_root = tempfile.mkdtemp(prefix="batchor-")
                atexit.register(_remove_own, self._private_root, os.getpid())
                self._private_root_of = os.getpid()
            return self._private_root

    def artifacts_at_start(self) -> ArtifactStore:
        """The store that a run made now gets."""
        return self.given_artifacts or self.artifacts_at(self.artifact_root())

    def artifacts(self, run: RunRecord) -> ArtifactStore:
        """The store of a run's files: the one given to the runner, else the place recorded in the run."""
        return self.given_artifacts or self.artifacts_at(self.place_of(run))

    def place_of(self, run: RunRecord) -> str:
        """Where a run's files are."""
        return found_place(run.artifact_root, self.store.folder)

    def artifacts_at(self, place: str) -> ArtifactStore:
        """The store at a folder or URL, kept for the next time."""
        with self._lock:
            if place not in self._artifacts:
                self._artifacts[place] = self.open_artifacts(place)
            return self._artifacts[place]

    def provider(self, config: ProviderConfig) -> BatchProvider:
        """A provider for a job's config, with the runner's connection filled in; not kept."""
        return self.make_provider(self.connection.apply(config))

    def provider_of(self, run: RunRecord) -> BatchProvider:
        """The provider that this process uses for a run; its key is only asked for by a remote call."""
        with self._lock:
            known = self._attached.get(run.run_id)
            if known is not None and known.life == run.life:
                return known.provider
            made = self.provider(self.config_of(run))
            # Whoever still holds an earlier run of this id takes nothing away from the later one.
            if known is None or known.life < run.life:
                self._put(run, _Attached(run.life, made))
            return made

    def attach(self, run: RunRecord, job: BatchJob[Any, Any]) -> None:
        """Keep a job while its run goes on, so that any handle of this process can read on from its source."""
        with self._lock:
            self._put(run, _Attached(run.life, self.provider(job.provider_config), job))
            if job.structured_output is not None:
                self._models[run.run_id] = run.life, job.structured_output

    def _put(self, run: RunRecord, attached: _Attached) -> None:
        known = self._attached.get(run.run_id)
        if known is not None and known.life != run.life:
            self.unread.pop(run.run_id, None)
        self._attached[run.run_id] = attached

    def job_of(self, run: RunRecord) -> BatchJob[Any, Any] | None:
        """The job that was given here to this very run; that of another run of its id would send other rows."""
        known = self._attached.get(run.run_id)
        return known.job if known is not None and known.life == run.life else None

    def model_of(self, run: RunRecord) -> Form:
        """The run's model: its job's, else imported again from where it was defined."""
        return self._model_given(run) or resolve_model(policies_of(run).model_home)

    def _model_given(self, run: RunRecord) -> type[BaseModel] | None:
        life, model = self._models.get(run.run_id, (None, None))
        return model if life == run.life else None

    def model_to_read(self, run: RunRecord) -> Form:
        """model_of(), with a warning where that class has other fields than the answers."""
        model = self.model_of(run)
        if not self._asked_for(run, model):
            warnings.warn(
                f"Run {run.run_id!r} asked for answers of {_named(model)}, whose fields have changed since: `output` "
                "holds what fits the class of today, `output_text` the answer as it came.",
                stacklevel=4,
            )
        return model

    def model_to_collect(self, run: RunRecord) -> Form:
        """model_of(), or RunMismatchError where that class would refuse answers that were paid for another one."""
        model = self.model_of(run)
        if not self._asked_for(run, model):
            raise RunMismatchError(
                f"Run {run.run_id!r} asked for answers of {_named(model)}, whose fields have changed since: paid "
                "answers would not fit. Bring the class back as it was when the run was started, and go on; nothing "
                "was changed."
            )
        return model

    def _asked_for(self, run: RunRecord, model: Form) -> bool:
        """Whether the run asked for the fields that the model has; `start` has compared a job's own model."""
        asked = policies_of(run).schema
        if model is None or not issubclass(model, BaseModel) or asked is None or self._model_given(run):
            return True
        try:
            _, schema = model_output_schema(model)
        except StructuredOutputSchemaError:
            return False
        return same_answers(schema, asked.schema)

    def forget(self, run: RunRecord) -> None:
        """Drop the source and the provider of a run that is finished or gone; those of a later one of its id stay."""
        with self._lock:
            known = self._attached.get(run.run_id)
            if known is not None and known.life <= run.life:
                del self._attached[run.run_id]
                self.unread.pop(run.run_id, None)
        forget_unheld()

    def config_of(self, run: RunRecord) -> ProviderConfig:
        return self.load_config(cast("Mapping[str, JSONValue]", run.config["provider"]))

    @property
    def is_heard(self) -> bool:
        """Whether anybody would hear of an event."""
        return self.observer is not None or log.isEnabledFor(logging.DEBUG)

    def emit(self, run: RunRecord | str, event_type: str, **data: JSONValue) -> None:
        """Tell the observer, whose failure is logged and otherwise ignored."""
        run_id = run if isinstance(run, str) else run.run_id
        log.debug("%s run=%s", event_type, run_id)
        if self.observer is None:
            return
        kind = None if isinstance(run, str) else provider_kind(run)
        try:
            self.observer(RunEvent(event_type, run_id, kind, data))
        except Exception:
            log.warning("observer failed on %s of run %s", event_type, run_id, exc_info=True)

    def close(self) -> None:
        """Close connections to providers; remove the private folder of a store that dies with the process."""
        with self._lock:
            for known in self._attached.values():
                known.provider.close()
        if self._private_root is not None:
            _remove_own(self._private_root, self._private_root_of)


def _remove_own(folder: str, pid: int) -> None:
    """Remove a folder of the process `pid`; a forked child leaves it to its parent, who still needs it."""
    if os.getpid() == pid:
        shutil.rmtree(folder, ignore_errors=True)


def pause_for(host: Host, run: RunRecord, reason: str, *, phase: str, provider_batch_id: str | None = None) -> None:
    """Pause a running run for a reason an operator must see; never overrides a cancel."""
    changed = host.store.set_control(run.run_id, RunControlState.PAUSED, reason=reason)
    if changed.control is RunControlState.PAUSED and changed.control_reason == reason:
        known: JSONObject = {} if provider_batch_id is None else {"provider_batch_id": provider_batch_id}
        host.emit(run, "run_auto_paused", control_reason=reason, error_class=reason, phase=phase, **known)


def provider_kind(run: RunRecord) -> ProviderKind | None:
    name = cast("JSONObject", run.config["provider"]).get("provider_kind")
    return ProviderKind(name) if name in set(ProviderKind) else None


@dataclass(frozen=True)
class RunPolicies:
    """The parts of a stored run config that decisions are made with."""

    chunk: ChunkPolicy
    retry: RetryPolicy
    artifact: ArtifactPolicy
    batch_metadata: dict[str, str]
    schema: StructuredOutputSchema | None
    model_home: tuple[str, str] | None

    @property
    def plain_form(self) -> Form:
        """What rows are read as where the user's model need not be at hand: a vector, or text."""
        return EmbeddingItemResult if self.model_home == model_home(EmbeddingItemResult) else None

    @property
    def structured(self) -> bool:
        """Whether the text of an answer is JSON for a model."""
        return self.model_home is not None and self.plain_form is None


def model_home(form: type) -> tuple[str, str]:
    """Where a class can be imported again."""
    return form.__module__, form.__qualname__


def policies_of(run: RunRecord) -> RunPolicies:
    compared = cast("dict[str, Any]", run.config["compared"])
    schema, model = compared.get("schema"), compared.get("model")
    return RunPolicies(
        chunk=ChunkPolicy(**compared["chunk_policy"]),
        retry=RetryPolicy(**compared["retry_policy"]),
        artifact=ArtifactPolicy.from_payload(compared["artifact_policy"]),
        batch_metadata=compared["batch_metadata"],
        schema=StructuredOutputSchema(schema["name"], cast("JSONObject", run.config["schema"])) if schema else None,
        model_home=(model["module"], model["qualname"]) if model else None,
    )


def _named(model: Form) -> str:
    return f"{model.__module__}:{model.__qualname__}" if model else "text"


def resolve_model(home: tuple[str, str] | None) -> Form:
    """Import a run's model again; None for a text job, ModelResolutionError where it cannot be found."""
    if home is None:
        return None
    if home == model_home(EmbeddingItemResult):
        return EmbeddingItemResult
    module_name, qualname = home
    try:
        found: Any = importlib.import_module(module_name)
        for name in qualname.split("."):
            found = getattr(found, name)
    except Exception as error:
        # A user's module may raise anything when it is imported.
        raise ModelResolutionError(module_name, qualname) from error
    if not (isinstance(found, type) and issubclass(found, BaseModel)):
        raise ModelResolutionError(module_name, qualname)
    return found
