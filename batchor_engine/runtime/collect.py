"""An ended batch → a result segment.

Law: every paid line is kept. The files are read to the last line whatever the batch ended as; segment, rows and
counters change in one transaction; a kill before it repeats only the reading.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

from pydantic import BaseModel
from pydantic_core import to_json

from batchor_engine.core.backoff import CONTROL_PLANE_TRANSIENT, after_failure, after_progress, delay_sec
from batchor_engine.core.budget import after_refusal, after_success
from batchor_engine.core.identity import custom_id
from batchor_engine.core.outcomes import Answer, BatchFailure, FileAnomalies, Outcome, Rejection
from batchor_engine.core.parsing import parse_answer
from batchor_engine.core.records import Backoff, BatchRecord, ItemMove, ItemRow, RunRecord, Settlement
from batchor_engine.core.segment import SegmentRow
from batchor_engine.core.settle import (
    BATCH_COMPLETED,
    ENQUEUE_LIMIT,
    OUTPUT_LOST,
    QUOTA,
    Unanswered,
    Verdict,
    output_lost,
    settle,
    unanswered,
)
from batchor_engine.errors import LeaseLostError, ProviderError, ProviderErrorKind, StructuredOutputError
from batchor_engine.models import Form, JSONObject
from batchor_engine.ports.providers import OutcomeIndex
from batchor_engine.ports.state import iter_items
from batchor_engine.runtime.fetch import TROUBLE_TRIES, Collection, Fetched, fetched, raw_keys
from batchor_engine.runtime.garbage import seldom_collected
from batchor_engine.runtime.hold import held
from batchor_engine.runtime.host import Host, policies_of
from batchor_engine.runtime.refusals import as_remote, refusals
from batchor_engine.runtime.segments import unless_refused, write_segment
from batchor_engine.runtime.sidecar import with_metadata
from batchor_engine.runtime.transfers import Line
from batchor_engine.states import BatchState, ItemStatus

log = logging.getLogger("batchor_engine")

# Nothing can be read before the first file is here, and it is here later when others share its line.
_HEAD_START_SEC = 1.0
# Error class, message, retryable and the provider's error of a row that has none.
_NO_ERROR: tuple[str | None, str | None, bool, str | None] = (None, None, False, None)


@dataclass
class _Tally:
    """What one reading of the files came to."""

    completed: int = 0
    moves: list[ItemMove] = field(default_factory=list[ItemMove])
    failures: Counter[str] = field(default_factory=Counter[str])

    def add(self, row: ItemRow, verdict: Verdict) -> None:
        if verdict.to is ItemStatus.COMPLETED:
            self.completed += 1
            return
        self.moves.append(verdict.move(row))
        if verdict.final and verdict.failure is not None:
            self.failures[verdict.failure.error_class] += 1


def collect_ended(host: Host, run: RunRecord, *, stop: Callable[[], bool] = lambda: False) -> int:
    """Collect every batch of a run that has ended and is due; one that fails does not stop the others. How many.

    While one is read, the files of the next ones are on their way; what has begun is brought to its end. The first
    error that waiting does not cure is raised after the last one.
    """
    ended = host.store.batches(run_pk=run.pk, states={BatchState.ENDED})
    due = iter([one for one in ended if one.collect_after <= host.clock])
    done, failed = 0, list[Exception]()
    with ExitStack() as leases, Line[_Begun, Fetched](host.max_transfers) as line, seldom_collected():
        while True:
            while not line.is_full and not stop() and (begun := _begin(host, run, due)) is not None:
                leases.push(begun.stack)
                line.put(begun, begun.fetch, head_start_sec=_HEAD_START_SEC)
            if not line:
                break
            begun, transfer = line.take()
            try:
                with begun.stack:
                    done += _collect(begun.work, transfer.result)
            except LeaseLostError:
                log.warning("another worker took over batch=%s of run=%s", begun.work.batch.pk, run.run_id)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one batch, the others are paid, too
                failed.append(error)
    if failed:
        raise failed[0]
    return done


@dataclass(frozen=True)
class _Begun:
    """A collection whose lease is held until `stack` is closed, which also removes the files that fetch() made."""

    work: Collection
    stack: ExitStack

    def fetch(self) -> Fetched:
        return self.stack.enter_context(fetched(self.work))


def _begin(host: Host, run: RunRecord, due: Iterator[BatchRecord]) -> _Begun | None:
    """The next batch of this process's account that nobody else has collected or is collecting."""
    for batch in due:
        provider = host.provider_of(run)
        if batch.account != provider.account_label:
            # Its files are not there for this client, which says nothing about them.
            continue
        stack = ExitStack()
        with stack:
            lease = stack.enter_context(held(host.store, f"batch:{batch.pk}"))
            if lease is not None and _is_ended(host, batch):
                work = Collection(host, run, batch, lease, provider, policies_of(run), host.model_to_collect(run))
                return _Begun(work, stack.pop_all())
    return None


