"""Commands that steer a run: pause, resume, cancel, collect.

Law: each prints the run's summary as it is afterwards; pause and resume need no key.
"""

from __future__ import annotations

from typing import Annotated

import typer

from batchor_engine.cli.options import ArtifactsUrl, DbPath, RunId, StoreUrl
from batchor_engine.cli.place import Place, make_importable, require_key_of
from batchor_engine.cli.streams import emit_summary, note
from batchor_engine.states import RUN_TERMINAL


def pause(
    run_id: RunId, db_path: DbPath = None, store_url: StoreUrl = None, artifacts_url: ArtifactsUrl = None
) -> None:
    """Stop reading, submitting and polling until `resume`."""
    with Place(db_path, store_url, artifacts_url).runner() as runner:
        emit_summary(runner.get_run(run_id).pause())


def resume(
    run_id: RunId, db_path: DbPath = None, store_url: StoreUrl = None, artifacts_url: ArtifactsUrl = None
) -> None:
    """Let a paused run go on; `wait` does the work."""
    place = Place(db_path, store_url, artifacts_url)
    with place.runner() as runner:
        summary = runner.get_run(run_id).resume()
        emit_summary(summary)
    if summary.status not in RUN_TERMINAL:
        note(f"{place.line('wait', run_id)} goes on.")


def cancel(
    run_id: RunId,
    drain: Annotated[bool, typer.Option("--drain", help="Let batches at the provider end by themselves.")] = False,
    db_path: DbPath = None,
    store_url: StoreUrl = None,
    artifacts_url: ArtifactsUrl = None,
) -> None:
    """End a run for good; paid answers are still collected."""
    make_importable()
    place = Place(db_path, store_url, artifacts_url)
    with place.runner() as runner:
        summary = runner.get_run(run_id).cancel(drain=drain)
        emit_summary(summary)
    if summary.status not in RUN_TERMINAL:
        note(f"Batches are still at the provider: {place.line('wait', run_id)} brings in what they answered.")


def collect(
    run_id: RunId, db_path: DbPath = None, store_url: StoreUrl = None, artifacts_url: ArtifactsUrl = None
) -> None:
    """Bring in what is answered, also while paused."""
    make_importable()
    with Place(db_path, store_url, artifacts_url).runner() as runner:
        require_key_of(runner, run_id)
        emit_summary(runner.get_run(run_id).collect())
