"""Reads a batch's input file once and says whether the provider would run it; writes the order of its lines.

Law: at most one line and the set of custom ids are held in memory.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from pydantic_core import from_json

from .bodies import inputs_of
from .checks import PARAMETERS
from .config import SandboxConfig
from .faults import Fault
from .responder import prompt_tokens
from .text import as_object, read_request
from .values import JSONObject

LINE_KEYS = ("custom_id", "method", "url", "body")


@dataclass
class Report:
    """What validation found: line errors, and the facts of a good file."""

    errors: list[JSONObject] = field(default_factory=lambda: [])
    offsets: array[int] = field(default_factory=lambda: array("Q"))
    model: str | None = None
    # Where the lines decide, as on Azure.
    endpoint: str | None = None
    tokens: int = 0
    inputs: int = 0
    struck: list[Fault] = field(default_factory=lambda: [])

    def complain(self, code: str, message: str, line: int | None = None, param: str | None = None) -> None:
        """Note one error; `line` counts from 1."""
        self.errors.append({"code": code, "message": message, "param": param, "line": line})


def validate(path: Path, endpoint: str, config: SandboxConfig, line_faults: Sequence[Fault]) -> Report:
    """Check every line of an input file; reading stops when enough errors are known."""
    report = Report()
    seen: set[str] = set()
    number = 0
    for number, offset, raw in read_lines(path):
        if number > config.max_lines:
            message = f"The batch contains more than the maximum of {config.max_lines:,} requests."
            report.errors = []
            report.complain("too_many_tasks", message)
            return report
        report.offsets.append(offset)
        request = _check_line(report, raw, number, report.endpoint or endpoint, config, seen)
        if request is not None:
            _count(report, request, number, report.endpoint or endpoint, config, line_faults)
        if len(report.errors) >= config.max_validation_errors:
            return report
    if number == 0:
        report.complain("empty_file", "The input file is empty. Please ensure that the batch contains requests.")
    if endpoint == "/v1/embeddings" and report.inputs > config.max_embedding_inputs:
        message = f"The batch contains more than the maximum of {config.max_embedding_inputs:,} embedding inputs."
        report.complain("too_many_inputs", message)
    if path.stat().st_size > config.max_file_bytes:
        report.complain("file_too_large", f"The input file is larger than {config.max_file_bytes:,} bytes.")
    return report


def read_lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Number (from 1), offset and bytes of each line; blank lines at the very end are no lines."""
    offset = 0
    blank: list[tuple[int, int, bytes]] = []
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if raw.strip():
                yield from blank
                blank.clear()
                yield number, offset, raw
            elif len(blank) < 1000:
                blank.append((number, offset, raw))
            offset += len(raw)


def _check_line(
    report: Report, raw: bytes, number: int, endpoint: str, config: SandboxConfig, seen: set[str]
) -> JSONObject | None:
    try:
        line: Any = from_json(raw, allow_inf_nan=False)
    except ValueError:
        report.complain("invalid_json_line", "This line is not parseable as valid JSON.", number)
        return None
    if not isinstance(line, dict):
        report.complain("invalid_json_line", "This line is not a JSON object.", number)
        return None
    found = as_object(line)
    before = len(report.errors)
    for key in LINE_KEYS:
        if key not in found:
            report.complain("missing_required_parameter", f"Missing required parameter: '{key}'.", number, key)
    for key in found:
        if key not in LINE_KEYS:
            report.complain("unknown_parameter", f"Unknown parameter: '{key}'.", number, key)
    if len(report.errors) == before:
        _check_id(report, found["custom_id"], number, seen)
        if config.azure:
            _take_endpoint(report, found)
        _check_target(report, found, number, report.endpoint or endpoint)
        _check_model(report, found["body"], number, config)
    return found if len(report.errors) == before else None


def _check_id(report: Report, custom_id: Any, number: int, seen: set[str]) -> None:
    if not isinstance(custom_id, str) or custom_id == "":
        report.complain("invalid_custom_id", "The custom_id must be a non-empty string.", number, "custom_id")
    elif custom_id in seen:
        message = f"The custom_id '{custom_id}' for this request is a duplicate of another request in the same batch."
        report.complain("duplicate_custom_id", message, number, "custom_id")
    else:
        seen.add(custom_id)


def _take_endpoint(report: Report, line: JSONObject) -> None:
    """The first line says for all which API answers; a path may come with a version or without."""
    url = line["url"]
    if isinstance(url, str) and not url.startswith("/v1"):
        line["url"] = url = f"/v1{url}"
    if report.endpoint is None and url in PARAMETERS:
        report.endpoint = url


def _check_target(report: Report, line: JSONObject, number: int, endpoint: str) -> None:
    if line["method"] != "POST":
        report.complain("invalid_method", "The method must be POST.", number, "method")
    if line["url"] != endpoint:
        known = isinstance(line["url"], str) and line["url"] in PARAMETERS
        code = "mismatched_url" if known else "invalid_url"
        message = f"The URL provided for this request does not match the batch endpoint '{endpoint}'."
        report.complain(code, message, number, "url")


def _check_model(report: Report, body: Any, number: int, config: SandboxConfig) -> None:
    if not isinstance(body, dict):
        report.complain("invalid_request", "The body must be a JSON object.", number, "body")
        return
    model = as_object(body).get("model")
    if not isinstance(model, str) or model == "":
        report.complain("missing_required_parameter", "Missing required parameter: 'model'.", number, "body.model")
    elif config.models and model not in config.models:
        report.complain("model_not_found", f"The provided model '{model}' is not supported.", number, "body.model")
    elif report.model is not None and model != report.model:
        message = f"The model '{model}' does not match '{report.model}': a batch holds requests for one model only."
        report.complain("mismatched_model", message, number, "body.model")
    else:
        report.model = model


def _count(
    report: Report, line: JSONObject, number: int, endpoint: str, config: SandboxConfig, faults: Sequence[Fault]
) -> None:
    request = read_request(line["custom_id"], endpoint, line["body"])
    report.tokens += prompt_tokens(request, config.chars_per_token)
    report.inputs += len(inputs_of(request.body))
    for fault in faults:
        if fault not in report.struck and fault.picks(number, request.custom_id, request.prompt):
            report.struck.append(fault)


def write_order(path: Path, offsets: array[int], shuffle_key: str | None) -> None:
    """Store pairs (line number, offset) in the order in which the lines will be answered."""
    numbers = list(range(len(offsets)))
    if shuffle_key is not None:
        Random(shuffle_key).shuffle(numbers)  # noqa: S311 - an order, not cryptography
    pairs = array("Q")
    for at in numbers:
        pairs.append(at + 1)
        pairs.append(offsets[at])
    aside = path.with_suffix(".part")
    with aside.open("wb") as file:
        pairs.tofile(file)
    aside.replace(path)


def read_order(path: Path, start: int, stop: int) -> list[tuple[int, int]]:
    """The (line number, offset) pairs from place `start` up to `stop`."""
    pairs = array("Q")
    with path.open("rb") as file:
        file.seek(start * 16)
        pairs.frombytes(file.read((stop - start) * 16))
    return list(zip(pairs[::2], pairs[1::2], strict=True))
