"""Commands that steer a run: pause, resume, cancel, collect, retry-failed, resolve.

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


def retry_failed(
    run_id: RunId, db_path: DbPath = None, store_url: StoreUrl = None, artifacts_url: ArtifactsUrl = None
) -> None:
    """Send the rows again that failed for good.

    Each gets a new allowance of attempts; its request is the stored one. Refused for a cancelled run.
    """
    place = Place(db_path, store_url, artifacts_url)
    with place.runner() as runner:
        summary = runner.get_run(run_id).retry_failed()
        emit_summary(summary)
    if summary.status not in RUN_TERMINAL:
        note(f"{place.line('wait', run_id)} sends them and waits.")


def resolve(
    run_id: RunId,
    created: Annotated[str | None, typer.Option(metavar="BATCH", help="The provider has it, under this id.")] = None,
    not_created: Annotated[bool, typer.Option("--not-created", help="The provider does not have it.")] = False,
    intent: Annotated[str | None, typer.Option(metavar="ID", help="Which one, where there are several.")] = None,
    db_path: DbPath = None,
    store_url: StoreUrl = None,
    artifacts_url: ArtifactsUrl = None,
) -> None:
    """Decide whether a batch was created, where nothing else can.

    Look at the provider first: its batches carry our intent id in their metadata.
    """
    if (created is None) is not not_created:
        raise typer.BadParameter("give exactly one of them", param_hint="'--created' and '--not-created'")
    with Place(db_path, store_url, artifacts_url).runner() as runner:
        run = runner.get_run(run_id)
        if created is None:
            summary = run.resolve_indeterminate_submission_as_not_created(intent_id=intent)
        else:
            summary = run.resolve_indeterminate_submission_as_created(provider_batch_id=created, intent_id=intent)
        emit_summary(summary)
