"""Small pictures for metadata: SVG in a markdown image, which Dagster's pages show.

Law: a picture stays under the length up to which Dagster shows markdown in place instead of behind a button; it needs
no network, and both the light and the dark page can be read.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

import dagster as dg

# Dagster's pages put longer markdown behind a button.
INLINE_CHARS = 1_000

# Three digits each, because every character counts.
GOOD, UNREAD, WAITING, TEXT = "#395", "#58e", "#bbc", "#888"
BAD = ("#c43", "#e82", "#86c", "#a74", "#567")
_WIDTH, _BAR, _LINE = 320, 14, 14
_NAME_CHARS = 34

Part = tuple[str, int, str]


def outcome_plot(completed: int, failures: Sequence[tuple[str, int]]) -> dg.MarkdownMetadataValue | None:
    """One bar: completed rows, then failed ones by class, the rarest of many together; None without rows."""
    if completed + sum(rows for _, rows in failures) == 0:
        return None
    for shown in range(min(len(failures), len(BAD)), -1, -1):
        rest = sum(rows for _, rows in failures[shown:])
        parts = [("completed", completed, GOOD)]
        parts += [(name, rows, colour) for (name, rows), colour in zip(failures[:shown], BAD, strict=False)]
        parts += [("other failures" if shown else "failed", rest, BAD[-1])] if rest else []
        made = picture("outcomes", parts)
        if len(made) < INLINE_CHARS:
            return dg.MetadataValue.md(made)
    raise AssertionError("two bars always fit")


def progress_plot(completed: int, failed: int, answered: int, rows: int) -> dg.MarkdownMetadataValue | None:
    """One bar: completed, failed, answered at the provider but not yet read, and open rows; None without rows."""
    if rows == 0:
        return None
    unread = max(0, answered - completed - failed)
    parts = [("completed", completed, GOOD), ("failed", failed, BAD[0]), ("answered", unread, UNREAD)]
    return dg.MetadataValue.md(picture("progress", [*parts, ("open", rows - completed - failed - unread, WAITING)]))


def picture(alt: str, parts: Sequence[Part]) -> str:
    """A stacked bar of (name, rows, colour) with a legend line for each part that has rows, as a markdown image."""
    seen = [part for part in parts if part[1]]
    total = sum(rows for _, rows, _ in seen)
    bars, left = "", 0
    for (_, _, colour), width in zip(seen, _widths([rows for _, rows, _ in seen]), strict=True):
        bars += f"<path d='M{left} {_BAR // 2}h{width}' stroke='{colour}'/>"
        left += width
    legend = "".join(
        f"<tspan x='0' dy='{_LINE}' fill='{colour}'>■</tspan> {_label(name, rows, total)}"
        for name, rows, colour in seen
    )
    size = f"width='{_WIDTH}' height='{_BAR + _LINE * len(seen) + 4}'"
    text = f"<text y='{_BAR}' fill='{TEXT}' font-family='sans-serif' font-size='11'>{legend}</text>"
    svg = f"<svg xmlns='http://www.w3.org/2000/svg' {size}><g stroke-width='{_BAR}'>{bars}</g>{text}</svg>"
    return f"![{alt}](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"


def _widths(counts: Sequence[int]) -> list[int]:
    """Pixels for each count: a few rows among a million are still seen, and the sum is the whole width."""
    total = sum(counts)
    widths = [max(2, round(_WIDTH * count / total)) for count in counts]
    widths[widths.index(max(widths))] += _WIDTH - sum(widths)
    return widths


def _label(name: str, rows: int, total: int) -> str:
    short = name if len(name) <= _NAME_CHARS else name[: _NAME_CHARS - 1] + "…"
    return escape(f"{short} {rows:,} ({100 * rows / total:.1f}%)")
