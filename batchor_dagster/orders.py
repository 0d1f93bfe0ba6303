"""What each control job does to a run, and the one sentence it says afterwards.

Law: the sentence says what is so now, not what was wished; an order that changed nothing says that, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import dagster as dg
from pydantic import Field

from batchor_dagster.engine_runs import doubts, is_cancelled
from batchor_dagster.resources import job_name
from batchor_engine import BatchRunner, Run, RunControlState, RunInfo, counted


class RunChoice(dg.Config):
    """Which run is meant; with everything empty the only run that it can be, where that is safe."""

    asset: str = Field(default="", description="Result asset, as in support/triage; empty: any batch asset")
    partition: str = Field(default="", description="Partition key; its newest run is meant")
    run_id: str = Field(default="", description="Id of the engine run (metadata batchor/run_id), instead of the above")


class CancelChoice(RunChoice):
    drain: bool = Field(
        default=False, description="Let batches at the provider finish and keep their answers; send nothing more"
    )


class ExportChoice(RunChoice):
    destination_dir: str = Field(
        default="", description="Folder in which a folder of the run's id appears; empty: exports/ beside its files"
    )


class PruneChoice(RunChoice):
    include_raw_output_artifacts: bool = Field(
        default=False, description="Delete the provider's raw answers as well; needs an export made before"
    )


class ResolveChoice(RunChoice):
    provider_batch_id: str = Field(default="", description="The batch that you found at the provider: it is adopted")
    not_created: bool = Field(
        default=False, description="You are sure that the provider never had the batch: its rows are sent again"
    )
    intent_id: str = Field(default="", description="Which submission, when several are unresolved")


class DeleteChoice(RunChoice):
    force: bool = Field(default=False, description="Also while batches are alive: they are cancelled, answers given up")
    remote: bool = Field(default=False, description="Delete the run's files at the provider as well")


@dataclass(frozen=True)
class Call:
    """A run that an order is for, what was filled in, the resource that names the other jobs, and the name of the run's
    asset where no asset here is called so; another code location may have it.
    """

    runner: BatchRunner
    run: Run
    choice: Any
    resource_key: str
    unknown_asset: str | None = None

    def job(self, order: str) -> str:
        return job_name(order, self.resource_key)

    def then(self, by_sensor: str) -> str:
        """What the sensor does next; or who does it where no sensor knows the run's asset."""
        return by_sensor if self.unknown_asset is None else self.by_hand()

    def by_hand(self) -> str:
        over = self.run.is_finished
        who = (
            f"{self.job('export')} copies its answers" if over else f"each launch of {self.job('refresh')} does a round"
        )
        unknown = f"no batch asset of {self.resource_key!r} here is called {self.unknown_asset!r}"
        return f"{unknown}, so unless another code location has it no sensor goes on with the run: {who}"


def in_dagsters_words(reason: str, resource_key: str) -> str:
    """What the engine says of its own calls and options, as an operator at a launchpad has them."""
    words = {
        "start a new run_id for": "materialize its batch asset in a new run for",
        " (export_artifacts(), `batchor export-artifacts`)": f" (job {job_name('export', resource_key)})",
        " (--include-raw-output-artifacts)": "",
    }
    for one, other in words.items():
        reason = reason.replace(one, other)
    return reason


@dataclass(frozen=True)
class Order:
    """A control job: the name of its command, its config, whether it may guess, for which runs, and what it does.

    `act` returns the sentence.
    """

    name: str
    config: type[RunChoice]
    act: Callable[[Call], str]
    help: str
    fits: Callable[[RunInfo], bool]
    guesses: bool = True
    also_ended: bool = False


def _in_flight(info: RunInfo) -> bool:
    return not info.is_finished


def _has_failed_rows(info: RunInfo) -> bool:
    return info.summary.failed_items > 0 and not is_cancelled(info)


def _ended(info: RunInfo) -> bool:
    return info.is_finished


def _unresolved(info: RunInfo) -> bool:
    return doubts(info) > 0


def _cancel(call: Call) -> str:
    run = call.run
    choice: CancelChoice = call.choice
    if run.is_finished:
        raise ValueError(f"Run {run.run_id} has ended ({run.status}): there is nothing to cancel.")
    again = (
        "was cancelled already" if run.control_state is RunControlState.CANCEL_REQUESTED else "is cancelled for good"
    )
    summary = run.cancel(drain=choice.drain)
    if run.is_finished:
        return f"Run {run.run_id} {again} and over; {call.then('the sensor turns the partition red')}."
    if "advance" in call.runner.info(run.run_id).due:
        asks = call.then("the sensor's next run asks")
        return f"Run {run.run_id} {again}, but the provider could not be asked yet: {asks}."
    count = summary.active_batches
    do = "may finish at" if choice.drain else f"{'was' if count == 1 else 'were'} asked to stop at"
    return (
        f"Run {run.run_id} {again}: {counted(count, 'batch')} {do} the provider; "
        + call.then("after that, what was answered is fetched and the partition turns red")
        + "."
    )


def _pause(call: Call) -> str:
    run = call.run
    _refuse_ended(run, "pause")
    if run.control_state is RunControlState.PAUSED:
        return f"Run {run.run_id} was paused already ({run.control_reason})."
    summary = run.pause()
    there, stay = counted(summary.active_batches, "batch"), "stays" if summary.active_batches == 1 else "stay"
    return (
        f"Run {run.run_id} is paused: nothing is submitted or polled until {call.job('resume')}. {there} {stay} at the "
        "provider."
    )


