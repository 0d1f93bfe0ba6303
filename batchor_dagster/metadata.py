"""Every metadata key and run tag that this package writes, under the namespace `batchor`.

Dagster's own NamespacedMetadataSet would fit, but no supported version exports it (1.12.0 and 1.13.27 looked at), and
a private import would break with any release. BatchorMetadataSet has its manner: fields, a namespace, `**splat`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import dagster as dg

NAMESPACE = "batchor"

# Run tags: who asked for a run, for which engine run, at which revision of it, and why.
SENSOR_TAG = f"{NAMESPACE}/sensor"
RUN_ID_TAG = f"{NAMESPACE}/run_id"
REVISION_TAG = f"{NAMESPACE}/revision"
REASON_TAG = f"{NAMESPACE}/reason"
# On a run of a submission sensor: what it and all later attempts have in common.
GENERATION_TAG = f"{NAMESPACE}/generation"
# On the same: the engine run that it saw as the latest of the partition; what is later was submitted by somebody else.
LATEST_RUN_TAG = f"{NAMESPACE}/latest_run"
# On a run that turned a partition red on purpose: the outcome that it showed.
OUTCOME_TAG = f"{NAMESPACE}/outcome"

# Definition metadata: by the first two a sensor recognises a result asset, by the third the IO manager an asset of
# failed rows.
RESULTS_OF_KEY = f"{NAMESPACE}/results_of"
RESOURCE_KEY = f"{NAMESPACE}/resource"
FAILURES_OF_KEY = f"{NAMESPACE}/failures_of"
# On a result asset: the asset of its failed rows, where it has one.
FAILURES_KEY = f"{NAMESPACE}/failures_asset"

# Keys that Dagster itself knows and shows.
COLUMN_SCHEMA_KEY = "dagster/column_schema"
ROW_COUNT_KEY = "dagster/row_count"
PARTITION_ROW_COUNT_KEY = "dagster/partition_row_count"
URI_KEY = "dagster/uri"

BATCH, PROGRESS, RESULTS, FAILURES = "<name>_batch", "progress", "<name>", "<name>_failures"
_ALL = (BATCH, PROGRESS, RESULTS)


class Says:
    """What a key means and where it is shown: its line of docs/metadata.md."""

    def __init__(self, meaning: str, *shown_on: str) -> None:
        self.meaning, self.shown_on = meaning, shown_on


@dataclass(frozen=True, kw_only=True)
class BatchorMetadataSet:
    """Metadata of one engine run; splat it into a `metadata=` mapping, fields that are None stay out.

    Counts are rows unless the name says otherwise.
    """

    # Pages show the keys in this order: what a person looks for, then the bookkeeping, then what is large.
    run_id: Annotated[
        str | None, Says("Id of the engine's run; what the `batchor` command takes.", *_ALL, FAILURES)
    ] = None
    status: Annotated[str | None, Says("running, completed or completed_with_failures.", *_ALL)] = None
    control: Annotated[str | None, Says("running, paused or cancel_requested.", PROGRESS)] = None
    control_reason: Annotated[str | None, Says("Why it is paused or cancelled, as one word.", PROGRESS)] = None
    paused: Annotated[
        str | None, Says("Why it is paused and how it goes on, in sentences; only while it is.", BATCH, PROGRESS)
    ] = None
    reading: Annotated[
        str | None, Says("Who reads the rest, where only a part of the rows was read; only then.", BATCH, PROGRESS)
    ] = None
    action: Annotated[str | None, Says("What a control job did, in one sentence.", PROGRESS)] = None
    in_doubt: Annotated[
        int | None,
        Says("Submissions that nobody can prove; look at the provider, then launch batchor_resolve.", PROGRESS),
    ] = None
    progress: Annotated[dg.MarkdownMetadataValue | None, Says("The same as a picture.", PROGRESS)] = None
    outcomes: Annotated[
        dg.MarkdownMetadataValue | None, Says("Completed rows and failed ones by class, as a picture.", RESULTS)
    ] = None
    rows: Annotated[
        int | None, Says("Rows of the run, or of this partition of it, as far as they were read.", *_ALL, FAILURES)
    ] = None
    completed: Annotated[int | None, Says("Rows with a valid answer.", PROGRESS, RESULTS)] = None
    failed: Annotated[int | None, Says("Rows that failed for good.", PROGRESS, RESULTS)] = None
    answered: Annotated[int | None, Says("Rows that have an end here or an answer at the provider.", PROGRESS)] = None
    progress_percent: Annotated[
        float | None,
        Says("The same as a share of all rows, 0 to 100; absent until all were read; plots.", PROGRESS),
    ] = None
    cost: Annotated[str | None, Says("The cost in words: amount, price list, or why there is no price.", RESULTS)] = (
        None
    )
    cost_usd: Annotated[
        float | None, Says("Cost so far at batch prices, in US dollars; absent where not known; plots.", RESULTS)
    ] = None
    estimated_cost: Annotated[str | None, Says("The same in words.", BATCH)] = None
    estimated_cost_usd: Annotated[
        float | None,
        Says("What these will cost as input, in US dollars, if a price is known.", BATCH),
    ] = None
    estimated_input_tokens: Annotated[
        int | None,
        Says(
            "Tokens of all requests as counted at submission; of the whole run where it answers several partitions.",
            BATCH,
        ),
    ] = None
    request_files: Annotated[
        int | None,
        Says("Request files written for the rows; of the whole run where it answers several partitions.", BATCH),
    ] = None
    hours_at_provider: Annotated[
        float | None, Says("From the first submission to the end of the last batch; plots.", RESULTS)
    ] = None
    attempts: Annotated[int | None, Says("Counted attempts of all rows together.", RESULTS)] = None
    input_tokens: Annotated[
        int | None, Says("Billed input tokens of every collected line, retried ones too.", RESULTS)
    ] = None
    cached_tokens: Annotated[int | None, Says("Those of them that came from the provider's cache.", RESULTS)] = None
    output_tokens: Annotated[int | None, Says("Billed output tokens.", RESULTS)] = None
    reasoning_tokens: Annotated[int | None, Says("Those of them that were spent on reasoning.", RESULTS)] = None
    batches: Annotated[
        int | None,
        Says("Batches made at the provider so far, retries included; those of the whole run.", BATCH, RESULTS),
    ] = None
    provider_batches: Annotated[
        dg.MarkdownMetadataValue | None,
        Says("Their ids, with links for api.openai.com, states and rows; the first 50.", BATCH, RESULTS),
    ] = None
    provider_page: Annotated[
        dg.UrlMetadataValue | None, Says("OpenAI's page of the batch, or of all batches.", BATCH, RESULTS)
    ] = None
    results: Annotated[dg.DagsterAssetMetadataValue | None, Says("The asset that the answers land in.", BATCH)] = None
    submission: Annotated[dg.DagsterAssetMetadataValue | None, Says("The asset that sent the rows.", RESULTS)] = None
    submission_run: Annotated[dg.DagsterRunMetadataValue | None, Says("The Dagster run in which it did.", RESULTS)] = (
        None
    )
    partitions: Annotated[
        str | None, Says("The partitions that one engine run answers together, if it is several.", *_ALL)
    ] = None
    overrides: Annotated[dg.JsonMetadataValue | None, Says("What the launchpad changed about the job.", BATCH)] = None
    generation: Annotated[
        str | None, Says("What the engine run shares with every re-execution of the Dagster run.", BATCH)
    ] = None
    revision: Annotated[int | None, Says("Grows with every change of the run.", *_ALL)] = None
    failure_classes: Annotated[
        dg.TableMetadataValue | None,
        Says("Failed rows by class: share, what the class means, and one message as an example.", RESULTS, FAILURES),
    ] = None
    failed_rows: Annotated[
        dg.TableMetadataValue | None, Says("The first failed rows, each with its reason.", RESULTS, FAILURES)
    ] = None
    preview: Annotated[dg.TableMetadataValue | None, Says("The first rows.", RESULTS)] = None

    def keys(self) -> Iterable[str]:
        """The namespaced keys of the fields that are set."""
        return [f"{NAMESPACE}/{one.name}" for one in fields(self) if getattr(self, one.name) is not None]

    def __getitem__(self, key: str) -> Any:
        return getattr(self, key.removeprefix(f"{NAMESPACE}/"))

    @classmethod
    def extract(cls, metadata: Mapping[str, Any]) -> BatchorMetadataSet:
        """Read the set back from an event's metadata; other keys are skipped."""
        known = {one.name for one in fields(cls)}
        found = {
            key.removeprefix(f"{NAMESPACE}/"): value
            for key, value in metadata.items()
            if key.startswith(f"{NAMESPACE}/")
        }
        return cls(**{name: _plain(value) for name, value in found.items() if name in known})


