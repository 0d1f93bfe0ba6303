"""What people write first: csv, json, pydantic, the official client; no database, nothing survives a crash."""

from __future__ import annotations

import csv
import json
import sys
import time
from pathlib import Path
from typing import Any

from openai import OpenAI

from batchor_engine import model_output_schema
from benchmarks.work import MODEL, Facts, Phases, peak_mib, prompt_of


def write_requests(source: Path, target: Path, size: int) -> list[Path]:
    name, schema = model_output_schema(Facts)
    text = {"format": {"type": "json_schema", "name": name, "strict": True, "schema": schema}}
    files: list[Path] = []
    with source.open(newline="", encoding="utf-8") as rows:
        lines = []
        for row in csv.DictReader(rows):
            body = {"model": MODEL, "input": prompt_of(row), "text": text}
            lines.append({"custom_id": row["ticket_id"], "method": "POST", "url": "/v1/responses", "body": body})
            if len(lines) == size:
                files.append(flush(target / f"{len(files)}.jsonl", lines))
                lines = []
        if lines:
            files.append(flush(target / f"{len(files)}.jsonl", lines))
    return files


def flush(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def submit(client: OpenAI, files: list[Path]) -> list[str]:
    ids = []
    for path in files:
        uploaded = client.files.create(file=path, purpose="batch")
        batch = client.batches.create(input_file_id=uploaded.id, endpoint="/v1/responses", completion_window="24h")
        ids.append(batch.id)
    return ids


def collect(client: OpenAI, ids: list[str]) -> dict[str, Facts]:
    found: dict[str, Facts] = {}
    for batch_id in ids:
        while (batch := client.batches.retrieve(batch_id)).status != "completed":
            time.sleep(0.05)
        for line in client.files.content(batch.output_file_id or "").text.split("\n"):
            if line:
                record = json.loads(line)
                text = record["response"]["body"]["output"][-1]["content"][0]["text"]
                found[record["custom_id"]] = Facts.model_validate(json.loads(text))
    return found


def main(folder: Path, base_url: str) -> None:
    phases, client = Phases(), OpenAI(api_key="sk-bench", base_url=base_url)
    files = phases.run("ingest", lambda: write_requests(folder / "rows.csv", folder, 50_000))
    ids = phases.run("submit", lambda: submit(client, files))
    found = phases.run("collect", lambda: collect(client, ids))
    print(json.dumps({"seconds": phases.seconds, "rows": len(found), "peak_mib": peak_mib()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
