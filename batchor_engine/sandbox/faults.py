"""The script of what goes wrong: which call, batch or line, the how-manieth time, and how.

Law: a fault that does not match changes nothing; one that fires is counted and stays fired after a restart.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast

from .errors import SandboxError
from .store import StateDir
from .values import JSONObject


class FaultKind(StrEnum):
    """Every way in which the sandbox can misbehave."""

    # one HTTP call
    HTTP_ERROR = "http_error"
    LOST_ANSWER = "lost_answer"
    DROP = "drop"
    DELAY = "delay"
    RAW_BODY = "raw_body"
    HTML = "html"
    NOT_VISIBLE = "not_visible"
    BREAK_DOWNLOAD = "break_download"
    # a batch as a whole
    VALIDATION_FAILED = "validation_failed"
    TOKEN_LIMIT_EXCEEDED = "token_limit_exceeded"  # noqa: S105 - the provider's word for a full queue
    BATCH_FAILED = "batch_failed"
    EXPIRE = "expire"
    CANCEL = "cancel"
    STUCK = "stuck"
    ODD_STATUS = "odd_status"
    NULL_FILE_ID = "null_file_id"
    EMPTY_FILE_ID = "empty_file_id"
    EMPTY_ERROR_FILE = "empty_error_file"
    OUTPUT_GONE = "output_gone"
    COUNTS_LIE = "counts_lie"
    NO_USAGE = "no_usage"
    TRUNCATED_LAST_LINE = "truncated_last_line"
    # single lines of the output
    MISSING_LINE = "missing_line"
    DUPLICATE_LINE = "duplicate_line"
    GARBAGE_LINE = "garbage_line"
    NULL_LINE = "null_line"
    NON_OBJECT_LINE = "non_object_line"
    UNKNOWN_ID_LINE = "unknown_id_line"
    STATUS_ZERO = "status_zero"
    STATUS_STRING = "status_string"
    MISSING_RESPONSE = "missing_response"
    NULL_RESPONSE = "null_response"
    BODY_STRING = "body_string"
    LINE_ERROR = "line_error"
    REFUSAL = "refusal"
    INCOMPLETE = "incomplete"
    EMPTY_ANSWER = "empty_answer"
    INVALID_JSON = "invalid_json"
    BREAK_SCHEMA = "break_schema"
    ODD_TEXT = "odd_text"


OPERATIONS = (
    "files.create",
    "files.list",
    "files.retrieve",
    "files.content",
    "files.delete",
    "batches.create",
    "batches.list",
    "batches.retrieve",
    "batches.cancel",
)
_KINDS = list(FaultKind)
CALL_KINDS = frozenset(_KINDS[: _KINDS.index(FaultKind.VALIDATION_FAILED)])
LINE_KINDS = frozenset(_KINDS[_KINDS.index(FaultKind.MISSING_LINE) :])
DEFAULT_OPERATION = {
    FaultKind.LOST_ANSWER: "batches.create",
    FaultKind.NOT_VISIBLE: "batches.create",
    FaultKind.BREAK_DOWNLOAD: "files.content",
}


def _no_metadata() -> dict[str, str]:
    return {}


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong. `on` is an operation, "batch" or "line"; empty means where the kind belongs.

    `nth` and `times` count matching calls or batches from the moment the fault was added; `times=None` is for ever.
    `custom_ids` are globs. A line fault without a selector hits every line of its batches.
    """

    kind: str
    on: str = ""
    nth: int = 1
    times: int | None = 1
    id: str | None = None
    metadata: Mapping[str, str] = field(default_factory=_no_metadata)
    custom_ids: tuple[str, ...] = ()
    lines: tuple[int, ...] = ()
    every: int = 0
    contains: str = ""
    status: int | None = None
    code: str | None = None
    message: str | None = None
    retry_after: float | None = None
    seconds: float = 0.0
    after_work: bool = False
    after_bytes: int = 0
    content_length: bool = True
    clean: bool = False
    body: str = ""
    content_type: str = "application/json"
    at: int = 0
    phase: str = "in_progress"
    word: str = "scheduling"
    which: str = "output"
    limit: int = 90_000
    insert: bool = False

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise SandboxError(f"unknown fault kind {self.kind!r}; known: {', '.join(_KINDS)}")
        object.__setattr__(self, "on", self.on or home_of(FaultKind(self.kind)))
        for name in ("custom_ids", "lines"):
            given: Any = getattr(self, name)
            many: tuple[Any, ...] = (given,) if isinstance(given, str | int) else tuple(given)
            object.__setattr__(self, name, many)
        if self.on not in (*OPERATIONS, "batch", "line", "*"):
            raise SandboxError(f"a fault cannot be on {self.on!r}; use {', '.join(OPERATIONS)}, batch, line or *")
        if (self.kind in CALL_KINDS) != (self.on in (*OPERATIONS, "*")) or (self.kind in LINE_KINDS) != (
            self.on == "line"
        ):
            raise SandboxError(f"a fault of kind {self.kind!r} cannot be on {self.on!r}")

    def to_json(self) -> JSONObject:
        """Only what differs from the defaults, so that a script stays short."""
        whole = {"kind": str(self.kind), "on": self.on}
        plain = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in whole}
        defaults = asdict(Fault(FaultKind.HTTP_ERROR, on="*"))
        return whole | {
            name: list(value) if isinstance(value, tuple) else value  # pyright: ignore[reportUnknownArgumentType]
            for name, value in plain.items()
            if value != defaults[name]
        }

    @classmethod
    def from_json(cls, raw: Any) -> Fault:
        """A fault from a JSON object; an unknown name is refused."""
        if not isinstance(raw, dict):
            raise SandboxError(f"a fault must be a JSON object, not {type(raw).__name__}")
        found = cast(JSONObject, raw)
        unknown = sorted(set(found) - {one.name for one in fields(cls)})
        if unknown or "kind" not in found:
            raise SandboxError(
                f"a fault needs a kind and has no field {unknown[0]!r}" if unknown else "kind is missing"
            )
        try:
            return cls(**found)
        except TypeError as error:
            raise SandboxError(f"a fault of kind {found['kind']!r} has a field of the wrong type: {error}") from error

    def picks(self, line: int, custom_id: str, prompt: str) -> bool:
        """True if this line fault is meant for the line with this number (from 1), id and prompt."""
        if not (self.custom_ids or self.lines or self.every or self.contains):
            return True
        return (
            any(fnmatchcase(custom_id, glob) for glob in self.custom_ids)
            or line in self.lines
            or (self.every > 0 and line % self.every == 0)
            or (self.contains != "" and self.contains in prompt)
        )


