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
    pointed = {segment.key for segment in store.segments(run.pk)}
    for part in store.parts(run.pk):
        pointed |= {part.key, part.sidecar_key}
    for batch in store.batches(run_pk=run.pk):
        pointed |= {key for key in (batch.output_key, batch.error_key) if key}
    return pointed


def run_keys(artifacts: ArtifactStore, run: RunRecord) -> Iterator[str]:
    """Every file below the run's prefix, where the artifact store can list."""
    return artifacts.list_keys(keys.run_prefix(run.run_id))
