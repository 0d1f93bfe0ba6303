"""Commands that only read: status, list, results.

Law: reading needs no key, no model class and no input file, writes nothing to the store, and holds a few rows at a
time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from batchor_engine.artifacts.atomic import whole_file
from batchor_engine.artifacts.destination import destination_file
from batchor_engine.cli.options import ArtifactsUrl, DbPath, RunId, StoreUrl, pairs
from batchor_engine.cli.place import Place
from batchor_engine.cli.streams import emit, emit_summary, note
from batchor_engine.core.summary import summary_payload
from batchor_engine.errors import RunNotFinishedError
from batchor_engine.models import JSONObject
from batchor_engine.runtime.advance import read_run
from batchor_engine.runtime.export import encoded, result_line
from batchor_engine.runtime.host import policies_of
from batchor_engine.runtime.readback import iter_results
from batchor_engine.runtime.runner import BatchRunner


def status(
    run_id: RunId, db_path: DbPath = None, store_url: StoreUrl = None, artifacts_url: ArtifactsUrl = None
) -> None:
    """Print how far a run is, as stored."""
    with Place(db_path, store_url, artifacts_url).runner() as runner:
        emit_summary(runner.get_run(run_id).summary())


def list_runs(
    label: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Only runs with it; repeatable.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=0, help="At most so many.")] = None,
    db_path: DbPath = None,
    store_url: StoreUrl = None,
    artifacts_url: ArtifactsUrl = None,
) -> None:
    """Print a line for each run, newest first."""
    labels = pairs(label or [], "--label")
    if db_path is not None and not db_path.expanduser().exists():
        note(f"There is no store {db_path.expanduser().absolute()}: check --db-path; `batchor start` would create it.")
    with Place(db_path, store_url, artifacts_url).runner() as runner:
        for info in runner.find_runs(labels or None, limit=limit):
            extra: JSONObject = {"created_at": info.created_at.isoformat(), "labels": dict(info.labels)}
            emit({**summary_payload(info.summary), **extra})


def results(
    run_id: RunId,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write them to this file, whole or not at all; - is stdout.")
    ] = None,
    db_path: DbPath = None,
    store_url: StoreUrl = None,
    artifacts_url: ArtifactsUrl = None,
) -> None:
    """Print the results of a finished run.

    One JSON line for each row, in the order of the input.
    """
    with Place(db_path, store_url, artifacts_url).runner() as runner:
        summary = runner.get_run(run_id).summary()
        lines = _result_lines(runner, run_id)
        if output is None or str(output) == "-":
            for line in lines:
                emit(line)
            return
        count = _write_whole(output.expanduser().absolute(), lines)
    written: JSONObject = {"result_count": count, "output_path": str(output.expanduser().absolute())}
    emit({"run_id": run_id, "status": summary.status.value, **written})


def _result_lines(runner: BatchRunner, run_id: str) -> Iterator[JSONObject]:
    """Result lines in item order; a structured run is read by its text, so that nobody needs its class."""
    run = read_run(runner.host, run_id)
    if not run.is_finished:
        raise RunNotFinishedError(run_id)
    policies = policies_of(run)
    for result in iter_results(runner.host, run, policies.plain_form, raw=True):
        yield result_line(result, structured=policies.structured)


def _write_whole(target: Path, lines: Iterator[JSONObject]) -> int:
    """Write lines to a file; whatever happens, the target is the old or the new one. How many."""
    place = destination_file(target, otherwise="leave out --output for standard output")
    count = 0
    # Answers are their owner's alone, here as in the store.
    with whole_file(place, root=place.parent) as aside, aside.open("wb") as stream:
        for count, line in enumerate(lines, 1):  # noqa: B007 - the last number is the count
            stream.write(encoded(line))
    return count
