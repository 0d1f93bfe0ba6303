"""A bar chart as a few hundred characters of SVG, small enough for Dagster to show it inline."""

from __future__ import annotations

import base64
from collections.abc import Mapping

COLOURS = {"critical": "#b3261e", "high": "#e2762b", "normal": "#5b8def", "low": "#8bb7a2"}
BAR, GAP, LEFT, WIDTH = 14, 4, 48, 120


def bars(counts: Mapping[str, int]) -> str:
    """A markdown image of horizontal bars, one for each entry, longest at full width."""
    longest = max(counts.values(), default=0) or 1
    rows = "".join(_bar(index, name, count, longest) for index, (name, count) in enumerate(counts.items()))
    size = f"width='{LEFT + WIDTH + 30}' height='{len(counts) * (BAR + GAP)}'"
    svg = f"<svg xmlns='http://www.w3.org/2000/svg' {size} font-size='10'>{rows}</svg>"
    return f"![bars](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"


def _bar(index: int, name: str, count: int, longest: int) -> str:
    top, width = index * (BAR + GAP), round(WIDTH * count / longest)
    bar = f"<rect x='{LEFT}' y='{top}' width='{width}' height='{BAR}' fill='{COLOURS.get(name, '#888')}'/>"
    return f"<text y='{top + 11}'>{name}</text>{bar}<text x='{LEFT + width + 3}' y='{top + 11}'>{count}</text>"