def _is_ended(host: Host, batch: BatchRecord) -> bool:
    return bool(host.store.batches(run_pk=batch.run_pk, intents={batch.intent_id}, states={BatchState.ENDED}))


def _collect(work: Collection, fetch: Callable[[], Fetched]) -> bool:
    try:
        collect(work, fetch)
    except ProviderError as error:
        _come_back_later(work, error)
        if error.kind is ProviderErrorKind.AUTH:
            raise
        return False
    return True


def _come_back_later(work: Collection, error: ProviderError) -> None:
    failures = work.batch.collect_failures + 1
    if error.kind is not ProviderErrorKind.NOT_FOUND:
        failures = min(failures, TROUBLE_TRIES)
    wait = max(delay_sec(failures, work.policies.retry), error.retry_after_sec or 0.0)
    log.warning("collection failed run=%s batch=%s: %s", work.run.run_id, work.batch.provider_batch_id, error.message)
    work.host.store.note_batch(work.batch, work.lease, collect_failures=failures, collect_after=work.host.clock + wait)
    work.host.emit(
        work.run,
        "batch_poll_retry",
        provider_batch_id=work.batch.provider_batch_id,
        error_class=CONTROL_PLANE_TRANSIENT,
        message=error.message,
    )


def collect(work: Collection, fetch: Callable[[], Fetched]) -> None:
    """Read what was downloaded, write the segment, and apply it all at once."""
    status, failure = work.batch.remote_status or "", None
    if status != BATCH_COMPLETED:
        failure = work.provider.explain_failure(as_remote(work.batch))
    found = fetch()
    work.host.reached("collect.downloaded")
    _note_files(work, found.work.batch)
    if found.gone is None:
        _apply(found, unanswered(status, failure, work.batch.items), failure)
    else:
        _apply(found, output_lost(found.gone), failure)


def _note_files(work: Collection, named: BatchRecord) -> None:
    """Keep the names of files that came after a batch's last word: who deletes remote files goes by what is stored."""
    names = ("output_file_id", "error_file_id")
    news: JSONObject = {
        name: got for name in names if (got := getattr(named, name)) and got != getattr(work.batch, name)
    }
    if news:
        work.host.store.note_batch(work.batch, work.lease, **news)


def _apply(found: Fetched, rest: Unanswered, failure: BatchFailure | None) -> None:
    work, output, error = found.work, found.output, found.error
    store, run, batch = work.host.store, work.run, work.batch
    sent = _sent(iter_items(store, run.pk, store.ranges(batch.pk), batch.pk))
    index = work.provider.open_outcomes(output_path=output, error_path=error, known_ids=sent.keys())
    tally = _Tally()
    try:
        segment = write_segment(work.artifacts, run.run_id, _segment_rows(work, sent, index, rest, tally))
    finally:
        index.close()
    work.host.reached("collect.segment_written")
    if not segment.totals.rows:
        work.artifacts.remove(segment.key)
    kept = work.policies.artifact.persist_raw_output_artifacts
    output_key, error_key = raw_keys(work)
    with unless_refused(work.artifacts, segment.key):
        store.settle(
            run.pk,
            work.lease,
            Settlement(
                batch=batch.pk,
                target=BatchState.LOST if found.gone and not (output or error) else BatchState.COLLECTED,
                segment=segment if segment.totals.rows else None,
                completed=tally.completed,
                moves=tuple(tally.moves),
                backoff=_run_backoff(work, failure, tally),
                output_key=output_key if kept and output else None,
                error_key=error_key if kept and error else None,
                pause_reason=QUOTA if failure and failure.error_class == QUOTA else None,
            ),
        )
    work.host.reached("collect.settled")
    _learn(work, failure)
    if failure and batch.input_file_id:
        # A loop of failing batches must not leave a remote file per turn behind.
        work.provider.delete_input_file(batch.input_file_id)
    _tell(work, tally, BatchFailure(OUTPUT_LOST, rest.message) if found.gone else failure, index.anomalies)


def _sent(rows: Iterable[ItemRow]) -> dict[str, ItemRow]:
    """A batch's rows in item order, by the custom id that each was sent under."""
    return {custom_id(row.item_id, row.attempts + 1): row for row in rows}


