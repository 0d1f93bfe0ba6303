"""The other side of the port: a small, strict batch provider in this process, behind an SDK-shaped client.

Law: it knows nothing of the engine. It keeps its own books (what was created, answered, paid, dropped on purpose), and
the engine's books are held against them.
"""

from __future__ import annotations

import json
import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

LAST_WORDS = frozenset({"completed", "failed", "expired", "cancelled"})
# How a line may come out. The first group is paid; of it, the first three never reach the client readably.
DROPPED = ("missing", "garbage", "null_line")
PAID = (*DROPPED, "ok", "odd_breaks", "duplicate", "stranger", "empty")
UNPAID = ("error_500", "error_400", "quota_row")
LINE_KINDS = (*PAID, *UNPAID)
# What the client must count as an attempt, once it has read it.
COUNTED = frozenset({"ok", "odd_breaks", "duplicate", "stranger", "empty", "error_500", "error_400"})
GOOD = frozenset({"ok", "odd_breaks", "duplicate", "stranger"})
CALLS = ("files.create", "files.list", "files.content", "batches.create", "batches.list", "batches.retrieve")


@dataclass(frozen=True)
class Fate:
    """How a batch will end: its last word, after how many answers, and the kind of each line (the rest are ok)."""

    end: str = "completed"
    at: int = 1_000_000
    lines: dict[int, str] = field(default_factory=dict[int, str])
    # With "failed": "server_error", "token_limit_exceeded" or "invalid_request" (pins line 1).
    code: str = "server_error"


@dataclass(frozen=True)
class Trouble:
    """What goes wrong with the next call of `on`.

    "before": nothing happens and the connection drops. "lost": it happens, the answer does not arrive. "late": the
    connection drops and it happens `after_sec` later. A number is an HTTP status, without effect.
    """

    on: str
    what: str | int
    code: str = ""
    after_sec: float = 0.0


class StatusError(Exception):
    """An HTTP error as SDKs raise it."""

    def __init__(self, status: int, code: str = "") -> None:
        super().__init__(f"HTTP {status}")
        self.status_code = status
        self.body = {"code": code or None, "message": f"status {status}"}


class ConnectionLostError(Exception):
    """No answer arrived."""


@dataclass
class Line:
    """One request of one batch, and how it came out; "" while it is unanswered."""

    batch_id: str
    custom_id: str
    kind: str = ""

    @property
    def item_id(self) -> str:
        return self.custom_id.rpartition(":a")[0]

    @property
    def readable(self) -> bool:
        return bool(self.kind) and self.kind not in DROPPED


@dataclass
class Batch:
    """A batch as the provider has it."""

    id: str
    input_file_id: str
    metadata: dict[str, str]
    created_at: float
    lines: list[Line]
    fate: Fate
    status: str = "validating"
    cancelling: bool = False
    output_file_id: str | None = None
    error_file_id: str | None = None
    errors: Any = None

    @property
    def over(self) -> bool:
        return self.status in LAST_WORDS