def home_of(kind: FaultKind) -> str:
    """Where a kind of fault happens unless it is told otherwise."""
    if kind in CALL_KINDS:
        return DEFAULT_OPERATION.get(kind, "*")
    return "line" if kind in LINE_KINDS else "batch"


def load_faults(path: Path | str) -> list[Fault]:
    """The faults of a JSON file that holds one array of fault objects."""
    try:
        raw: Any = json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise SandboxError(f"the fault script {path} cannot be read: {error}") from error
    return [Fault.from_json(one) for one in cast("list[Any]", raw if isinstance(raw, list) else [raw])]


@dataclass
class _Armed:
    fault: Fault
    seen: dict[str, int]
    fired: int = 0

    def strikes(self, key: str) -> bool:
        count = self.seen[key] = self.seen.get(key, 0) + 1
        last = None if self.fault.times is None else self.fault.nth + self.fault.times - 1
        hit = self.fault.nth <= count and (last is None or count <= last)
        self.fired += hit
        return hit


class FaultBoard:
    """The armed faults of one sandbox, with their counts; safe to use from any thread."""

    def __init__(self, state: StateDir) -> None:
        self._state = state
        stored: list[JSONObject] = json.loads(state.text("faults") or "[]")
        self._armed = [_Armed(Fault.from_json(one["fault"]), one["seen"], one["fired"]) for one in stored]

    def add(self, *faults: Fault | JSONObject) -> None:
        """Arm faults; they count from now on."""
        made = [one if isinstance(one, Fault) else Fault.from_json(one) for one in faults]
        with self._state.lock:
            self._armed += [_Armed(one, {}) for one in made]
            self._save()

    def replace(self, faults: Iterable[Fault]) -> None:
        """Arm these faults instead of all others."""
        with self._state.lock:
            self.clear()
            self.add(*faults)

    def clear(self) -> None:
        """Disarm everything; batches that already carry a fault keep it."""
        with self._state.lock:
            self._armed = []
            self._save()

    def listing(self) -> list[JSONObject]:
        """Every armed fault and how often it has fired."""
        with self._state.lock:
            return [{**one.fault.to_json(), "fired": one.fired} for one in self._armed]

    def for_call(self, operation: str, target: str | None, metadata: Mapping[str, str] | None) -> list[Fault]:
        """The faults that fire in this call."""
        with self._state.lock:
            hits = [
                one.fault
                for one in self._armed
                if one.fault.on in (operation, "*")
                and _matches(one.fault, target, metadata)
                and one.strikes(target or "" if one.fault.kind == FaultKind.NOT_VISIBLE else "")
            ]
            return self._saved(hits)

    def for_batch(self, batch_id: str, metadata: Mapping[str, str] | None) -> list[Fault]:
        """The batch-wide faults that this new batch carries from now on."""
        with self._state.lock:
            hits = [
                one.fault
                for one in self._armed
                if one.fault.on == "batch" and _matches(one.fault, batch_id, metadata) and one.strikes("")
            ]
            return self._saved(hits)

    def line_candidates(self, batch_id: str, metadata: Mapping[str, str] | None) -> list[Fault]:
        """The line faults that may concern this batch; nothing is counted yet."""
        with self._state.lock:
            return [
                one.fault for one in self._armed if one.fault.on == "line" and _matches(one.fault, batch_id, metadata)
            ]

    def strike_lines(self, candidates: Iterable[Fault]) -> list[Fault]:
        """Count one batch for each of these line faults and return those that fire in it."""
        wanted = list(candidates)
        with self._state.lock:
            hits = [one.fault for one in self._armed if one.fault in wanted and one.strikes("")]
            return self._saved(hits)

    def _saved(self, hits: list[Fault]) -> list[Fault]:
        if self._armed:
            self._save()
        return hits

    def _save(self) -> None:
        plain = [{"fault": one.fault.to_json(), "seen": one.seen, "fired": one.fired} for one in self._armed]
        self._state.remember("faults", json.dumps(plain))


def _matches(fault: Fault, target: str | None, metadata: Mapping[str, str] | None) -> bool:
    if fault.id is not None and fault.id != target:
        return False
    return all((metadata or {}).get(key) == value for key, value in fault.metadata.items())


def first(faults: Iterable[Fault], *kinds: FaultKind) -> Fault | None:
    """The first fault of one of these kinds."""
    return next((one for one in faults if one.kind in kinds), None)
