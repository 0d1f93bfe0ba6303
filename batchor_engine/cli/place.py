"""Which store a command works on, and what an error there means to somebody with a command line.

Law: a way out that is shown can be pasted: it names the command, the run and the store that was given.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import typer
from dotenv import load_dotenv

from batchor_engine.config import OpenAIProviderConfig, ProviderConfig
from batchor_engine.errors import (
    BatchorError,
    ProviderError,
    ProviderErrorKind,
    RunIngestionSourceRequiredError,
    RunNotFinishedError,
    RunPausedError,
    RunSubmissionIndeterminateError,
)
from batchor_engine.events import Observer
from batchor_engine.runtime.advance import read_run
from batchor_engine.runtime.runner import BatchRunner
from batchor_engine.storage.engine import without_secrets
from batchor_engine.storage.sqlite import SQLiteStorage

# Errors whose Python way out is no use to somebody with a shell.
_Known: TypeAlias = (
    RunPausedError | RunNotFinishedError | RunIngestionSourceRequiredError | RunSubmissionIndeterminateError
)
_KNOWN = (RunPausedError, RunNotFinishedError, RunIngestionSourceRequiredError, RunSubmissionIndeterminateError)


class CommandError(BatchorError, RuntimeError):
    """A command could not do what it was asked."""


@dataclass(frozen=True)
class Place:
    """A store and the root of its files, as given on the command line."""

    db_path: Path | None
    store_url: str | None
    artifacts_url: str | None

    def __post_init__(self) -> None:
        if self.db_path is not None and self.store_url is not None:
            raise typer.BadParameter("give one of them, not both", param_hint="'--db-path' and '--store-url'")

    def words(self) -> list[str]:
        """The options again, as they would be typed, without a password."""
        url = None if self.store_url is None else without_secrets(self.store_url)
        given = {"--db-path": self.db_path, "--store-url": url, "--artifacts-url": self.artifacts_url}
        return [word for option, value in given.items() if value is not None for word in (option, str(value))]

    def line(self, command: str, run_id: str, *more: str) -> str:
        """A command for one run of this store, quoted for a shell and for a sentence."""
        return f"`{shlex.join(['batchor', *command.split(), '--run-id', run_id, *more, *self.words()])}`"

    @contextmanager
    def runner(self, *, observer: Observer | None = None) -> Generator[BatchRunner]:
        """A runner on this store; errors leave it with a way out for the command line."""
        load_dotenv(Path.cwd() / ".env", override=False)
        storage = SQLiteStorage(path=self.db_path) if self.db_path is not None else self.store_url
        runner = BatchRunner(storage=storage, artifacts_url=self.artifacts_url, observer=observer)
        try:
            yield runner
        except _KNOWN as error:
            raise CommandError(self._way_out(error)) from error
        finally:
            runner.close()

    def _way_out(self, error: _Known) -> str:
        run_id = error.run_id
        if isinstance(error, RunSubmissionIndeterminateError):
            return (
                f"Run {run_id!r}: nobody can tell whether batch intent {error.intent_id} was created. Look for it at "
                f"the provider, then {self.line('resolve', run_id, '--intent', error.intent_id)} with --created BATCH "
                "or --not-created; everything else of the run goes on."
            )
        if isinstance(error, RunPausedError):
            return (
                f"Run {run_id!r} is paused ({error.control_reason or 'manual'}): {self.line('resume', run_id)} lets it "
                f"go on, {self.line('collect', run_id)} brings in what is already paid."
            )
        if isinstance(error, RunNotFinishedError):
            return f"Run {run_id!r} has not finished: {self.line('wait', run_id)} first."
        return (
            f"Run {run_id!r} has not read all its input: repeat its `batchor start` with --run-id {run_id} to go on, "
            f"or give up the rest by {self.line('cancel', run_id)}."
        )


def hint(error: Exception) -> str:
    """What else to look at, for an error that only the provider's words describe."""
    if isinstance(error, ProviderError) and error.kind is ProviderErrorKind.AUTH:
        return " Check OPENAI_API_KEY, and that it belongs to the server, organization and project of the run."
    return ""


def require_key(config: ProviderConfig) -> None:
    """CommandError where no call could be made; better now than after a million rows."""
    from batchor_engine.providers.credentials import headers_of, resolve_openai_api_key

    if not isinstance(config, OpenAIProviderConfig):
        return
    try:
        resolve_openai_api_key(config)
        headers_of(config)
    except ValueError as error:
        why = (
            str(error) if config.api_key_env or config.header_env else "There is no API key: OPENAI_API_KEY is not set"
        )
        raise CommandError(f"{why}. Set it in the environment, or in a .env file in the working directory.") from None


def require_key_of(runner: BatchRunner, run_id: str) -> None:
    """require_key() for a stored run that still has something to ask the provider."""
    run = read_run(runner.host, run_id)
    if not run.is_finished:
        require_key(runner.host.config_of(run))


def make_importable() -> None:
    """Let modules of the working directory be imported, after everything that is installed."""
    # Last, not first: a random.py that happens to lie here must not replace Python's own.
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.append(folder)
