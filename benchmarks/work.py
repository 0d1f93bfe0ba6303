"""What every way shares: the rows, the prompt, the model, and how a phase is measured."""

from __future__ import annotations

import csv
import random
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

MODEL = "gpt-5-mini"
LINES_A_FILE = 50_000
# The folder, within that of a large run, of the small run that it is compared with.
BESIDE = "beside"
_WORDS = ("the", "lamp", "in", "our", "hall", "stays", "dark", "since", "monday", "although", "we", "“twice”", "für")


class Facts(BaseModel):
    """What a ticket says."""

    product: str
    urgency: int
    words: list[str]
    reason: str | None


# What the engine makes of the model too; written here so that a script without the engine need not import it.
_SCHEMA = {**Facts.model_json_schema(), "additionalProperties": False}
TEXT_FORMAT = {"format": {"type": "json_schema", "name": "facts", "strict": True, "schema": _SCHEMA}}


def prompt_of(row: dict[str, Any]) -> str:
    return f"Sort this ticket.\n{row['body']}"


def write_rows(path: Path, count: int) -> None:
    draw = random.Random(7)
    with path.open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["ticket_id", "body"])
        rows.writerows([f"t-{at}", " ".join(draw.choices(_WORDS, k=60))] for at in range(count))


@dataclass(frozen=True)
class Measured:
    """One process: seconds on the clock and of its own CPU, imports included; the most memory it held; what it made."""

    wall_sec: float
    cpu_sec: float
    peak_mib: float
    made: dict[str, Any]


def peak_mib() -> float:
    """Most memory this process held since it began, in MiB.

    Not getrusage() on Linux: its peak begins with what the parent held when it started this process.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (one for one in status.read_text().splitlines() if one.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
