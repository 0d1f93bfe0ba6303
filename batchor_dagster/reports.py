"""What is said about a run: at submission, on the way, and at the end."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import dagster as dg

from batchor_dagster.columns import PREVIEW_ROWS, preview
from batchor_dagster.engine_runs import asset_label, doubts
from batchor_dagster.facts import Facts
from batchor_dagster.failures import by_class, class_table, first_failures, paused_message, row_table
from batchor_dagster.metadata import (
    PARTITION_ROW_COUNT_KEY,
    ROW_COUNT_KEY,
    BatchorMetadataSet,
    usage_keys,
)
from batchor_dagster.plots import outcome_plot, progress_plot
from batchor_dagster.resources import RESOURCE, job_name, polling_sensor_name
from batchor_engine import BatchInfo, Cost, Run, RunControlState, RunInfo, counted

MAX_BATCHES_SHOWN = 50
LONGEST_ERROR = 300
_OPENAI_SERVER = "api.openai.com"
_OPENAI_BATCHES = "https://platform.openai.com/batches"


def at_provider(info: RunInfo) -> list[BatchInfo]:
    """The batches of a run that the provider has made, as far as it told us."""
    return [batch for batch in info.batches if batch.provider_batch_id]


def in_batches(info: RunInfo) -> str:
    """In how many batches the rows of a run are; behind a count of rows."""
    made = len(at_provider(info))
    return f" in {counted(made, 'batch')}" if made else ", and no batch is known at the provider yet"


def submission_metadata(
    run: Run,
    info: RunInfo,
    *,
    results: dg.AssetKey | None = None,
    resource_key: str = RESOURCE,
    reading: str = "",
) -> BatchorMetadataSet:
    """What went out so far, what it was estimated to need, and where the answers will be."""
    estimate = run.estimate()
    return BatchorMetadataSet(
        run_id=info.run_id,
        revision=info.revision,
        status=info.summary.status.value,
        paused=why_paused(info, resource_key) or None,
        reading=reading or None,
        rows=info.summary.total_items,
        request_files=estimate.request_files,
        estimated_input_tokens=estimate.input_tokens,
        estimated_cost_usd=_dollars(estimate.cost),
        estimated_cost=str(estimate.cost),
        batches=len(at_provider(info)),
        provider_batches=_batches(run, info.batches),
        provider_page=_page(run, info.batches),
        results=dg.MetadataValue.asset(results) if results else None,
    )


def progress_metadata(info: RunInfo, resource_key: str = RESOURCE, *, reading: str = "") -> BatchorMetadataSet:
    """Numbers that plot: rows with a final answer, and rows that the provider says it has answered.

    Until all rows were read there is no share of them; `reading` says who reads the rest.
    """
    summary = info.summary
    done = summary.completed_items + summary.failed_items
    at_provider = sum(batch.remote_completed + batch.remote_failed for batch in info.batches if not _is_read(batch))
    answered = min(summary.total_items, done + at_provider)
    return BatchorMetadataSet(
        run_id=info.run_id,
        revision=info.revision,
        status=summary.status.value,
        control=summary.control_state.value,
        control_reason=summary.control_reason,
        paused=why_paused(info, resource_key) or None,
        reading=reading or None,
        rows=summary.total_items,
        completed=summary.completed_items,
        failed=summary.failed_items,
        answered=answered,
        in_doubt=doubts(info) or None,
        progress_percent=_percent(answered, summary.total_items) if info.reading_finished else None,
        progress=progress_plot(summary.completed_items, summary.failed_items, answered, summary.total_items)
        if info.reading_finished
        else None,
    )


def _percent(answered: int, rows: int) -> float:
    return round(100 * answered / rows, 1) if rows else 0.0


def answered_of(answered: int, rows: int, *, all_read: bool) -> str:
    """How far one run or several are, where `rows` may be only those that were read so far."""
    return f"{answered} of {rows} rows answered" if all_read else f"{answered} of the {rows} rows read so far answered"


def result_metadata(run: Run, info: RunInfo, facts: Facts) -> BatchorMetadataSet:
    """The outcome of a finished run; reads its first rows and its first failed rows, whatever its size."""
    usage = facts.usage
    failed = first_failures(run) if facts.failed else []
    return BatchorMetadataSet(
        run_id=info.run_id,
        revision=info.revision,
        status=info.summary.status.value,
        rows=facts.rows,
        completed=facts.completed,
        failed=facts.failed,
        outcomes=outcome_plot(facts.completed, by_class(facts.failures)),
        attempts=facts.attempts,
        input_tokens=usage.input_tokens,
        cached_tokens=usage.cached_tokens,
        output_tokens=usage.output_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        cost_usd=_dollars(facts.cost),
        cost=str(facts.cost),
        hours_at_provider=_hours(info.batches),
        batches=len(at_provider(info)),
        provider_batches=_batches(run, info.batches),
        provider_page=_page(run, info.batches),
        failure_classes=class_table(facts.failures, failed),
        failed_rows=row_table(failed),
        preview=preview(itertools.islice(run.iter_results(), PREVIEW_ROWS)),
    )


def failure_metadata(run: Run, facts: Facts) -> BatchorMetadataSet:
    """What is said about the failed rows of a run beside the asset that holds them."""
    failed = first_failures(run) if facts.failed else []
    return BatchorMetadataSet(
        run_id=run.run_id,
        rows=facts.failed,
        failure_classes=class_table(facts.failures, failed),
        failed_rows=row_table(failed),
    )


def usage_metadata(run: Run, facts: Facts, shown: BatchorMetadataSet) -> dict[str, int]:
    """Usage in dagster-openai's keys, less what an earlier materialization of the same run has shown already.

    Dagster+ adds these keys up over materializations, and reading a run again costs nothing.
    """
    model = run.provider_config.scope_model()
    earlier = shown if shown.run_id == run.run_id else BatchorMetadataSet()
    calls = facts.attempts - (earlier.attempts or 0)
    if not model or calls <= 0:
        return {}
    return usage_keys(
        model,
        calls=calls,
        input_tokens=facts.usage.input_tokens - (earlier.input_tokens or 0),
        output_tokens=facts.usage.output_tokens - (earlier.output_tokens or 0),
    )


def row_counts(rows: int, partition: str) -> dict[str, int]:
    """Dagster's own row-count key, which its catalog shows."""
    return {PARTITION_ROW_COUNT_KEY if partition else ROW_COUNT_KEY: rows}


