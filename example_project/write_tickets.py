"""Write the sample tickets: `python -m example_project.write_tickets`. The same files every time."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from example_project import ticket_texts as texts

DATA_DIR = Path(__file__).parent / "data"
COLUMNS = ("ticket_id", "created_at", "channel", "customer", "subject", "body")
DAYS = {"2026-03-02": 104, "2026-03-03": 96, "2026-03-04": 88, "2026-03-05": 112, "2026-03-06": 100}
LONG_DAY = "2026-03-04"


def main() -> None:
    DATA_DIR.mkdir(exist_ok=True)
    for number, (day, count) in enumerate(DAYS.items()):
        write_day(DATA_DIR / f"{day}.csv", day, number, count)


def write_day(path: Path, day: str, number: int, count: int) -> None:
    chance = random.Random(f"fernlight {day}")
    tickets = [*compose(chance, count), *nasty_of(chance, number, day)]
    chance.shuffle(tickets)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(rows(chance, day, number, tickets))


def compose(chance: random.Random, count: int) -> Iterator[tuple[str, str, str]]:
    """Ordinary tickets: every scenario about equally often, never twice in the same words."""
    deck: list[int] = []
    for _ in range(count):
        deck = deck or chance.sample(range(len(texts.SCENARIOS)), len(texts.SCENARIOS))
        subject, sentences = texts.SCENARIOS[deck.pop()]
        customer = chance.choice(texts.NAMES)
        slots = fill(chance, customer)
        kept = [sentences[0], *(one for one in sentences[1:] if chance.random() < 0.75)]
        opening, closing = chance.choice(texts.OPENINGS), chance.choice(texts.CLOSINGS)
        gap = chance.choice((" ", " ", "\n"))
        body = "\n".join(part for part in (opening, gap.join(kept), closing) if part)
        yield customer, subject.format(**slots), body.format(**slots)


def fill(chance: random.Random, customer: str) -> dict[str, str]:
    return {
        "when": chance.choice(texts.WHEN),
        "room": chance.choice(texts.ROOMS),
        "colour": chance.choice(texts.COLOURS),
        "soon": chance.choice(texts.SOON),
        "since": chance.choice(texts.SINCE),
        "name": customer,
        "minutes": str(chance.randint(3, 55)),
        "count": str(chance.randint(2, 14)),
        "percent": str(chance.randint(12, 96)),
        "error": f"E-{chance.randint(10, 420)}",
        "version": f"{chance.randint(3, 5)}.{chance.randint(0, 9)}.{chance.randint(0, 9)}",
        "order": f"FL-{chance.randint(10_000, 99_999)}",
        "amount": f"{chance.choice((4, 9, 19, 29, 49, 129))}.{chance.choice(('00', '50', '90', '99'))}",
    }


def nasty_of(chance: random.Random, number: int, day: str) -> Iterator[tuple[str, str, str]]:
    picked = [*texts.NASTY[number :: len(DAYS)], *([texts.NASTY[0]] if number else [])]
    if day == LONG_DAY:
        picked.append(("A long story about a lamp", long_story(4_000)))
    for subject, body in picked:
        yield chance.choice(texts.NAMES), subject, body


def long_story(words: int) -> str:
    parts: list[str] = []
    total = 0
    while total < words:
        sentence = texts.LONG_STORY[len(parts) % len(texts.LONG_STORY)]
        parts.append(sentence if len(parts) < len(texts.LONG_STORY) else f"And again, on day {len(parts)}: {sentence}")
        total += len(parts[-1].split())
    return " ".join(parts)


def rows(
    chance: random.Random, day: str, number: int, tickets: list[tuple[str, str, str]]
) -> Iterator[tuple[str, ...]]:
    clock = datetime.fromisoformat(f"{day}T00:04:00+00:00")
    step = timedelta(minutes=23 * 60 / len(tickets))
    for index, (customer, subject, body) in enumerate(tickets):
        stamp = (clock + index * step + timedelta(seconds=chance.randint(0, 400))).isoformat(timespec="seconds")
        yield f"T-{number + 1}{index:04d}", stamp, chance.choice(texts.CHANNELS), customer, subject, body


if __name__ == "__main__":
    main()
