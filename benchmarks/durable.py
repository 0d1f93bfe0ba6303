"""The same work by the engine, on SQLite and local files."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from batchor_engine import (
    BatchJob,
    BatchRunner,
    CsvItemSource,
    OpenAIConnection,
    OpenAIProviderConfig,
    SQLiteStorage,
)
from benchmarks.work import MODEL, Facts, Phases, peak_mib, prompt_of


def main(folder: Path, base_url: str) -> None:
    runner = BatchRunner(
        storage=SQLiteStorage(path=folder / "runs.sqlite3"),
        connection=OpenAIConnection(api_key="sk-bench", base_url=base_url),
    )
    rows = CsvItemSource(folder / "rows.csv", item_id_from_row=lambda row: row["ticket_id"], payload_from_row=dict)
    job = BatchJob(
        rows, lambda item: prompt_of(item.payload), OpenAIProviderConfig(model=MODEL), structured_output=Facts
    )
    phases = Phases()
    run = phases.run("ingest and submit", lambda: runner.start(job, run_id="bench"))
    phases.run("collect", lambda: run.wait(poll_interval=0.05))
    count = phases.run("read back", lambda: sum(1 for _ in run.iter_results()))
    poll = Phases()
    poll.run("summary", run.summary)
    runner.close()
    size = sum(path.stat().st_size for path in folder.glob("runs.sqlite3*"))
    told = {"seconds": phases.seconds, "rows": count, "peak_mib": peak_mib(), "database_bytes_per_row": size / count}
    print(json.dumps({**told, "summary_ms": poll.seconds["summary"] * 1000}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
