"""Files that no row points to: what a crash between writing and committing left behind.

Law: only the owner of a run that is over sweeps it, when nobody can be about to point to a new file.
"""

from __future__ import annotations

from collections.abc import Iterator

from batchor_engine.artifacts import keys
from batchor_engine.core.records import RunRecord
from batchor_engine.ports.artifacts import ArtifactStore
from batchor_engine.ports.state import StateStore
from batchor_engine.runtime.host import Host
from batchor_engine.runtime.manifest import files_of


def sweep(host: Host, run: RunRecord) -> int:
    """Remove the orphans of a finished run; how many."""
    artifacts = host.artifacts(run)
    pointed = pointed_keys(host.store, run)
    orphans = [key for key in run_keys(artifacts, run) if key not in pointed]
    for key in orphans:
        artifacts.delete(key)
    return len(orphans)


def pointed_keys(store: StateStore, run: RunRecord) -> set[str]:
    """Every file that a row of the run points to."""
    return set(files_of(store, run).all)


def run_keys(artifacts: ArtifactStore, run: RunRecord) -> Iterator[str]:
    """Every file of the run, where the artifact store can list; an export that a user put beside them is not ours."""
    for prefix in (keys.requests_prefix, keys.outputs_prefix, keys.results_prefix):
        yield from artifacts.list_keys(prefix(run.run_id))
