"""What people write first: csv, json, pydantic, the official client; no database, nothing survives a crash."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from openai import OpenAI

from benchmarks.work import LINES_A_FILE, MODEL, TEXT_FORMAT, Facts, prompt_of


def submit(folder: Path, base_url: str) -> dict[str, Any]:
    with (folder / "rows.csv").open(newline="", encoding="utf-8") as rows:
        batches = send(_client(base_url), folder, csv.DictReader(rows))
    (folder / "batches.json").write_text(json.dumps(batches))
    return {"batches": len(batches)}


def collect(folder: Path, base_url: str) -> dict[str, Any]:
    client, sent = _client(base_url), json.loads((folder / "batches.json").read_text())
    done = 0
    with (folder / "results.jsonl").open("w", encoding="utf-8") as results:
        while sent:
            failed: set[str] = set()
            for batch_id in sent:
                for row_id, facts in read_batch(client, batch_id, failed):
                    results.write(json.dumps({"ticket_id": row_id, **facts.model_dump()}) + "\n")
                    done += 1
            sent = _send_again(client, folder, failed)
    return {"rows": done}


def read(folder: Path, _base_url: str) -> dict[str, Any]:
    rows = urgent = 0
    with (folder / "results.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            del record["ticket_id"]
            urgent += Facts.model_validate(record).urgency
            rows += 1
    return {"rows": rows, "urgent": urgent}


def send(client: OpenAI, folder: Path, rows: Iterable[dict[str, Any]]) -> list[str]:
    batches: list[str] = []
    lines: list[str] = []
    for row in rows:
        body = {"model": MODEL, "input": prompt_of(row), "text": TEXT_FORMAT}
        line = {"custom_id": row["ticket_id"], "method": "POST", "url": "/v1/responses", "body": body}
        lines.append(json.dumps(line) + "\n")
        if len(lines) == LINES_A_FILE:
            batches.append(_send_file(client, folder / f"{time.time_ns()}.jsonl", lines))
            lines = []
    if lines:
        batches.append(_send_file(client, folder / f"{time.time_ns()}.jsonl", lines))
    return batches


def _send_file(client: OpenAI, path: Path, lines: list[str]) -> str:
    path.write_text("".join(lines), encoding="utf-8")
    uploaded = client.files.create(file=path, purpose="batch")
    return client.batches.create(input_file_id=uploaded.id, endpoint="/v1/responses", completion_window="24h").id


def read_batch(client: OpenAI, batch_id: str, failed: set[str]) -> Iterator[tuple[str, Facts]]:
    while (batch := client.batches.retrieve(batch_id)).status != "completed":
        time.sleep(0.05)
    for line in client.files.content(batch.output_file_id or "").text.split("\n"):
        if line:
            record = json.loads(line)
            text = record["response"]["body"]["output"][-1]["content"][0]["text"]
            yield record["custom_id"], Facts.model_validate(json.loads(text))
    if batch.error_file_id:
        for line in client.files.content(batch.error_file_id).text.split("\n"):
            if line:
                failed.add(json.loads(line)["custom_id"])


def _send_again(client: OpenAI, folder: Path, failed: set[str]) -> list[str]:
    if not failed:
        return []
    with (folder / "rows.csv").open(newline="", encoding="utf-8") as rows:
        return send(client, folder, (row for row in csv.DictReader(rows) if row["ticket_id"] in failed))


def _client(base_url: str) -> OpenAI:
    return OpenAI(api_key="sk-bench", base_url=base_url, timeout=600)