def usage_keys(model: str, *, calls: int, input_tokens: int, output_tokens: int) -> dict[str, int]:
    """The keys that dagster-openai writes for a model, which Dagster+ Insights adds up."""
    return {
        f"openai.{model}.calls": calls,
        f"openai.{model}.total_tokens": input_tokens + output_tokens,
        f"openai.{model}.prompt_tokens": input_tokens,
        f"openai.{model}.completion_tokens": output_tokens,
    }


def described() -> str:
    """The keys of BatchorMetadataSet as the table of docs/metadata.md."""
    lines = ["| key | on | says |", "|---|---|---|"]
    for name, hint in get_type_hints(BatchorMetadataSet, include_extras=True).items():
        says: Says = hint.__metadata__[0]
        places = ", ".join(f"`{place}`" if "<" in place else place for place in says.shown_on)
        lines.append(f"| `{NAMESPACE}/{name}` | {places} | {says.meaning} |")
    return "\n".join(lines)


def _plain(value: Any) -> Any:
    scalar = (dg.TextMetadataValue, dg.IntMetadataValue, dg.FloatMetadataValue)
    return value.value if isinstance(value, scalar) else value


if __name__ == "__main__":
    page = Path(sys.argv[1])
    head, rest = page.read_text().split("<!-- keys", 1)
    mark, rest = rest.split("-->", 1)
    page.write_text(f"{head}<!-- keys{mark}-->\n{described()}\n{rest[rest.index('<!-- end of keys') :]}")
