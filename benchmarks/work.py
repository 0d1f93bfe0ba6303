"""The rows, the prompt and the model that both ways share."""

from __future__ import annotations

import csv
import random
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

MODEL = "gpt-5-mini"
WORDS = (
    "the",
    "lamp",
    "in",
    "our",
    "hall",
    "stays",
    "dark",
    "since",
    "monday",
    "although",
    "we",
    "changed",
    "its",
    "bulb",
)
T = TypeVar("T")


class Facts(BaseModel):
    product: str
    urgency: int
    words: list[str]
    reason: str | None


def prompt_of(row: dict[str, Any]) -> str:
    return f"Sort this ticket.\n{row['body']}"


def write_rows(path: Path, count: int) -> None:
    draw = random.Random(7)
    with path.open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["ticket_id", "body"])
        rows.writerows([f"t-{at}", " ".join(draw.choices(WORDS, k=60))] for at in range(count))


class Phases:
    """Seconds by name, in the order in which they passed."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def run(self, name: str, act: Callable[[], T]) -> T:
        began = time.perf_counter()
        made = act()
        self.seconds[name] = time.perf_counter() - began
        return made


def peak_mib() -> float:
    """Most memory this process ever held; the unit of the kernel's number depends on the system."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
