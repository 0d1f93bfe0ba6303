"""Commands that look after a store: take a copy away, make room, forget a run, check everything.

Law: none needs a model or the input, and only remote files need a key; what is refused has changed nothing.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from pydantic_core import to_jsonable_python

from batchor_engine.cli.options import ArtifactsUrl, DbPath, RunId, StoreUrl
from batchor_engine.cli.place import Place, make_importable
from batchor_engine.cli.streams import emit, note
from batchor_engine.core.text import counted
from batchor_engine.runtime.doctor import DoctorReport

_OTHER_FORMATS = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".xls", ".xlsx", ".arrow", ".feather", ".gz")


def export_artifacts(
    run_id: RunId,
    destination_dir: Annotated[
        str, typer.Option(metavar="DIR", help="Folder or URL; the copy is in a folder of the run.")
    ],
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


def export_results(
    run_id: RunId,
    output: Annotated[Path, typer.Option(metavar="FILE", help="A .parquet file, or with --rows-per-file a folder.")],
    rows_per_file: Annotated[int | None, typer.Option(metavar="N", help="Several files of at most N rows.")] = None,
    db_path: DbPath = None,
    store_url: StoreUrl = None,
    artifacts_url: ArtifactsUrl = None,
) -> None:
    """Write typed rows to Parquet, as far as the run is.

    A structured run needs its model's class to be importable. JSONL comes from `results`.
    """
    _require_parquet_name(output)
    make_importable()
    with Place(db_path, store_url, artifacts_url).runner() as runner:
        run = runner.get_run(run_id)
        path = run.write_parquet(output, rows_per_file=rows_per_file)
        emit({"run_id": run_id, "status": run.summary().status.value, "output_path": str(path)})


def _require_parquet_name(output: Path) -> None:
    """A name that promises another format would be believed by whoever opens the file."""
    if str(output) == "-" or output.suffix.lower() in _OTHER_FORMATS:
        raise typer.BadParameter(
            f"{output} gets Parquet here: name a .parquet file; JSON lines come from `batchor results`",
            param_hint="'--output'",
        )


def delete(
    run_id: RunId,
    force: Annotated[
        bool, typer.Option("--force", help="Also a run that is not over; its batches are cancelled.")
    ] = False,
    remote: Annotated[bool, typer.Option("--remote", help="Also its files at the provider; needs a key.")] = False,
    db_path: DbPath = None,
    store_url: StoreUrl = None,
    artifacts_url: ArtifactsUrl = None,
) -> None:
    """Forget a run: its rows, its files and its results."""
    with Place(db_path, store_url, artifacts_url).runner() as runner:
        emit(to_jsonable_python(asdict(runner.delete_run(run_id, force=force, remote=remote))))


def doctor(
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend what is safe to mend; never rows, never money.")
    ] = False,
    deep: Annotated[bool, typer.Option("--deep", help="Read every stored answer too.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Ask the provider nothing.")] = False,
    db_path: DbPath = None,
    store_url: StoreUrl = None,
    artifacts_url: ArtifactsUrl = None,
) -> None:
    """Check a store against its files and the provider.

    Exit code 1 when something is wrong and was not repaired.
    """
    with Place(db_path, store_url, artifacts_url).runner() as runner:
        report = runner.doctor(repair=repair, provider=not offline, deep=deep)
    emit(report.to_payload())
    _tell(report)
    if not report.healthy and not repair:
        raise typer.Exit(1)


def _tell(report: DoctorReport) -> None:
    """The report for people: a line for each finding, and what to do."""
    for one in report.findings:
        cure = "repaired" if one.repaired else f"--repair: {one.repair}" if one.repair else ""
        whose = f"{one.run_id}: " if one.run_id else ""
        note(f"{one.severity.value}: {whose}{one.message}{f' [{cure}]' if cure else ''}")
    seen = f"{counted(report.runs, 'run')} examined"
    asked = "" if report.provider_asked else ", the provider was not asked"
    note(f"{seen}{asked}: {'nothing is wrong' if report.healthy else 'something is wrong'}.")