def in_doubt_message(count: int, resource_key: str) -> str:
    """What an operator must do before the rows of these submissions can go on; empty without any."""
    if not count:
        return ""
    what = "1 submission is" if count == 1 else f"{count} submissions are"
    resolve = job_name("resolve", resource_key)
    return f" {what} in doubt: look for the batch at the provider, then launch job {resolve} with what you found."


def why_paused(info: RunInfo, resource_key: str) -> str:
    """Why a run stands still, and how it goes on; empty where it does not."""
    if info.is_finished or info.summary.control_state is not RunControlState.PAUSED:
        return ""
    return paused_message(info.summary.control_reason, resource_key)


def why_waiting(info: RunInfo) -> str:
    """When a run that the provider held back tries again; empty where nothing holds it."""
    seconds = info.summary.backoff_remaining_sec
    if info.is_finished or not seconds:
        return ""
    return f" The provider refused it or could not be reached: {_next_attempt(seconds)}."


def who_waits(infos: Iterable[RunInfo]) -> str:
    """How many of these runs the provider held back, and when the first one tries again; paused ones do not."""
    held = [
        info.summary.backoff_remaining_sec
        for info in infos
        if why_waiting(info) and info.summary.control_state is not RunControlState.PAUSED
    ]
    if not held:
        return ""
    runs = f"{counted(len(held), 'run')} {'waits' if len(held) == 1 else 'wait'}"
    return f" {runs}, for the provider refused or could not be reached: {_next_attempt(min(held))}."


def unseen_message(errors: Sequence[str]) -> str:
    """What kept a tick from looking at some batches, shortly, however many; empty where nothing did."""
    different = list(dict.fromkeys(errors))
    if not different:
        return ""
    more = f" ({counted(len(different) - 1, 'other error')} in the tick's log)" if len(different) > 1 else ""
    return f"The provider did not answer for all batches: {shortened(different[0], LONGEST_ERROR).rstrip('.')}{more}. "


def shortened(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}…"


def _next_attempt(seconds: float) -> str:
    return f"the next attempt is due in {max(1, round(seconds))} s"


def pending_message(info: RunInfo, key: dg.AssetKey, resource_key: str, *, reading: str = "") -> str:
    """One line for a run that has not ended: how far it is, and who will materialize the asset.

    `reading` says what is to be done where only a part of the rows was read.
    """
    seen = progress_metadata(info)
    answered = answered_of(seen.answered or 0, seen.rows or 0, all_read=info.reading_finished)
    paused = why_paused(info, resource_key)
    sensor = polling_sensor_name(resource_key)
    return (
        f"{info.run_id} is not finished: {answered}{in_batches(info)}. "
        + (f"It is paused. {paused}" if paused else reading or _who_goes_on(key, sensor))
        + (f" {reading}" if paused and reading else "")
        + ("" if paused else why_waiting(info))
        + in_doubt_message(doubts(info), resource_key)
    )


def _who_goes_on(key: dg.AssetKey, sensor: str) -> str:
    return f"Sensor {sensor!r} materializes {asset_label(key)} when the provider is done."


def _is_read(batch: BatchInfo) -> bool:
    return batch.state == "collected"


def _hours(batches: list[BatchInfo]) -> float | None:
    begun = [batch.submitted_at for batch in batches if batch.submitted_at]
    ended = [batch.ended_at for batch in batches if batch.ended_at]
    return round((max(ended) - min(begun)).total_seconds() / 3600, 4) if begun and ended else None


def _dollars(cost: Cost) -> float | None:
    return None if cost.amount_usd is None else float(cost.amount_usd)


def _batches(run: Run, batches: list[BatchInfo]) -> dg.MarkdownMetadataValue | None:
    if not batches:
        return None
    linked = run.server == _OPENAI_SERVER
    lines = ["| batch | state | rows |", "|---|---|---|"]
    for batch in batches[:MAX_BATCHES_SHOWN]:
        name = batch.provider_batch_id or "not created yet"
        shown = f"[{name}]({_OPENAI_BATCHES}/{name})" if linked and batch.provider_batch_id else name
        lines.append(f"| {shown} | {batch.state} | {batch.items} |")
    if len(batches) > MAX_BATCHES_SHOWN:
        lines.append(f"| … {len(batches) - MAX_BATCHES_SHOWN} more | | |")
    return dg.MetadataValue.md("\n".join(lines))


def _page(run: Run, batches: list[BatchInfo]) -> dg.UrlMetadataValue | None:
    """The provider's page of a single batch, or the list of all; only OpenAI's own service is known to have them."""
    ids = [batch.provider_batch_id for batch in batches if batch.provider_batch_id]
    if not ids or run.server != _OPENAI_SERVER:
        return None
    return dg.MetadataValue.url(f"{_OPENAI_BATCHES}/{ids[0]}" if len(ids) == 1 else _OPENAI_BATCHES)
