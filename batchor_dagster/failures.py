"""Why rows fail: what each error class means to a person, and which kind of failure it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice

import dagster as dg

from batchor_dagster.columns import cell, table
from batchor_dagster.resources import job_name
from batchor_engine import Run, TextItemResult

INVALID = frozenset(
    {
        "invalid_json",
        "structured_output_validation_failed",
        "empty_response_text",
        "invalid_embedding",
        "invalid_moderation",
    }
)
REFUSED = frozenset({"refusal", "content_filter"})
TRUNCATED = frozenset({"incomplete_answer"})
# No line of the provider's files answers the row.
_UNANSWERED = frozenset({"batch_output_missing_row", "batch_output_lost", "run_cancelled"})
_UNANSWERED_PREFIX = "batch_terminal_"

_MEANING = {
    "provider_item_error": "The provider rejected the request or failed on it; the message has its words.",
    "empty_response_text": "The answer had no text.",
    "invalid_json": "The answer was not JSON.",
    "structured_output_validation_failed": "The answer was JSON, but not what the model of the answers asks for.",
    "refusal": "The model declined to answer.",
    "content_filter": "A filter of the provider stopped the answer.",
    "incomplete_answer": "The answer was cut; raise the limit of output tokens.",
    "openai_insufficient_quota": "The account had no credit left; top it up and retry the failed rows.",
    "enqueue_token_limit": "Too many tokens were enqueued at the provider; set enqueue_limits and retry.",
    "batch_output_missing_row": "The provider ended the batch without a line for the row; retry the failed rows.",
    "batch_output_lost": "The provider's answer file was gone before it could be read; retry the failed rows.",
    "batch_validation_failed": "The provider did not accept the request file because of this row.",
    "run_cancelled": "The run was cancelled before the row had an answer.",
    "openai_request_exceeds_batch_token_limit": "The request has more tokens than one batch may have; shorten it.",
    "openai_request_exceeds_inflight_token_limit": "The request has more tokens than may be enqueued; shorten it.",
    "request_exceeds_file_limit": "The request is larger than a request file may be; shorten it.",
    "batch_error": "The provider refused the batch that the row was in; the message has its words.",
    "tool_calls": "The model asked for tools to be called, which a batch cannot do; take the tools out of the request.",
    "invalid_embedding": "The answer did not hold exactly one usable vector; retry the failed rows.",
    "invalid_moderation": "The answer did not hold exactly one verdict; retry the failed rows.",
}
# Why a run stands still until a person lets it go on: what happened, and what to do first.
_PAUSED = {
    "manual": "Somebody paused it",
    "openai_insufficient_quota": "The account has no credit left, or has reached its limit of spending. Top it up or "
    "raise the limit at the provider",
    "file_storage_full": "The account holds as many files as it may. Delete files at the provider, or finished runs "
    "here with job {delete} and remote: true",
    "enqueue_token_limit": "The account has had too many tokens enqueued, a hundred times in a row. Wait until other "
    "batches have ended, or set enqueue_limits in the job's provider config",
    "control_plane_transient": "The provider could not be reached, or failed, a hundred times in a row. Look at its "
    "status page, and at base_url and the network here",
    "batch_error": "The provider has refused every batch, a hundred times in a row. Look at the log of the last run of "
    "the sensor",
}
_EARLY_END = "The batch ended before the row was answered; retry the failed rows."

SHOWN_ROWS = 20
# Rows looked at for an example of each class; the counts are of all rows.
_SEARCHED_ROWS = 2_000


def is_unanswered(error_class: str) -> bool:
    """True when the provider never answered the row."""
    return error_class in _UNANSWERED or error_class.startswith(_UNANSWERED_PREFIX)


def unanswered(failures: Mapping[str, int]) -> int:
    """Failed rows that the provider never answered."""
    return sum(rows for name, rows in failures.items() if is_unanswered(name))


def meaning(error_class: str) -> str:
    """One sentence for a person; empty for a class that is not known here."""
    return _MEANING.get(error_class, _EARLY_END if error_class.startswith(_UNANSWERED_PREFIX) else "")


def paused_message(reason: str | None, resource_key: str) -> str:
    """Why a paused run stands still and how it goes on, in sentences; a reason not known here is shown as it is."""
    why = _PAUSED.get(reason or "manual", f"It was paused for {reason!r}")
    resume, collect, delete = (job_name(name, resource_key) for name in ("resume", "collect", "delete"))
    return f"{why.format(delete=delete)}; then launch job {resume}. Job {collect} fetches what is paid meanwhile."


def by_class(failures: Mapping[str, int]) -> list[tuple[str, int]]:
    """Error classes with their rows, the most frequent first."""
    return sorted(failures.items(), key=lambda one: (-one[1], one[0]))


def first_failures(run: Run) -> list[TextItemResult]:
    """The first failed rows, enough to show some and to find an example of most classes."""
    return list(islice(run.iter_failures(), _SEARCHED_ROWS))


def class_table(failures: Mapping[str, int], examples: Iterable[TextItemResult]) -> dg.TableMetadataValue | None:
    """A line for each class: rows, meaning, and one message; None without failures."""
    messages: dict[str, str] = {}
    for result in examples:
        if result.error is not None:
            messages.setdefault(result.error.error_class, result.error.message)
    total = sum(failures.values())
    return table(
        {
            "error_class": name,
            "rows": rows,
            "share": f"{rows / total:.1%}",
            "meaning": meaning(name),
            "example": cell(messages.get(name, "")),
        }
        for name, rows in by_class(failures)
    )


def row_table(failed: Iterable[TextItemResult]) -> dg.TableMetadataValue | None:
    """The first failed rows with their reasons; None without failures."""
    return table(
        {
            "item_id": result.item_id,
            "error_class": result.error.error_class,
            "message": cell(result.error.message),
            "attempts": result.attempt_count,
            "answer": cell(result.output_text or ""),
        }
        for result in islice(failed, SHOWN_ROWS)
        if result.error is not None
    )


def reasons(failures: Mapping[str, int]) -> str:
    """All classes in one line, most frequent first."""
    return ", ".join(f"{name} × {rows}" for name, rows in by_class(failures))
