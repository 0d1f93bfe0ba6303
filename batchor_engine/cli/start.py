"""The command that begins a run, or goes on with a stored one.

Law: nothing is stored before every option, file, column, model and key is known to be there; what stops a run later
leaves a line that says what is kept and how to go on.
"""

from __future__ import annotations

import shlex
import uuid
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from batchor_engine.cli.inputs import open_inputs, prompt_of
from batchor_engine.cli.job import endpoint_of, model_class, options_of, usage
from batchor_engine.cli.options import ArtifactsUrl, DbPath, StoreUrl, pairs
from batchor_engine.cli.place import CommandError, Place, hint, require_key
from batchor_engine.cli.streams import InterruptedRun, emit, emit_summary, note, one_line
from batchor_engine.cli.watch import Watch
from batchor_engine.config import OpenAIEnqueueLimitConfig, OpenAIProviderConfig
from batchor_engine.core.identity import check_run_id, new_run_id
from batchor_engine.core.text import counted
from batchor_engine.errors import (
    DuplicateItemError,
    PromptBuildError,
    RunMismatchError,
    SourceRowError,
    UnknownRunError,
)
from batchor_engine.job import BatchJob
from batchor_engine.models import ArtifactPolicy, ChunkPolicy, RetryPolicy, RunSummary
from batchor_engine.runtime.advance import read_run
from batchor_engine.runtime.run import Run
from batchor_engine.runtime.runner import BatchRunner
from batchor_engine.states import RUN_TERMINAL

_CHUNK, _RETRY, _LIMITS = ChunkPolicy(), RetryPolicy(), OpenAIEnqueueLimitConfig()
_PLAIN = OpenAIProviderConfig("any")
Text = str | None
# The same options with nothing done: the name under which this command only plans.
PLAN = "plan"


