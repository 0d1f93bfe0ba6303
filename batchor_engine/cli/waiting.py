"""The command that goes on with a run until it is over.

Law: whatever ends the waiting (time, Ctrl-C, an error), the run is kept and the line says how to go on.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated

import typer

from batchor_engine.cli.options import ArtifactsUrl, DbPath, RunId, StoreUrl
from batchor_engine.cli.place import CommandError, Place, hint, make_importable, require_key_of
from batchor_engine.cli.streams import InterruptedRun, emit_summary, note, one_line
from batchor_engine.cli.watch import Watch
from batchor_engine.errors import ProviderError, StoreError
from batchor_engine.states import RunControlState


def wait(
    run_id: RunId,
    timeout: Annotated[float | None, typer.Option(min=0, metavar="SECONDS", help="Give up waiting after it.")] = None,
    poll_interval: Annotated[
        float | None, typer.Option(min=0.01, metavar="SECONDS", help="Between looks at the provider.")
    ] = None,
    db_path: DbPath = None,
    store_url: StoreUrl = None,
    artifacts_url: ArtifactsUrl = None,
) -> None:
    """Go on with a run until it is over."""
    make_importable()
    place = Place(db_path, store_url, artifacts_url)
    watch = Watch()
    with place.runner(observer=watch) as runner, resumable(place, run_id):
        run = runner.get_run(run_id)
        if run.control_state is not RunControlState.PAUSED:
            require_key_of(runner, run_id)
        with watch.over(runner, run_id):
            try:
                run.wait(timeout=timeout, poll_interval=poll_interval)
            except TimeoutError:
                raise CommandError(
                    f"timeout: run {run_id!r} is not finished after {timeout:g} s. It goes on with "
                    f"{place.line('wait', run_id)}."
                ) from None
        emit_summary(run.summary())
    note(f"{place.line('results', run_id)} prints the answers.")


@contextmanager
def resumable(place: Place, run_id: str) -> Generator[None]:
    """Ctrl-C in here ends the command, not the run."""
    try:
        yield
    except KeyboardInterrupt:
        raise InterruptedRun(f"the run is kept and goes on with {place.line('wait', run_id)}.") from None
    except (StoreError, ProviderError, OSError) as error:
        said = f"{one_line(str(error)).rstrip('.')}.{hint(error)}"
        raise CommandError(
            f"{said} The run is kept and goes on with {place.line('wait', run_id)} once the cause is gone."
        ) from error