class Cloud:
    """One account at the provider."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.files: dict[str, tuple[str, bytes, float]] = {}
        self.batches: list[Batch] = []
        self.troubles: list[Trouble] = []
        self.fates: deque[Fate] = deque()
        self.calls: Counter[str] = Counter()
        self.under_way: list[tuple[float, str, dict[str, str]]] = []
        self._count = 0
        # Workers may be threads.
        self.one_at_a_time = threading.RLock()

    # --- the books

    @property
    def lines(self) -> list[Line]:
        return [line for batch in self.batches for line in batch.lines]

    def paid(self) -> list[Line]:
        return [line for line in self.lines if line.kind in PAID]

    def intents(self) -> Counter[str]:
        """How many batches of each intent answered anything."""
        worked = [batch for batch in self.batches if any(line.kind for line in batch.lines)]
        return Counter(batch.metadata["batchor_intent"] for batch in worked)

    def heal(self) -> None:
        """No more trouble; batches that exist keep their fate."""
        self.troubles.clear()
        self.fates.clear()

    # --- time

    def work(self) -> None:
        """One step of every batch."""
        with self.one_at_a_time:
            self._land()
            for batch in self.batches:
                self._step(batch)

    def _step(self, batch: Batch) -> None:
        if batch.over:
            return
        if batch.status == "validating":
            batch.status = "failed" if batch.fate.end == "failed" else "in_progress"
            if batch.status == "failed":
                batch.errors = {"data": [_batch_error(batch.fate.code)]}
            return
        goal = min(len(batch.lines), batch.fate.at if batch.fate.end != "completed" else len(batch.lines))
        done = sum(bool(line.kind) for line in batch.lines)
        if batch.cancelling or done >= goal:
            self._close(batch)
            return
        for at, line in enumerate(batch.lines[:goal]):
            line.kind = batch.fate.lines.get(at, "ok")

    def _close(self, batch: Batch) -> None:
        unanswered = any(not line.kind for line in batch.lines)
        batch.status = "cancelled" if batch.cancelling and unanswered else batch.fate.end
        if batch.status == "failed" or not unanswered:
            batch.status = "completed"
        output = b"".join(_output_lines(line) for line in batch.lines)
        error = b"".join(_error_line(line, batch.status) for line in batch.lines)
        batch.output_file_id = self._put("output", output) if output else None
        batch.error_file_id = self._put("error", error) if error else None

    def _land(self) -> None:
        """Creations that were on their way arrive."""
        due = [late for late in self.under_way if late[0] <= self._now()]
        self.under_way = [late for late in self.under_way if late not in due]
        for _, file_id, metadata in due:
            if file_id in self.files:
                self._create(file_id, metadata)

    # --- the API

    def upload(self, name: str, content: bytes) -> SimpleNamespace:
        return self._call("files.create", lambda: self._file(self._put(name, content)))

    def delete(self, file_id: str) -> None:
        self._call("files.delete", lambda: self.files.pop(file_id, None))

    def list_files(self, limit: int) -> SimpleNamespace:
        def act() -> SimpleNamespace:
            inputs = [self._file(key) for key in reversed(self.files) if key.startswith("file-in")]
            return SimpleNamespace(data=inputs[:limit], has_more=False)

        return self._call("files.list", act)

    def content(self, file_id: str) -> bytes:
        return self._call("files.content", lambda: self._found(file_id)[1])

    def create(self, file_id: str, metadata: dict[str, str]) -> SimpleNamespace:
        trouble = self._trouble("batches.create")
        if trouble is not None and trouble.what == "late":
            self.under_way.append((self._now() + trouble.after_sec, file_id, metadata))
            raise ConnectionLostError("the answer did not arrive")
        return self._call("batches.create", lambda: self._public(self._create(file_id, metadata)), trouble)

    def retrieve(self, batch_id: str) -> SimpleNamespace:
        return self._call("batches.retrieve", lambda: self._public(self._batch(batch_id)))

    def list_batches(self, after: str | None, limit: int) -> SimpleNamespace:
        def act() -> SimpleNamespace:
            newest = self.batches[::-1]
            start = 0 if after is None else 1 + next(n for n, one in enumerate(newest) if one.id == after)
            page = newest[start : start + limit]
            return SimpleNamespace(data=[self._public(one) for one in page], has_more=start + len(page) < len(newest))

        return self._call("batches.list", act)

    def cancel(self, batch_id: str) -> SimpleNamespace:
        def act() -> SimpleNamespace:
            batch = self._batch(batch_id)
            if batch.over:
                raise StatusError(409)
            batch.cancelling = True
            return self._public(batch)

        return self._call("batches.cancel", act)

    # --- inside

    def _call(self, name: str, act: Callable[[], Any], trouble: Trouble | None = None) -> Any:
        self._land()
        self.calls[name] += 1
        trouble = trouble or (None if name == "batches.create" else self._trouble(name))
        if trouble is None:
            return act()
        if isinstance(trouble.what, int):
            raise StatusError(trouble.what, trouble.code)
        if trouble.what == "lost":
            act()
        raise ConnectionLostError("the answer did not arrive")

    def _trouble(self, name: str) -> Trouble | None:
        found = next((one for one in self.troubles if one.on == name), None)
        if found is not None:
            self.troubles.remove(found)
        return found

    def _put(self, name: str, content: bytes) -> str:
        self._count += 1
        kind = "in" if name.startswith("batchor_") else "out"
        file_id = f"file-{kind}-{self._count}"
        self.files[file_id] = (name, content, self._now())
        return file_id

    def _found(self, file_id: str) -> tuple[str, bytes, float]:
        if file_id not in self.files:
            raise StatusError(404)
        return self.files[file_id]

    def _file(self, file_id: str) -> SimpleNamespace:
        name, content, created = self._found(file_id)
        return SimpleNamespace(id=file_id, filename=name, created_at=created, bytes=len(content))

    def _create(self, file_id: str, metadata: dict[str, str]) -> Batch:
        requests = [json.loads(line) for line in self._found(file_id)[1].split(b"\n") if line]
        ids = [request["custom_id"] for request in requests]
        assert requests, "an empty request file"
        assert len(ids) == len(set(ids)), "a custom id twice in one file"
        batch_id = f"batch-{len(self.batches) + 1}"
        fate = self.fates.popleft() if self.fates else Fate()
        lines = [Line(batch_id, custom_id) for custom_id in ids]
        batch = Batch(batch_id, file_id, dict(metadata), self._now(), lines, fate)
        self.batches.append(batch)
        return batch

    def _batch(self, batch_id: str) -> Batch:
        found = next((one for one in self.batches if one.id == batch_id), None)
        if found is None:
            raise StatusError(404)
        return found

    def _public(self, batch: Batch) -> SimpleNamespace:
        answered = [line for line in batch.lines if line.kind]
        failed = sum(line.kind in UNPAID for line in answered)
        status = "cancelling" if batch.cancelling and not batch.over else batch.status
        return SimpleNamespace(
            id=batch.id,
            status=status,
            metadata=dict(batch.metadata),
            created_at=batch.created_at,
            input_file_id=batch.input_file_id,
            output_file_id=batch.output_file_id,
            error_file_id=batch.error_file_id,
            errors=batch.errors,
            request_counts={"total": len(batch.lines), "completed": len(answered) - failed, "failed": failed},
        )


class Client:
    """The SDK-shaped face of a cloud for one worker; `tick` is told before and after every call."""

    base_url = "http://cloud.test/v1"

    def __init__(self, cloud: Cloud, tick: Callable[[str], None]) -> None:
        self._cloud, self._tick = cloud, tick
        self.files = SimpleNamespace(
            create=lambda file, purpose, **_: self._do("upload", _name(file), file.read()),
            delete=lambda file_id: self._do("delete", file_id),
            list=lambda purpose, limit, **_: self._do("list_files", limit),
            content=lambda file_id: self._do("content", file_id),
        )
        self.batches = SimpleNamespace(
            create=lambda input_file_id, metadata, **_: self._do("create", input_file_id, metadata),
            retrieve=lambda batch_id: self._do("retrieve", batch_id),
            list=lambda limit, after=None: self._do("list_batches", after, limit),
            cancel=lambda batch_id: self._do("cancel", batch_id),
        )

    def _do(self, name: str, *arguments: Any) -> Any:
        self._tick(f"before {name}")
        with self._cloud.one_at_a_time:
            answer = getattr(self._cloud, name)(*arguments)
        self._tick(f"after {name}")
        return answer


def _name(file: Any) -> str:
    return str(file.name).rpartition("/")[2]


def _batch_error(code: str) -> dict[str, Any]:
    error: dict[str, Any] = {"code": code, "message": code}
    if code == "token_limit_exceeded":
        error["message"] = "Enqueued token limit reached. Limit: 90000 enqueued tokens."
    if code == "invalid_request":
        error["line"] = 1
    return error


def _output_lines(line: Line) -> bytes:
    text = {"odd_breaks": "one\u2028two\u2029three\x85four\x0bfive\x1cend", "empty": ""}.get(line.kind, "fine")
    whole = _json(line.custom_id, 200, {"output": [_message(text)], "usage": {"input_tokens": 1, "output_tokens": 1}})
    match line.kind:
        case "ok" | "odd_breaks" | "empty":
            return whole
        case "duplicate":
            return whole + whole
        case "stranger":
            return _json("nobody:a1", 200, {"output": [_message("who?")]}) + whole
        case "garbage":
            return whole[: len(whole) // 2] + b"\n"
        case "null_line":
            return b"null\n"
        case _:
            return b""


def _error_line(line: Line, status: str) -> bytes:
    match line.kind:
        case "error_500":
            return _json(line.custom_id, 500, {"error": {"message": "oops", "code": "server_error"}})
        case "error_400":
            return _json(line.custom_id, 400, {"error": {"message": "bad", "code": "invalid_value"}})
        case "quota_row":
            return _json(line.custom_id, 429, {"error": {"message": "no money", "code": "insufficient_quota"}})
        case "" if status in {"expired", "cancelled"}:
            error = {"code": f"batch_{status}", "message": "not executed"}
            return json.dumps({"custom_id": line.custom_id, "response": None, "error": error}).encode() + b"\n"
        case _:
            return b""


def _message(text: str) -> dict[str, Any]:
    return {"type": "message", "content": [{"type": "output_text", "text": text}]}


def _json(custom_id: str, status: int, body: dict[str, Any]) -> bytes:
    record = {"custom_id": custom_id, "response": {"status_code": status, "body": body}, "error": None}
    return json.dumps(record, ensure_ascii=False).encode() + b"\n"
