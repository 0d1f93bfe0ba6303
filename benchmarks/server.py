"""A server for measurements: the Files and Batches API on bare sockets, so that what is measured is the client.

Answers are drawn from a prepared pool, at least 2 KB each, shuffled; three rows of a hundred fail once and succeed when
sent again. Nothing is answered before `GET /open`, so that a run can be looked at while it is at the provider;
`GET /idle` returns once nothing is in progress, and tells the CPU seconds that answering has cost so far.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qs, urlsplit

ANSWER_CHARS = 2_000
FAILING_OF_100 = 3
POOL = 997
_CUSTOM_ID = re.compile(rb'^\{"custom_id":\s*"([^"]*)"')
_ATTEMPT = re.compile(rb":a\d+$")
_WORDS = ("lamp", "hall", "dark", "bulb", "fuse", "warm", "refund", "order", "and", "the", "line\nbreak", '"quoted"')
# Every eighth answer has characters beyond ASCII.
_ODD_WORDS = (*_WORDS, "5 €", "naïve", "“curly”")


def answers() -> list[bytes]:
    """Bodies of good answers: JSON of the model `Facts` as text in a Responses body."""
    draw = random.Random(11)
    return [json.dumps(_body(draw, at), ensure_ascii=False).encode() for at in range(POOL)]


def _body(draw: random.Random, at: int) -> dict[str, Any]:
    words, reason = _WORDS if at % 8 else _ODD_WORDS, ""
    while len(reason) < ANSWER_CHARS:
        reason += draw.choice(words) + " "
    facts = {"product": f"lamp {at}", "urgency": at % 4, "words": draw.choices(words, k=8), "reason": reason}
    text = json.dumps(facts, ensure_ascii=False)
    usage = {
        "input_tokens": 100 + at, "input_tokens_details": {"cached_tokens": at % 64},
        "output_tokens": 500 + at, "output_tokens_details": {"reasoning_tokens": at % 32}, "total_tokens": 600 + 2 * at,
    }  # fmt: skip
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": text}
    message = {"id": f"msg_{at}", "type": "message", "status": "completed", "role": "assistant", "content": [part]}
    return {
        "id": f"resp_{at}", "object": "response", "created_at": 1, "status": "completed", "error": None,
        "incomplete_details": None, "model": "gpt-5-mini", "output": [{"id": "rs_1", "type": "reasoning"}, message],
        "parallel_tool_calls": True, "temperature": 1.0, "tool_choice": "auto", "tools": [], "usage": usage,
    }  # fmt: skip


class Provider:
    """Files on disk, batches in memory, one worker that answers them in turn."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.batches: dict[str, dict[str, Any]] = {}
        self.files: dict[str, dict[str, Any]] = {}
        self.calls: dict[str, int] = {}
        self._failed: set[bytes] = set()
        self._answers = answers()
        self._lock = threading.Lock()
        self._worker = ThreadPoolExecutor(1)
        self._held: list[dict[str, Any]] | None = []
        self._open: list[Any] = []

    def new_file(self, name: str, purpose: str) -> dict[str, Any]:
        with self._lock:
            file_id = f"file-{len(self.files)}"
            made = {"id": file_id, "object": "file", "bytes": 0, "created_at": int(time.time()), "filename": name,
                    "purpose": purpose, "status": "processed"}  # fmt: skip
            self.files[file_id] = made
            return made

    def path(self, file_id: str) -> Path:
        return self.folder / file_id

    def create(self, asked: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            batch_id = f"batch_{len(self.batches)}"
            batch = {
                "id": batch_id, "object": "batch", "endpoint": asked["endpoint"], "errors": None,
                "input_file_id": asked["input_file_id"], "completion_window": asked["completion_window"],
                "status": "in_progress", "output_file_id": None, "error_file_id": None,
                "created_at": int(time.time()), "metadata": asked.get("metadata") or {},
                "request_counts": {"total": 0, "completed": 0, "failed": 0},
            }  # fmt: skip
            self.batches[batch_id] = batch
        if self._held is not None:
            self._held.append(batch)
        else:
            self._open.append(self._worker.submit(self._answer, batch))
        return batch

    def open(self) -> None:
        """Answer what was held back, and from now on at once."""
        held, self._held = self._held or [], None
        self._open += [self._worker.submit(self._answer, batch) for batch in held]

    def wait(self) -> None:
        while self._open:
            self._open.pop().result()

    def _answer(self, batch: dict[str, Any]) -> None:
        with self.path(batch["input_file_id"]).open("rb") as lines:
            ids = [_id_of(line) for line in lines]
        random.Random(len(ids)).shuffle(ids)
        good, bad = self._split(ids)
        if good:
            batch["output_file_id"] = self._write("output", (self._good_line(one) for one in good))
        if bad:
            batch["error_file_id"] = self._write("error", map(_bad_line, bad))
        batch["request_counts"] = {"total": len(ids), "completed": len(good), "failed": len(bad)}
        batch["completed_at"] = int(time.time())
        batch["status"] = "completed"

    def _split(self, ids: list[bytes]) -> tuple[list[bytes], list[bytes]]:
        good, bad = [], []
        for one in ids:
            row = _ATTEMPT.sub(b"", one)
            fails = zlib.crc32(row) % 100 < FAILING_OF_100 and row not in self._failed
            if fails:
                self._failed.add(row)
            (bad if fails else good).append(one)
        return good, bad

    def _good_line(self, custom_id: bytes) -> bytes:
        body = self._answers[zlib.crc32(_ATTEMPT.sub(b"", custom_id)) % POOL]
        return (
            b'{"id":"batch_req_1","custom_id":"%s","response":{"status_code":200,"request_id":"r","body":%s},'
            b'"error":null}\n' % (custom_id, body)
        )

    def _write(self, name: str, lines: Iterator[bytes]) -> str:
        made = self.new_file(f"{name}.jsonl", "batch_output")
        path = self.path(made["id"])
        with path.open("wb", buffering=1 << 20) as stream:
            stream.writelines(lines)
        made["bytes"] = path.stat().st_size
        return made["id"]


def _id_of(line: bytes) -> bytes:
    found = _CUSTOM_ID.match(line)
    return found[1] if found else json.loads(line)["custom_id"].encode()


def _bad_line(custom_id: bytes) -> bytes:
    return (
        b'{"id":"batch_req_1","custom_id":"%s","response":{"status_code":500,"request_id":"r","body":{"error":{'
        b'"message":"The server had an error","type":"server_error","code":null}}},"error":null}\n' % custom_id
    )


class Handler(BaseHTTPRequestHandler):
    """Routes by method and path; whatever is not written here is a 404."""

    protocol_version = "HTTP/1.1"
    # Headers and body are two writes: without this the second one waits 40 ms for the first one's receipt.
    disable_nagle_algorithm = True
    provider: Provider

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        parts = url.path.strip("/").removeprefix("v1/").split("/")
        self._count("GET", parts)
        match parts:
            case ["calls"]:
                self._json(self.provider.calls)
            case ["open"]:
                self.provider.open()
                self._json({})
            case ["idle"]:
                self.provider.wait()
                self._json({"cpu_seconds": time.process_time(), "calls": self.provider.calls})
            case ["batches"]:
                self._list(parse_qs(url.query))
            case ["batches", batch_id] if batch_id in self.provider.batches:
                self._json(self.provider.batches[batch_id])
            case ["files", file_id] if file_id in self.provider.files:
                self._json(self.provider.files[file_id])
            case ["files", file_id, "content"] if file_id in self.provider.files:
                self._send(file_id)
            case _:
                self._json({"error": {"message": "not found", "code": "not_found"}}, 404)

    def do_POST(self) -> None:
        parts = self.path.strip("/").removeprefix("v1/").split("/")
        self._count("POST", parts)
        match parts:
            case ["files"]:
                self._receive()
            case ["batches"]:
                self._json(self.provider.create(json.loads(self.rfile.read(self._length))))
            case _:
                self.rfile.read(self._length)
                self._json({"error": {"message": "not found", "code": "not_found"}}, 404)

    def do_DELETE(self) -> None:
        file_id = self.path.rsplit("/", 1)[-1]
        self.provider.path(file_id).unlink(missing_ok=True)
        self._json({"id": file_id, "object": "file", "deleted": True})

    @property
    def _length(self) -> int:
        return int(self.headers.get("Content-Length", 0))

    def _count(self, method: str, parts: list[str]) -> None:
        # The last of three is a verb, the second an id.
        kind = f"{method} {parts[0]}" + ("/id" if len(parts) > 1 else "") + (f"/{parts[2]}" if len(parts) > 2 else "")
        self.provider.calls[kind] = self.provider.calls.get(kind, 0) + 1

    def _list(self, query: dict[str, list[str]]) -> None:
        newest_first = reversed(self.provider.batches.values())
        if after := query.get("after", [""])[0]:
            newest_first = itertools.islice(itertools.dropwhile(lambda one: one["id"] != after, newest_first), 1, None)
        limit = int(query.get("limit", ["20"])[0])
        page = list(itertools.islice(newest_first, limit + 1))
        more = len(page) > limit
        page = page[:limit]
        ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {}
        self._json({"object": "list", "data": page, "has_more": more, **ends})

    def _send(self, file_id: str) -> None:
        with self.provider.path(file_id).open("rb") as stream:
            self.send_response(200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(os.fstat(stream.fileno()).st_size))
            self.end_headers()
            self.wfile.flush()
            self.connection.sendfile(stream)

    def _receive(self) -> None:
        """A multipart form whose file is streamed to disk; the SDK sends `purpose` before or after it."""
        boundary = self.headers["Content-Type"].split("boundary=")[1].strip('"').encode()
        with tempfile.TemporaryFile(dir=self.provider.folder) as whole:
            _copy(self._body(), whole)
            made = self.provider.new_file("requests.jsonl", "batch")
            made["bytes"] = _cut_out_file(whole, boundary, self.provider.path(made["id"]))
        self._json(made)

    def _body(self) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = self._length
        while left:
            block = self.rfile.read(min(left, 1 << 20))
            left -= len(block)
            yield block

    def _json(self, value: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Silence: a log would be measured too."""


def _copy(blocks: Iterator[bytes], target: BinaryIO) -> None:
    for block in blocks:
        target.write(block)


def _cut_out_file(form: BinaryIO, boundary: bytes, target: Path) -> int:
    """Copy the form's file to `target`, without reading it as a whole."""
    form.seek(0)
    begin, size = 0, form.seek(0, os.SEEK_END)
    form.seek(0)
    head = form.read(4096)
    at = head.index(b'filename="')
    begin = head.index(b"\r\n\r\n", at) + 4
    form.seek(max(begin, size - 4096))
    tail_at, tail = form.tell(), form.read()
    end = tail_at + tail.index(b"\r\n--" + boundary)
    form.seek(begin)
    with target.open("wb") as stream:
        shutil.copyfileobj(form, stream, 1 << 20)
        stream.truncate(end - begin)
    return end - begin


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


def main() -> None:
    # Dagster, in the process that started this one, may have switched SIGTERM off together with Ctrl-C.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with tempfile.TemporaryDirectory(prefix="batchor-bench-server-", dir=sys.argv[1]) as folder:
        Handler.provider = Provider(Path(folder))
        with Server(("127.0.0.1", 0), Handler) as server:
            print(f"serving on http://127.0.0.1:{server.server_address[1]}/v1", flush=True)
            server.serve_forever()


if __name__ == "__main__":
    main()