def start(
    context: typer.Context,
    input_: Annotated[
        list[Path],
        typer.Option("--input", metavar="FILE", help=".csv, .jsonl or .parquet; repeatable, order kept."),
    ],
    id_field: Annotated[str, typer.Option(metavar="COLUMN", help="Column of the rows' ids.")],
    model: Annotated[str, typer.Option(help="Model that answers.")],
    prompt_field: Annotated[Text, typer.Option(metavar="COLUMN", help="Column that is the prompt.")] = None,
    prompt_template: Annotated[Text, typer.Option(metavar="TEXT", help="Prompt with {column} placeholders.")] = None,
    system_prompt: Annotated[Text, typer.Option(metavar="TEXT", help="The same instructions for every row.")] = None,
    run_id: Annotated[Text, typer.Option(metavar="ID", help="Name of the run; an old one goes on.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Kept with the run; repeatable.")
    ] = None,
    encoding: Annotated[str, typer.Option(help="Encoding of .csv and .jsonl files.")] = "utf-8",
    structured_output_class: Annotated[
        Text, typer.Option(metavar="MODULE:CLASS", help="Pydantic model of the answer.")
    ] = None,
    schema_name: Annotated[Text, typer.Option(metavar="NAME", help="Its name for the provider.")] = None,
    endpoint: Annotated[str, typer.Option(help="Endpoint of every request.")] = _PLAIN.endpoint.value,
    completion_window: Annotated[str, typer.Option(help="The provider's deadline.")] = _PLAIN.completion_window,
    request_timeout_sec: Annotated[int, typer.Option(help="For one API call.")] = _PLAIN.request_timeout_sec,
    poll_interval_sec: Annotated[float, typer.Option(help="Between two looks of `wait`.")] = _PLAIN.poll_interval_sec,
    reasoning_effort: Annotated[Text, typer.Option(metavar="LEVEL", help="none, minimal, low, …")] = None,
    request_option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Goes into every request's body; repeatable.")
    ] = None,
    base_url: Annotated[
        Text, typer.Option(metavar="URL", help="Server. [default: OPENAI_BASE_URL, else OpenAI]")
    ] = None,
    api_key_env: Annotated[
        Text, typer.Option(metavar="VARIABLE", help="Environment variable with the key. [default: OPENAI_API_KEY]")
    ] = None,
    header_env: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VARIABLE", help="HTTP header from the environment; repeatable.")
    ] = None,
    line_url: Annotated[Text, typer.Option(metavar="PATH", help="Url in request lines, if not the endpoint.")] = None,
    batch_endpoint: Annotated[
        Text, typer.Option(metavar="PATH", help="Endpoint of the batch, if the server spells it otherwise.")
    ] = None,
    input_expires_after_sec: Annotated[
        int | None, typer.Option(help="The provider deletes uploaded files after so long.")
    ] = None,
    output_expires_after_sec: Annotated[
        int | None, typer.Option(help="The provider deletes answers after so long.")
    ] = None,
    organization: Annotated[Text, typer.Option(help="Organization that pays.")] = None,
    project: Annotated[Text, typer.Option(help="Project that pays.")] = None,
    batch_metadata: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Attached to every remote batch; repeatable.")
    ] = None,
    max_attempts: Annotated[int, typer.Option(help="Tries of one row in all.")] = _RETRY.max_attempts,
    base_backoff_sec: Annotated[float, typer.Option(help="Wait after a first failure.")] = _RETRY.base_backoff_sec,
    max_backoff_sec: Annotated[float, typer.Option(help="Longest wait after a failure.")] = _RETRY.max_backoff_sec,
    max_requests: Annotated[int, typer.Option(help="Requests in one batch.")] = _CHUNK.max_requests,
    max_file_bytes: Annotated[int, typer.Option(help="Bytes of one request file.")] = _CHUNK.max_file_bytes,
    chars_per_token: Annotated[int, typer.Option(help="For estimates without a tokenizer.")] = _CHUNK.chars_per_token,
    enqueued_token_limit: Annotated[int, typer.Option(help="Tokens at the provider at once; 0 is any number.")] = 0,
    target_ratio: Annotated[float, typer.Option(help="Part of that limit to use.")] = _LIMITS.target_ratio,
    headroom: Annotated[int, typer.Option(help="Tokens of that limit to leave free.")] = 0,
    max_batch_enqueued_tokens: Annotated[int, typer.Option(help="Tokens of one batch; 0 is any number.")] = 0,
    quota_scope: Annotated[str, typer.Option(metavar="NAME", help="Runs of one name share the limit.")] = "",
    keep_raw_output: Annotated[bool, typer.Option(help="Keep the provider's files after collection.")] = True,
    db_path: DbPath = None,
    store_url: StoreUrl = None,
    artifacts_url: ArtifactsUrl = None,
) -> None:
    """Read rows and submit what can go.

    Returns without waiting for answers; `wait` does that. The same command with the same --run-id goes on where it
    stopped, without asking twice for what is paid.
    """
    place = Place(db_path, store_url, artifacts_url)
    prompt = prompt_of(prompt_field, prompt_template, system_prompt)
    labels = pairs(label or [], "--label")
    with usage():
        named = check_run_id(run_id) if run_id is not None else new_run_id(datetime.now(UTC), uuid.uuid4().hex)
        config = OpenAIProviderConfig(
            model=model,
            endpoint=endpoint_of(endpoint),
            completion_window=completion_window,
            request_timeout_sec=request_timeout_sec,
            poll_interval_sec=poll_interval_sec,
            reasoning_effort=reasoning_effort,
            enqueue_limits=OpenAIEnqueueLimitConfig(
                enqueued_token_limit, target_ratio, headroom, max_batch_enqueued_tokens, quota_scope
            ),
            base_url=base_url,
            api_key_env=api_key_env,
            header_env=pairs(header_env or [], "--header-env"),
            line_url=line_url,
            batch_endpoint=batch_endpoint,
            input_expires_after_sec=input_expires_after_sec,
            output_expires_after_sec=output_expires_after_sec,
            organization=organization,
            project=project,
            request_options=options_of(pairs(request_option or [], "--request-option")),
        )
        policies: dict[str, Any] = {
            "chunk_policy": ChunkPolicy(max_requests, max_file_bytes, chars_per_token),
            "retry_policy": RetryPolicy(max_attempts, base_backoff_sec, max_backoff_sec),
            "artifact_policy": ArtifactPolicy(persist_raw_output_artifacts=keep_raw_output),
            "batch_metadata": pairs(batch_metadata or [], "--batch-metadata"),
        }
    answer = None if structured_output_class is None else model_class(structured_output_class)
    items = open_inputs(input_, id_field, prompt, encoding)
    job = BatchJob(items, prompt, config, structured_output=answer, schema_name=schema_name, **policies)
    if context.info_name == PLAN:
        _plan(place, job)
        return
    again = Again(context.obj or [], named)
    emit_summary(_start(place, job, config, again, labels))


