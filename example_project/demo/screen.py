"""What the demo says: a live table on a terminal, quiet lines elsewhere, and the report at the end."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from batchor_engine import BatchRunner
from example_project import settings
from example_project.demo.home import Home
from example_project.demo.watch import Day, Ending, newest_by_day

FIRST_ROWS = 4
BAR_CHARS = 24

console = Console(highlight=False, width=None if sys.stdout.isatty() else 130)


class Progress:
    """Shows each look; without a terminal only what changed, a line a day."""

    def __init__(self, live: Live | None) -> None:
        self._live = live
        self._begun = time.monotonic()
        self._told: dict[str, tuple[str, int]] = {}

    def __call__(self, days: list[Day]) -> None:
        if self._live:
            self._live.update(progress_table(days, time.monotonic() - self._begun))
            return
        for day in days:
            quarter = 4 * day.answered // day.rows if day.rows else 0
            if self._told.get(day.day) != (day.phase, quarter):
                self._told[day.day] = (day.phase, quarter)
                line = f"{day.phase}, {day.answered} of {day.rows} rows answered" if day.rows else day.phase
                console.print(f"{time.monotonic() - self._begun:5.0f} s  {day.day}  {line}")


@contextmanager
def progress() -> Iterator[Progress]:
    if not console.is_terminal:
        yield Progress(None)
        return
    with Live(console=console, refresh_per_second=4) as live:
        yield Progress(live)


def progress_table(days: list[Day], elapsed: float) -> Table:
    table = Table(title=f"triage, {elapsed:.0f} s", title_justify="left")
    for name in ("day", "rows", "batches", "answered at the provider", "collected", "now"):
        table.add_column(name, no_wrap=True)
    for day in days:
        table.add_row(day.day, str(day.rows), str(day.batches), bar(day), str(day.collected), day.phase)
    return table


def bar(day: Day) -> str:
    full = BAR_CHARS * day.answered // day.rows if day.rows else 0
    return f"{'█' * full}{'·' * (BAR_CHARS - full)} {day.answered}"


def say(text: str) -> None:
    console.print(Text(text), soft_wrap=True)


def report(home: Home, ending: Ending, url: str) -> None:
    """The first typed rows of each day, tokens, the check, and where everything lies."""
    runner = BatchRunner(storage=settings.store_url(home.path))
    infos = newest_by_day(home)
    for day, dagster_run in sorted(ending.materialized_by.items()):
        run = runner.get_run(infos[day].run_id)
        console.print(rows_table(f"triage[{day}]: {infos[day].summary.total_items} rows", run.iter_results()))
        usage, (passed, words) = run.usage(), ending.checks[day]
        outcome = "passed" if passed else "FAILED"
        say(
            f"  tokens: {usage.input_tokens} in ({usage.cached_tokens} cached), {usage.output_tokens} out "
            f"({usage.reasoning_tokens} reasoning)"
        )
        say(f"  cost: {run.cost()}")
        say(f"  check failure_rate: {outcome}, {words}; failures: {run.failure_counts() or 'none'}")
        say(f"  engine run {run.run_id}; Dagster run {dagster_run.run_id[:8]}, launched by the sensor\n")
    say(f"Runs      {runner.storage.location}")
    say(f"Artifacts {settings.artifacts_url(home.path)}")
    say(f"Dagster   {home.dagster} (was at {url})")
    say(f"Logs      {home.logs}")
    say(f"Look at it in the browser: {sys.executable} -m example_project.demo --dev --home {home.path}")


def rows_table(title: str, results: Any) -> Table:
    table = Table(title=title, title_justify="left", expand=True)
    for name in ("ticket", "product", "urgency", "mood", "refund", "entities"):
        table.add_column(name, no_wrap=True)
    table.add_column("summary", ratio=1, overflow="ellipsis", no_wrap=True)
    for result in itertools.islice(results, FIRST_ROWS):
        if result.output is None:
            table.add_row(result.item_id, "", "", "", "", "", Text(f"failed: {result.error.error_class}"))
            continue
        said = result.output
        refund = "" if said.refund_eur is None else f"{said.refund_eur:.2f} EUR"
        texts = (
            result.item_id,
            said.product,
            said.urgency,
            said.sentiment.mood,
            refund,
            str(len(said.entities)),
            said.summary,
        )
        table.add_row(*(Text(str(text)) for text in texts))
    return table
