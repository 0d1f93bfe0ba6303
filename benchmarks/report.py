"""What was measured, as tables for a terminal and as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.walk import COMPARED, Walk

NAIVE = "naive script"


def tables(walks: Sequence[Walk], looks: dict[str, Any], console: Console) -> None:
    for rows in sorted({one.rows for one in walks}):
        chosen = [one for one in walks if one.rows == rows]
        console.print(_times(chosen, rows))
        console.print(_memory(chosen, rows))
    console.print(_looks(walks))
    poll, tick = looks["poll"], looks["tick"]
    console.print(f"One poll of {poll['batches']:,} active batches: {poll['calls']} calls ({poll['allowed']} allowed).")
    console.print(
        f"One sensor tick over {tick['runs']:,} runs in flight: {tick['first_sec']:.2f} s at first, "
        f"{tick['later_sec']:.2f} s then."
    )
    console.print(f"import batchor_engine: {looks['import_sec']:.2f} s.")


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title)
    for at, name in enumerate(columns):
        table.add_column(name, justify="right" if at else "left")
    return table


def _times(walks: Sequence[Walk], rows: int) -> Table:
    title = f"{rows:,} rows: seconds on the clock (of which CPU)"
    table = _table(title, "way", *COMPARED, "together", "ratio", "CPU ratio", "server's CPU")
    floor = next((one for one in walks if one.way == NAIVE), None)
    for one in walks:
        spans = [f"{one.phases[name].wall_sec:.1f} ({one.phases[name].cpu_sec:.1f})" for name in COMPARED]
        ratios = (
            ["", ""] if floor is None else [f"{one.total(w) / floor.total(w):.2f}" for w in ("wall_sec", "cpu_sec")]
        )
        table.add_row(one.way, *spans, f"{one.total():.1f}", *ratios, f"{one.server_cpu_sec:.1f}")
    return table


def _memory(walks: Sequence[Walk], rows: int) -> Table:
    names = list(dict.fromkeys(name for one in walks for name in one.phases))
    table = _table(f"{rows:,} rows: peak memory, MB", "way", *names)
    for one in walks:
        table.add_row(one.way, *(f"{one.phases[name].peak_mib:.0f}" if name in one.phases else "" for name in names))
    return table


def _looks(walks: Sequence[Walk]) -> Table:
    ours = [one for one in walks if "look" in one.phases]
    places = list(dict.fromkeys(name for one in ours for name in one.stored))
    headings = [f"{name}, bytes a row" for name in places]
    table = _table("While all is at the provider, and what is stored", "way", "rows", "summary", "refresh", *headings)
    for one in ours:
        made = one.phases["look"].made
        looked = (f"{made['summary_ms']:.2f} ms", f"{made['refresh_ms']:.1f} ms")
        table.add_row(one.way, f"{one.rows:,}", *looked, *(f"{one.stored.get(name, 0):.0f}" for name in places))
    return table


def picture(walks: Sequence[Walk], path: Path) -> None:
    """Seconds by number of rows, both logarithmic: a line that rises as fast as the grey one is linear."""
    # Without a display; and imported here, because only `python -m benchmarks` has it.
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4))
    FigureCanvasSVG(figure)
    times, memory = figure.subplots(1, 2)
    for way in dict.fromkeys(one.way for one in walks):
        found = sorted((one for one in walks if one.way == way), key=lambda one: one.rows)
        rows = [one.rows for one in found]
        times.plot(rows, [one.total() for one in found], marker="o", label=way)
        memory.plot(rows, [max(one.phases[p].peak_mib for p in COMPARED) for one in found], marker="o", label=way)
    for axes, what in ((times, "seconds, all phases"), (memory, "MB, the phase that holds most")):
        axes.set(xlabel="rows", ylabel=what, xscale="log")
        axes.grid(alpha=0.3)
    times.set(yscale="log")
    times.legend()
    figure.tight_layout()
    figure.savefig(path)


def soak_picture(lines: Sequence[dict[str, float]], path: Path) -> None:
    """What must stay flat, each by the number of runs that were before."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3))
    FigureCanvasSVG(figure)
    shown = ("ms_a_run", "cpu_ms_a_run", "rss_mib", "open_files")
    for axes, name in zip(figure.subplots(1, len(shown)), shown, strict=True):
        axes.plot([one["runs"] for one in lines], [one[name] for one in lines], marker="o")
        axes.set(title=name.replace("_", " "), xlabel="runs", ylim=(0, max(one[name] for one in lines) * 1.2))
        axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path)