def _plan(place: Place, job: BatchJob[Any, Any]) -> None:
    """Print the plan of a job; exit code 1 where it could not start."""
    with place.runner() as runner:
        plan = runner.plan(job)
    emit(plan.to_payload())
    files = counted(plan.request_files, "request file")
    note(f"{counted(plan.rows, 'row')} in {files}, {plan.input_tokens:,} tokens to send.")
    note(plan.cost_words)
    for text in (*plan.blockers, *plan.warnings):
        note(text)
    if not plan.can_start:
        raise typer.Exit(1)


@dataclass(frozen=True)
class Again:
    """This very command, to be given once more for the same run."""

    words: Sequence[str]
    run_id: str

    def __str__(self) -> str:
        named = any(word == "--run-id" or word.startswith("--run-id=") for word in self.words)
        return f"`{shlex.join(['batchor', *self.words, *([] if named else ['--run-id', self.run_id])])}`"


def _start(
    place: Place, job: BatchJob[Any, Any], config: OpenAIProviderConfig, again: Again, labels: dict[str, str]
) -> RunSummary:
    watch, run_id = Watch(), again.run_id
    with place.runner(observer=watch) as runner:
        require_key(config)
        _tell_of_old_rows(runner, run_id)
        with _explained(runner, place, again):
            with watch.over(runner, run_id):
                run = _started(runner, job, run_id, labels)
            summary = run.summary()
    if not summary.total_items:
        note(f"{run_id}: the input has no rows")
    elif summary.status not in RUN_TERMINAL:
        note(f"{place.line('wait', run_id)} waits for the answers.")
    return summary


def _started(runner: BatchRunner, job: BatchJob[Any, Any], run_id: str, labels: dict[str, str]) -> Run:
    """The run; what the engine warns of is a note, without the place in its code."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        run = runner.start(job, run_id=run_id, labels=labels)
    for one in said:
        note(str(one.message))
    return run


def _tell_of_old_rows(runner: BatchRunner, run_id: str) -> None:
    """A run whose rows are all stored does not look at files or templates again, which somebody may expect."""
    try:
        run = read_run(runner.host, run_id)
    except UnknownRunError:
        return
    if run.ingest.finished:
        note(f"{run_id}: its {run.total_items} stored rows go on; other rows or prompts need another --run-id.")


@contextmanager
def _explained(runner: BatchRunner, place: Place, again: Again) -> Generator[None]:
    """What ends a start in the middle also says what is kept, and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise InterruptedRun(f"{_kept(runner, again.run_id) or 'no row is stored'}. {again} goes on.") from None
    except Exception as error:
        kept = None if isinstance(error, RunMismatchError) else _kept(runner, again.run_id)
        if kept is None:
            raise
        said = f"{one_line(str(error)).rstrip('.')}.{hint(error)}"
        raise CommandError(f"{said} {kept}: {_way_on(error, place, again)}") from error


def _way_on(error: Exception, place: Place, again: Again) -> str:
    end = place.line("cancel --drain", again.run_id)
    if isinstance(error, DuplicateItemError | SourceRowError | PromptBuildError):
        # A corrected file is another file, so its rows are another run's.
        return f"correct the input and start it under a new --run-id; {end} ends this run and keeps what is answered."
    return f"{again} goes on once the cause is gone, {end} gives up the rest."


def _kept(runner: BatchRunner, run_id: str) -> str | None:
    try:
        total = runner.get_run(run_id).summary().total_items
    except UnknownRunError:
        return None
    return f"{total} {'row is' if total == 1 else 'rows are'} stored in run {run_id!r}" if total else None