def _learn(work: Collection, failure: BatchFailure | None) -> None:
    """Remember what this batch's end says about the scope's token limit, on top of what others have learned."""
    store, tokens = work.host.store, work.batch.tokens
    landed = False
    while not landed:
        scope = now = store.scope(work.batch.scope)
        if failure is not None and failure.error_class == ENQUEUE_LIMIT:
            now = after_refusal(scope, failure.enqueued_token_limit, tokens, news=_is_news(work))
        elif failure is None:
            now = after_success(scope, tokens)
        landed = now == scope or store.learn(now, known=scope)


def _is_news(work: Collection) -> bool:
    """Whether no other refusal came in since this batch was made: batches that went out together say one thing."""
    others = refusals(work.host.store, work.provider, work.run.pk)
    made = work.batch.created_at
    return not any(one.batch.pk != work.batch.pk and (one.batch.ended_at or 0.0) >= made for one in others)


def _segment_rows(
    work: Collection,
    sent: Mapping[str, ItemRow],
    index: OutcomeIndex,
    rest: Unanswered,
    tally: _Tally,
) -> Generator[SegmentRow]:
    """Settle row by row, in item order; rows that no line answered are kept only when that ends them."""
    now, policy = work.host.clock, work.policies.retry
    parts = work.host.store.parts(work.run.pk, {row.part for row in sent.values() if row.part is not None})
    rows = with_metadata(work.artifacts, parts, sent.values())
    for line, (sent_as, (row, metadata_json)) in enumerate(zip(sent, rows, strict=True)):
        outcome = _read_as_model(index.outcome(sent_as), work.model)
        verdict = settle(outcome, row, line, policy, now, rest)
        tally.add(row, verdict)
        if verdict.final or verdict.ref is not None or verdict.text is not None:
            yield _segment_row(row, verdict, sent_as, metadata_json)


def _read_as_model(outcome: Outcome, model: Form) -> Outcome:
    """An answer that is not the model is a rejection, which keeps its text for diagnosis."""
    if model is None or not issubclass(model, BaseModel) or not isinstance(outcome, Answer):
        return outcome
    try:
        parse_answer(outcome.text, model)
    except StructuredOutputError as error:
        return Rejection(
            error.error_class,
            error.message,
            curable=True,
            raw_error=error.raw_error,
            text=outcome.text,
            usage=outcome.usage,
            ref=outcome.ref,
        )
    return outcome


def _segment_row(row: ItemRow, verdict: Verdict, sent_as: str, metadata_json: str | None) -> SegmentRow:
    failure, error = verdict.failure, _NO_ERROR
    if failure is not None:
        raw = None if failure.raw_error is None else to_json(failure.raw_error).decode()
        error = failure.error_class, failure.message, failure.retryable, raw
    # By position, in the order of SegmentRow: naming fifteen fields would cost as much as settling the row.
    return SegmentRow(
        row.item_index, row.item_id, row.group, verdict.final, verdict.to.value, verdict.attempts, sent_as,
        verdict.text, *error, metadata_json, verdict.usage, verdict.ref,
    )  # fmt: skip


def _run_backoff(work: Collection, failure: BatchFailure | None, tally: _Tally) -> Backoff | None:
    current = work.host.store.run(work.run.run_id)
    backoff = current.backoff if current else work.run.backoff
    if failure is not None and not tally.completed:
        return after_failure(backoff, work.host.clock, work.policies.retry, failure.error_class)
    return after_progress(backoff) if tally.completed else None


def _tell(work: Collection, tally: _Tally, failure: BatchFailure | None, anomalies: FileAnomalies) -> None:
    host, run, remote_id = work.host, work.run, work.batch.provider_batch_id
    if failure is None:
        host.emit(run, "batch_completed", provider_batch_id=remote_id)
    else:
        host.emit(
            run, "batch_terminal_failure", provider_batch_id=remote_id,
            error_class=failure.error_class, message=failure.message,
        )  # fmt: skip
    if tally.completed:
        host.emit(run, "items_completed", completed_item_count=tally.completed)
    if tally.failures:
        counts: JSONObject = dict(tally.failures)
        host.emit(run, "items_failed", failed_item_count=tally.failures.total(), error_class_counts=counts)
    if failure and failure.error_class == QUOTA:
        host.emit(
            run, "run_auto_paused", control_reason=QUOTA, error_class=QUOTA, phase="collect",
            provider_batch_id=remote_id,
        )  # fmt: skip
    if anomalies != FileAnomalies():
        log.warning(
            "odd lines run=%s batch=%s unreadable=%d unknown=%d duplicate=%d",
            run.run_id, remote_id, anomalies.unreadable, anomalies.unknown_ids, anomalies.duplicates,
        )  # fmt: skip
