"""The same work by the engine; the state's place comes by BATCHOR_BENCH_STORE, SQLite in the folder by default."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from batchor_engine import (
    BatchJob,
    BatchRunner,
    CsvItemSource,
    OpenAIConnection,
    OpenAIProviderConfig,
    RetryPolicy,
)
from benchmarks.work import MODEL, Facts, prompt_of

RUN = "bench"


def submit(folder: Path, base_url: str) -> dict[str, Any]:
    with _runner(folder, base_url) as runner:
        rows = CsvItemSource(folder / "rows.csv", item_id_from_row=lambda row: row["ticket_id"], payload_from_row=dict)
        job = BatchJob(
            rows,
            lambda item: prompt_of(item.payload),
            OpenAIProviderConfig(model=MODEL, request_timeout_sec=600),
            structured_output=Facts,
            # The other ways send again at once, so this one does too.
            retry_policy=RetryPolicy(base_backoff_sec=0),
        )
        run = runner.start(job, run_id=RUN)
        return {"batches": run.summary().active_batches}


def collect(folder: Path, base_url: str) -> dict[str, Any]:
    with _runner(folder, base_url) as runner:
        run = runner.get_run(RUN)
        run.wait(poll_interval=0.05)
        summary = run.summary()
        assert not summary.failed_items, summary
        return {"rows": summary.completed_items}


def read(folder: Path, base_url: str) -> dict[str, Any]:
    rows = urgent = 0
    with _runner(folder, base_url) as runner:
        for result in runner.get_run(RUN).iter_results():
            urgent += result.output.urgency
            rows += 1
    return {"rows": rows, "urgent": urgent}


def results_list(folder: Path, base_url: str) -> dict[str, Any]:
    with _runner(folder, base_url) as runner:
        return {"rows": len(runner.get_run(RUN).results())}


def parquet(folder: Path, base_url: str) -> dict[str, Any]:
    with _runner(folder, base_url) as runner:
        runner.get_run(RUN).write_parquet(folder / "results.parquet")
    return {"bytes": (folder / "results.parquet").stat().st_size}


def export(folder: Path, base_url: str) -> dict[str, Any]:
    with _runner(folder, base_url) as runner:
        runner.get_run(RUN).export_artifacts(folder / "exported")
    return {}


def summary(folder: Path, base_url: str) -> dict[str, Any]:
    """Milliseconds of one summary, the median of many."""
    with _runner(folder, base_url) as runner:
        run = runner.get_run(RUN)
        spans = sorted(_span(run.summary) for _ in range(51))
        noop = sorted(_span(run.refresh) for _ in range(21))
    return {"summary_ms": spans[25] * 1e3, "refresh_ms": noop[10] * 1e3}


def _span(act: Any) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


class _runner:  # noqa: N801 - used as a function
    def __init__(self, folder: Path, base_url: str) -> None:
        self._runner = BatchRunner(
            storage=os.environ.get("BATCHOR_BENCH_STORE") or f"sqlite:///{folder}/runs.sqlite3",
            artifacts_url=folder / "artifacts",
            connection=OpenAIConnection(api_key="sk-bench", base_url=base_url),
        )

    def __enter__(self) -> BatchRunner:
        return self._runner

    def __exit__(self, *_: object) -> None:
        self._runner.close()
