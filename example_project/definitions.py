"""Support tickets by day, sorted by a model through the Batch API; the urgent ones go on to people."""

import os

import dagster as dg
import pandas as pd

from batchor_dagster import (
    BatchorChecks,
    BatchorResource,
    batchor_assets,
    build_batchor_definitions,
    build_batchor_submission_sensor,
)
from batchor_engine import BatchItem, BatchJob, DataFrameItemSource, OpenAIProviderConfig, PromptParts
from example_project import settings
from example_project.charts import bars
from example_project.models import TicketTriage, Urgency
from example_project.tickets import TicketFileError, read_tickets

SYSTEM_PROMPT = "You sort support tickets of Fernlight, a maker of smart lights. Answer only from the ticket's text."

days = dg.DailyPartitionsDefinition(start_date="2026-03-02", end_date="2026-03-07")


@dg.asset(partitions_def=days, group_name="support", kinds={"csv", "pandas"})
def tickets(context: dg.AssetExecutionContext) -> dg.Output[pd.DataFrame]:
    """The tickets that came in on one day."""
    try:
        frame = read_tickets(settings.data_dir() / f"{context.partition_key}.csv")
    except TicketFileError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    return dg.Output(frame, metadata={"dagster/partition_row_count": len(frame)})


def ask(item: BatchItem) -> PromptParts:
    ticket = item.payload
    return PromptParts(f"Subject: {ticket['subject']}\nBody:\n{ticket['body']}", system_prompt=SYSTEM_PROMPT)


@batchor_assets(
    name="triage",
    structured_output=TicketTriage,
    partitions_def=days,
    group_name="support",
    failures_asset=True,
    checks=BatchorChecks(max_failure_rate=0.05, max_refusal_rate=0.04, max_missing_rows=0),
)
def triage(tickets: pd.DataFrame) -> BatchJob:
    """Product, urgency, mood and facts of every ticket."""
    return BatchJob(
        items=DataFrameItemSource(tickets, item_id="ticket_id"),
        build_prompt=ask,
        provider_config=OpenAIProviderConfig(model=settings.model()),
    )


@dg.asset(
    partitions_def=days,
    group_name="support",
    kinds={"pandas"},
    automation_condition=dg.AutomationCondition.eager().without(dg.AutomationCondition.in_latest_time_window()),
)
def urgent(triage: pd.DataFrame, tickets: pd.DataFrame) -> dg.Output[pd.DataFrame]:
    """Tickets that need a person today, most urgent first."""
    answered = triage[triage["status"] == "completed"]
    counts = {level.value: int((answered["urgency"] == level.value).sum()) for level in reversed(Urgency)}
    rows = answered[answered["urgency"].isin([Urgency.CRITICAL, Urgency.HIGH])]
    merged = rows.merge(tickets, left_on="item_id", right_on="ticket_id").sort_values(["urgency", "ticket_id"])
    shown = merged[["ticket_id", "urgency", "product", "customer", "summary"]]
    return dg.Output(
        shown,
        metadata={
            "by_urgency": dg.MetadataValue.md(bars(counts)),
            "urgent": len(shown),
            "first": dg.MetadataValue.md(shown.head(5).to_markdown(index=False)),
        },
    )


def api_key() -> str:
    """A real key only where the environment also names a real server; the sandbox takes any."""
    real = os.environ.get(settings.BASE_URL_VARIABLE) and os.environ.get("OPENAI_API_KEY")
    return dg.EnvVar("OPENAI_API_KEY") if real else "sandbox"


def store_url() -> str:
    """A URL from the environment stays there: it may hold a password, and Dagster keeps what is written here."""
    named = os.environ.get(settings.STORE_VARIABLE)
    return dg.EnvVar(settings.STORE_VARIABLE) if named else settings.store_url(settings.home())


defs = build_batchor_definitions(
    assets=[tickets, triage, urgent],
    resources={
        "batchor": BatchorResource(
            store_url=store_url(),
            artifacts_url=settings.artifacts_url(settings.home()),
            base_url=settings.base_url(),
            api_key=api_key(),
            quota_scope="example",
        )
    },
    sensors=[
        # It spends money by itself, so it waits to be switched on; until then a backfill submits.
        build_batchor_submission_sensor(
            assets=[tickets, triage], max_runs_in_flight=3, minimum_interval_seconds=settings.interval_sec()
        ),
        dg.AutomationConditionSensorDefinition(
            "urgent_when_triaged",
            target=["urgent"],
            minimum_interval_seconds=5,
            default_status=dg.DefaultSensorStatus.RUNNING,
        ),
    ],
    executor=dg.multiprocess_executor if settings.executor() == "multiprocess" else dg.in_process_executor,
    minimum_interval_seconds=settings.interval_sec(),
)
