"""Commands for the files of a finished run: take a copy away, make room.

Law: neither needs a key, a model or the input; what is refused has changed nothing.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from batchor_engine.cli.options import ArtifactsUrl, DbPath, RunId, StoreUrl
from batchor_engine.cli.place import Place
from batchor_engine.cli.streams import emit


def export_artifacts(
    run_id: RunId,
    destination_dir: Annotated[Path, typer.Option(metavar="DIR", help="The copy goes to a folder of the run in it.")],
    db_path: DbPath = None,
    store_url: StoreUrl = None,
    artifacts_url: ArtifactsUrl = None,
) -> None:
    """Copy a finished run's files, with a manifest."""
    with Place(db_path, store_url, artifacts_url).runner() as runner:
        emit(asdict(runner.export_artifacts(run_id, destination_dir=destination_dir)))


def prune_artifacts(
    run_id: RunId,
    include_raw_output_artifacts: Annotated[
        bool, typer.Option("--include-raw-output-artifacts", help="Also the provider's answers, once exported.")
    ] = False,
    db_path: DbPath = None,
    store_url: StoreUrl = None,
    artifacts_url: ArtifactsUrl = None,
) -> None:
    """Delete a finished run's request files; results stay.

    Failed rows of a pruned run cannot be sent again.
    """
    with Place(db_path, store_url, artifacts_url).runner() as runner:
        emit(asdict(runner.prune_artifacts(run_id, include_raw_output_artifacts=include_raw_output_artifacts)))
