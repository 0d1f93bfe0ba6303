"""Whose folder a run's files are in, because two stores may have a run of one id in one artifact root.

Law: a folder is signed before its run writes the first file there. Where another store has signed it too, nothing but
what our own rows point to is ever removed. A folder that nobody signed is of a run from before there were signatures.
"""

from __future__ import annotations

import uuid
from typing import Any

from pydantic_core import from_json, to_json

from batchor_engine.artifacts import keys
from batchor_engine.core.records import SIGNATURE, RunRecord
from batchor_engine.errors import RunMismatchError
from batchor_engine.models import JSONObject
from batchor_engine.ports.artifacts import ArtifactStore
from batchor_engine.runtime.host import Host
from batchor_engine.runtime.manifest import run_keys


def signed(config: JSONObject, stored: RunRecord | None) -> JSONObject:
    """The config of a new run with its signature: that of the run without rows that it replaces, else a new one."""
    return {**config, SIGNATURE: (stored and stored.signature) or uuid.uuid4().hex}


def check_free(host: Host, run_id: str, config: JSONObject, stored: RunRecord | None) -> None:
    """RunMismatchError, before anything is written, where the folder of a new run is another store's."""
    artifacts = host.artifacts_at_start()
    if strangers := _strangers(artifacts, run_id, config.get(SIGNATURE)):
        raise _taken(artifacts, run_id, _whose(host, artifacts, strangers))
    if stored is None and next(run_keys(artifacts, run_id), None) is not None:
        raise _taken(artifacts, run_id, "not empty, and this store has no run of this id")


def sign(host: Host, run: RunRecord) -> None:
    """Sign the folder of a run that has written nothing yet; RunMismatchError where another store did just now, too.

    Each signs by a name of its own and looks afterwards, so of two that come at once at most one goes on.
    """
    artifacts, signature = host.artifacts(run), run.signature
    if signature is None:
        return
    own = keys.signature_key(run.run_id, signature)
    said: dict[str, Any] = {"run_id": run.run_id, "store": host.store.location}
    artifacts.write_text(own, to_json(said).decode())
    there = list(artifacts.list_keys(keys.signatures_prefix(run.run_id)))
    if not there:
        # A store that cannot list shows it to nobody, and has no orphans to sweep.
        artifacts.delete(own)
    if strangers := [key for key in there if key != own]:
        raise _taken(artifacts, run.run_id, _whose(host, artifacts, strangers))


def withdraw(host: Host, run: RunRecord) -> None:
    """Take the signature of a run that is gone out of its folder."""
    if (signature := run.signature) is not None:
        host.artifacts(run).delete(keys.signature_key(run.run_id, signature))


def sharers(host: Host, run: RunRecord) -> str | None:
    """The other stores that have signed a run's folder, for a message; None where it is this run's alone."""
    artifacts = host.artifacts(run)
    strangers = _strangers(artifacts, run.run_id, run.signature)
    return _told(artifacts, strangers) if strangers else None


def _strangers(artifacts: ArtifactStore, run_id: str, own: object) -> list[str]:
    """Signatures in the folder that are not our own."""
    mine = keys.signature_key(run_id, own) if isinstance(own, str) else None
    return [key for key in artifacts.list_keys(keys.signatures_prefix(run_id)) if key != mine]


def _whose(host: Host, artifacts: ArtifactStore, strangers: list[str]) -> str:
    told = _told(artifacts, strangers)
    # Two machines may each have a database at one path, and a database may be made anew where one was lost.
    namesake = ", which is not the store there now" if told == host.store.location else ""
    return f"that of a run of this id in {told}{namesake}"


def _told(artifacts: ArtifactStore, strangers: list[str]) -> str:
    return ", ".join(sorted({_store_named(artifacts, key) for key in strangers}))


def _store_named(artifacts: ArtifactStore, key: str) -> str:
    try:
        return str(from_json(artifacts.read_text(key))["store"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return "another store"


def _taken(artifacts: ArtifactStore, run_id: str, why: str) -> RunMismatchError:
    return RunMismatchError(
        f"Run {run_id!r} cannot be started: its folder {keys.run_prefix(run_id)}/ in {artifacts.location} is {why}, "
        "and the answers there may be paid. Choose another run_id or another artifact root (artifacts_url); or, where "
        "the store of those files is gone and nobody needs them, remove that folder. Nothing was written."
    )