def _resume(call: Call) -> str:
    run = call.run
    _refuse_ended(run, "resume")
    before = run.control_reason
    if run.control_state is RunControlState.RUNNING:
        return f"Run {run.run_id} was not paused."
    run.resume()
    if call.unknown_asset is not None:
        return f"Run {run.run_id}, paused ({before}), may go on; {call.by_hand()}."
    return f"Run {run.run_id}, paused ({before}), goes on with the sensor's next tick."


def _retry_failed(call: Call) -> str:
    run = call.run
    failed = run.summary().failed_items
    if not failed:
        return f"Run {run.run_id} has no failed rows: there is nothing to retry."
    again = failed - run.retry_failed().failed_items
    have = "has" if again == 1 else "have"
    then = call.then("the sensor submits and delivers")
    return f"{counted(again, 'failed row')} of run {run.run_id} {have} a new attempt; {then}."


def _refresh(call: Call) -> str:
    run = call.run
    if run.is_finished:
        return f"Run {run.run_id} has ended ({run.status}): there is nothing to refresh."
    if run.control_state is RunControlState.PAUSED:
        why = f"Run {run.run_id} is paused ({run.control_reason})"
        return f"{why}: {call.job('collect')} fetches what is paid, all the same."
    return f"Run {run.run_id} did one round: {_counts(call, run.refresh())}"


def _collect(call: Call) -> str:
    run = call.run
    return f"Run {run.run_id} has fetched what the provider had finished: {_counts(call, run.collect())}"


def _export(call: Call) -> str:
    run = call.run
    choice: ExportChoice = call.choice
    done = call.runner.export_artifacts(
        run.run_id, destination_dir=choice.destination_dir or f"{run.artifact_root.rstrip('/')}/exports"
    )
    return f"Run {run.run_id} was exported to {done.destination_dir}: results in {done.results_path}."


def _prune(call: Call) -> str:
    run = call.run
    choice: PruneChoice = call.choice
    done = call.runner.prune_artifacts(run.run_id, include_raw_output_artifacts=choice.include_raw_output_artifacts)
    count = len(done.removed_artifact_paths)
    are = "is" if count == 1 else "are"
    return f"{counted(count, 'file')} of run {run.run_id} {are} deleted; its results stay readable."


def _resolve(call: Call) -> str:
    run = call.run
    choice: ResolveChoice = call.choice
    intent = choice.intent_id or None
    if bool(choice.provider_batch_id) is choice.not_created:
        raise ValueError(
            f"Say what you found at the provider for run {run.run_id}: provider_batch_id, or else not_created: true."
        )
    if choice.provider_batch_id:
        run.resolve_indeterminate_submission_as_created(provider_batch_id=choice.provider_batch_id, intent_id=intent)
        return f"Run {run.run_id} has adopted batch {choice.provider_batch_id}; its answers will be collected."
    run.resolve_indeterminate_submission_as_not_created(intent_id=intent)
    return f"Run {run.run_id} sends the rows of the lost submission again."


def _delete(call: Call) -> str:
    run = call.run
    choice: DeleteChoice = call.choice
    done = call.runner.delete_run(run.run_id, force=choice.force, remote=choice.remote)
    left = f" These batches may still run at the provider: {', '.join(done.left_batches)}." if done.left_batches else ""
    return f"Run {run.run_id} is deleted with {counted(done.removed_files, 'file')}; its answers are gone.{left}"


def _refuse_ended(run: Run, what: str) -> None:
    if run.is_finished:
        raise ValueError(f"Run {run.run_id} has ended ({run.status}): there is nothing to {what}.")


def _counts(call: Call, summary: Any) -> str:
    open_rows = summary.total_items - summary.completed_items - summary.failed_items
    over = f"it is over, and {call.then('the sensor delivers it')}"
    over = over if call.run.is_finished else f"{counted(open_rows, 'row')} open"
    return f"{counted(summary.completed_items, 'row')} answered, {summary.failed_items} failed; {over}."


ORDERS = (
    Order("cancel", CancelChoice, _cancel, "Ends a run for good, at the provider too.", _in_flight, guesses=False),
    Order("pause", RunChoice, _pause, "Submits and polls nothing until batchor_resume.", _in_flight),
    Order("resume", RunChoice, _resume, "Goes on with a paused run.", _in_flight),
    Order("retry_failed", RunChoice, _retry_failed, "Sends the failed rows again.", _has_failed_rows, also_ended=True),
    Order("refresh", RunChoice, _refresh, "One round now: poll, collect, submit.", _in_flight),
    Order("collect", RunChoice, _collect, "Fetches what is paid, also while a run is paused.", _in_flight),
    Order("export", ExportChoice, _export, "Copies results, requests and raw answers to a folder.", _ended,
          also_ended=True),
    Order("prune", PruneChoice, _prune, "Deletes request files; results stay.", _ended, guesses=False, also_ended=True),
    Order("resolve", ResolveChoice, _resolve, "Settles a submission that is in doubt.", _unresolved, guesses=False),
    Order("delete", DeleteChoice, _delete, "Forgets a run, its files and its answers.", lambda _: True, guesses=False,
          also_ended=True),
)  # fmt: skip
