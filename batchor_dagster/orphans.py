"""Runs whose asset was renamed or removed: no sensor asks for them any more, so the tick says who they are.

Law: another code location may share the store, so what is said is about this one only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import dagster as dg

from batchor_dagster.assets import result_specs
from batchor_dagster.engine_runs import ASSET_LABEL, GENERATION_LABEL, asset_label
from batchor_dagster.reports import shortened
from batchor_dagster.resources import job_name
from batchor_engine import RunInfo, counted

MAX_NAMED = 3
_LONGEST_NAME = 80


def orphans(infos: Iterable[RunInfo], repository: dg.RepositoryDefinition | None) -> list[RunInfo]:
    """Those that no result asset here is for, whichever sensor watches it; none where what is here is not known."""
    if repository is None:
        return []
    here = {asset_label(spec.key) for spec in result_specs(list(repository.assets_defs_by_key.values()))}
    return [info for info in _started_here(infos) if info.labels[ASSET_LABEL] not in here]


def _started_here(infos: Iterable[RunInfo]) -> list[RunInfo]:
    # A run that was started without Dagster may have a label of the same name.
    return [info for info in infos if {ASSET_LABEL, GENERATION_LABEL} <= info.labels.keys()]


def idle_message(others: Iterable[RunInfo], nobodys: Sequence[RunInfo], resource_key: str) -> str:
    """What a sensor without runs says of those of other assets in its store; an asset may have got another store."""
    lost = {info.run_id for info in nobodys}
    elsewhere = [info for info in _started_here(others) if info.run_id not in lost]
    left = orphans_message(nobodys, resource_key)
    if elsewhere:
        return (
            f"No run that this sensor watches is in flight. Another sensor of this store has to watch those of "
            f"{' and '.join(_names(elsewhere))}; where none does, give the asset its resource_key back.{left}"
        )
    return f"No run of an asset here is in flight.{left}" if left else "No run is in flight."


def orphans_message(found: Sequence[RunInfo], resource_key: str) -> str:
    """One sentence on how many, of what, and one on the way out; empty without any."""
    if not found:
        return ""
    refresh, export = (job_name(name, resource_key) for name in ("refresh", "export"))
    return (
        f" No batch asset of this code location is called {' or '.join(_names(found))}: nothing here sends, fetches or "
        "delivers for them. Unless another code location does, give the asset its name back, or launch job "
        f"{refresh} with run_id {found[0].run_id!r} until it is over, then {export}."
    )


def _names(found: Sequence[RunInfo]) -> list[str]:
    counts = Counter(info.labels[ASSET_LABEL] for info in found).most_common()
    names = [
        f"{shortened(name, _LONGEST_NAME)!r} ({counted(count, 'unfinished run')})" for name, count in counts[:MAX_NAMED]
    ]
    if (more := len(counts) - MAX_NAMED) > 0:
        names.append(f"{counted(more, 'more name')} of unfinished runs")
    return names
