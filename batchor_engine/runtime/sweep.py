"""Files that no row points to: what a crash between writing and committing left behind.

Law: only the owner of a run that is over sweeps it, when nobody can be about to point to a new file.
"""

from __future__ import annotations

from batchor_engine.core.records import RunRecord
from batchor_engine.ports.state import StateStore
from batchor_engine.runtime.host import Host
from batchor_engine.runtime.manifest import files_of, run_keys
from batchor_engine.runtime.signature import sharers


def sweep(host: Host, run: RunRecord) -> int:
    """Remove the orphans of a finished run; how many. None where another store has files there: they look the same."""
    if sharers(host, run):
        return 0
    artifacts = host.artifacts(run)
    pointed = pointed_keys(host.store, run)
    orphans = [key for key in run_keys(artifacts, run.run_id) if key not in pointed]
    for key in orphans:
        artifacts.delete(key)
    return len(orphans)


def pointed_keys(store: StateStore, run: RunRecord) -> set[str]:
    """Every file that a row of the run points to."""
    return set(files_of(store, run).all)
