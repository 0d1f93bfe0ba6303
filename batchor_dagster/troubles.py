"""A runner for one step of Dagster, and what a person is told where it meets trouble."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager

import dagster as dg

from batchor_dagster.reports import shortened
from batchor_dagster.resources import BatchorResource
from batchor_engine import BatchorError, BatchRunner, RunEvent, Troubles

# A run's id takes up to 200 of it, and the rest is the provider's words.
_LONGEST = 1000


@contextmanager
def runner_of(batchor: BatchorResource, log: logging.Logger) -> Generator[BatchRunner]:
    """What the provider refuses is in the step's log: elsewhere only its class is kept.

    An error of the engine, or a bad value, becomes a failure whose description is the error's own sentence.
    """
    try:
        with closing(batchor.runner()) as runner:
            runner.host.observer = _telling(log, runner.host.observer)
            yield runner
    except (BatchorError, ValueError) as error:
        raise dg.Failure(description=str(error), allow_retries=not isinstance(error, ValueError)) from error


def _telling(log: logging.Logger, earlier: Callable[[RunEvent], None] | None) -> Callable[[RunEvent], None]:
    """An observer for a log, and for the one that the runner had."""
    troubles = Troubles(lambda said: log.warning(shortened(said, _LONGEST)))

    def observe(event: RunEvent) -> None:
        try:
            troubles(event)
        finally:
            if earlier is not None:
                earlier(event)

    return observe
