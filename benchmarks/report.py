"""What was measured, as tables for a terminal and as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.budgets import NAIVE, Line, Round
from benchmarks.growth import Growth
from benchmarks.walk import COMPARED, Walk


def tables(rounds: Sequence[Round], lines: Sequence[Line], fits: Sequence[Growth], console: Console) -> None:
    for number, one in enumerate(rounds, 1):
        title = f"round {number} of {len(rounds)}, " if len(rounds) > 1 else ""
        for rows in sorted({walk.rows for walk in one.walks}):
            chosen = [walk for walk in one.walks if walk.rows == rows]
            console.print(_times(chosen, f"{title}{rows:,} rows"))
            console.print(_memory(chosen, f"{title}{rows:,} rows"))
        console.print(_looks(one.walks))
        poll, tick = one.looks["poll"], one.looks["tick"]
        console.print(
            f"One poll of {poll['batches']:,} active batches: {poll['calls']} calls ({poll['allowed']} allowed). One "
            f"sensor tick over {tick['runs']:,} runs in flight: {tick['first_sec']:.2f} s at first, "
            f"{tick['later_sec']:.2f} s then. Import: {one.looks['import']['cpu_sec']:.2f} s of CPU."
        )
    console.print(_budgets(lines, len(rounds)))
    if fits:
        console.print(_growth(fits))


def _budgets(lines: Sequence[Line], rounds: int) -> Table:
    table = _table("Budgets", "what", *(f"round {number}" for number in range(1, rounds + 1)), "spread", "most", "kept")
    for line in lines:
        measured = ["-" if one is None else f"{one:.3g}" for one in line.measured]
        spread = "" if line.spread is None else f"{line.spread:.0%}"
        kept = {None: "", True: "yes", False: "NO"}[line.kept]
        table.add_row(line.what, *measured, spread, "" if line.most is None else f"{line.most:g}", kept)
    return table


def _growth(fits: Sequence[Growth]) -> Table:
    table = _table("Growth of submit, collect and read together", "what", "sizes", "fixed", "a row", "R²", "exponent")
    for fit in fits:
        sizes = ", ".join(f"{size:,}" for size in fit.rows)
        table.add_row(
            f"{fit.way}, {fit.what}", sizes, f"{fit.fixed_sec:.1f} s", f"{fit.row_us:.0f} µs", f"{fit.r_squared:.5f}",
            f"{fit.exponent:.2f}",
        )  # fmt: skip
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title)
    for at, name in enumerate(columns):
        table.add_column(name, justify="right" if at else "left")
    return table


def _times(walks: Sequence[Walk], title: str) -> Table:
    table = _table(
        f"{title}: seconds on the clock (of which CPU)",
        "way",
        *COMPARED,
        "together",
        "ratio",
        "CPU ratio",
        "server's CPU",
    )
    floor = next((one for one in walks if one.way == NAIVE), None)
    for one in walks:
        spans = [f"{one.phases[name].wall_sec:.1f} ({one.phases[name].cpu_sec:.1f})" for name in COMPARED]
        ratios = (
            ["", ""] if floor is None else [f"{one.total(w) / floor.total(w):.2f}" for w in ("wall_sec", "cpu_sec")]
        )
        table.add_row(one.way, *spans, f"{one.total():.1f}", *ratios, f"{one.server_cpu_sec:.1f}")
    return table


def _memory(walks: Sequence[Walk], title: str) -> Table:
    names = list(dict.fromkeys(name for one in walks for name in one.phases))
    table = _table(f"{title}: peak memory, MB", "way", *names)
    for one in walks:
        table.add_row(one.way, *(f"{one.phases[name].peak_mib:.0f}" if name in one.phases else "" for name in names))
    return table


def _looks(walks: Sequence[Walk]) -> Table:
    ours = [one for one in walks if "look" in one.phases]
    places = list(dict.fromkeys(name for one in ours for name in one.stored))
    headings = [f"{name}, bytes a row" for name in places]
    table = _table(
        "While all is at the provider, and what is stored",
        "way",
        "rows",
        "summary",
        "refresh",
        "without calls",
        *headings,
    )
    for one in ours:
        made = one.phases["look"].made
        looked = (f"{made[name]:.2f} ms" for name in ("summary_ms", "refresh_ms", "own_refresh_ms"))
        table.add_row(one.way, f"{one.rows:,}", *looked, *(f"{one.stored.get(name, 0):.0f}" for name in places))
    return table


def picture(walks: Sequence[Walk], fits: Sequence[Growth], path: Path) -> None:
    """Seconds and memory by number of rows; the dashed lines are the linear fits."""
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
    for fit in fits:
        label = f"{fit.fixed_sec:.1f} s + {fit.row_us:.0f} µs a row ({fit.what}, R² {fit.r_squared:.4f})"
        line = [fit.fixed_sec + fit.row_us * rows / 1e6 for rows in fit.rows]
        times.plot(fit.rows, line, linestyle="--", color="grey", label=label)
    for axes, what in ((times, "seconds, all phases"), (memory, "MB, the phase that holds most")):
        axes.set(xlabel="rows", ylabel=what, xscale="log")
        axes.grid(alpha=0.3)
    times.set(yscale="log")
    times.legend(fontsize="small")
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
