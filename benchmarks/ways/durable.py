"""The same work by the engine. BATCHOR_BENCH_STORE is the URL of its state, SQLite in the folder by default."""

from __future__ import annotations

import os
import statistics
import time
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

from batchor_engine import (
    BatchJob,
    BatchRunner,
    ChunkPolicy,
    CsvItemSource,
    OpenAIConnection,
    OpenAIProviderConfig,
    RetryPolicy,
)
from benchmarks.work import BESIDE, LINES_A_FILE, MODEL, Facts, prompt_of

RUN = "bench"


def submit(folder: Path, base_url: str) -> dict[str, Any]:
    with _runner(folder, base_url) as runner:
        rows = CsvItemSource(folder / "rows.csv", item_id_from_row=lambda row: row["ticket_id"], payload_from_row=dict)
        job = BatchJob(
            rows,
            lambda item: prompt_of(item.payload),
            OpenAIProviderConfig(model=MODEL, request_timeout_sec=600),
            structured_output=Facts,
            chunk_policy=ChunkPolicy(max_requests=int(os.environ.get("BATCHOR_BENCH_LINES", LINES_A_FILE))),
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


def look(folder: Path, base_url: str) -> dict[str, Any]:
    with _runner(folder, base_url) as runner:
        (found,) = _looked([runner])
    return {name: statistics.median(times) for name, times in found.items()}


def look_in_turns(folder: Path, base_url: str) -> dict[str, Any]:
    """How many times as long as the small run beside it the run of `folder` takes: medians of the ratios of pairs.

    The two of a pair are looked at within milliseconds, so that a machine that changes its pace does so for both.
    """
    with _runner(folder, base_url) as runner, _runner(folder / BESIDE, os.environ["BATCHOR_BENCH_BESIDE"]) as beside:
        small, large = _looked([beside, runner])
    return {
        name: statistics.median(one / other for one, other in zip(large[name], small[name], strict=True))
        for name in large
    }


def _looked(runners: list[BatchRunner]) -> list[dict[str, list[float]]]:
    """Of each, milliseconds of a summary, and of a refresh that finds nothing new; they take turns."""
    looks = [_Look(one) for one in runners]
    for act in (_Look.summary, _Look.refresh):
        for _ in range(101):
            for one in looks:
                act(one)
    return [one.ms for one in looks]


class _Look:
    """Milliseconds of each look at a run whose batches are all at the provider."""

    def __init__(self, runner: BatchRunner) -> None:
        self._run, self._calls = runner.get_run(RUN), _timed_calls(runner)
        self.ms: dict[str, list[float]] = {"summary_ms": [], "refresh_ms": [], "own_refresh_ms": []}

    def summary(self) -> None:
        self.ms["summary_ms"].append(_ms(self._run.summary))

    def refresh(self) -> None:
        self._calls.clear()
        whole = _ms(self._run.refresh)
        self.ms["refresh_ms"].append(whole)
        self.ms["own_refresh_ms"].append(whole - sum(self._calls) * 1000)


def _ms(act: Callable[[], object]) -> float:
    return timeit.timeit(act, number=1) * 1000


def refresh(folder: Path, base_url: str) -> dict[str, Any]:
    with _runner(folder, base_url) as runner:
        return {"active_batches": runner.get_run(RUN).refresh().active_batches}


def _timed_calls(runner: BatchRunner) -> list[float]:
    """From now on, the seconds of each of a poll's calls to the server."""
    stored = runner.storage.run(RUN)
    assert stored is not None
    provider, spans = runner.host.provider_of(stored), list[float]()

    def timed(call: Callable[..., Any]) -> Callable[..., Any]:
        def act(*args: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return call(*args, **named)
            finally:
                spans.append(time.perf_counter() - began)

        return act

    for name in ("list_batches", "get_batch"):
        setattr(provider, name, timed(getattr(provider, name)))
    return spans


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
