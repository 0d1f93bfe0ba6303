"""Applies each mutant to a copy of the tree and runs the tests that must notice: `python -m tests.mutants [name part]`.

Law: a mutant dies by a failing assertion or a run that does not end; one that cannot be applied, or that breaks the
import, proves nothing and fails the command, as does a survivor.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .mutants import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
COPIED = ("batchor_engine", "tests", "pyproject.toml")
# Far above what any killer takes on the untouched tree; a retry without an end is noticed by this.
TIMEOUT_SEC = 120
TESTS_FAILED = 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("part", nargs="?", default="", help="only mutants whose name contains this")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    chosen = [one for one in MUTANTS if options.part in one.name]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="batchor-mutants-") as folder, ThreadPoolExecutor(options.jobs) as pool:
        trees = _Trees(Path(folder))
        broken = _not_applicable(chosen) or _not_green(trees, pool, chosen)
        if broken:
            print("\n".join(broken))
            return 1
        survivors = 0
        for one, verdict in zip(chosen, pool.map(lambda one: _try(trees, one), chosen), strict=True):
            survivors += not verdict.startswith("killed")
            print(f"law {one.law:2}  {one.name:<50} {verdict}", flush=True)
    print(f"{len(chosen)} mutants, {survivors} not killed, {time.monotonic() - began:.0f} s")
    return 1 if survivors else 0


class _Trees:
    """A copy of the tree for each thread; the engine in it is replaced for every mutant."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._local = threading.local()

    def mine(self) -> Path:
        if not hasattr(self._local, "tree"):
            self._local.tree = Path(tempfile.mkdtemp(dir=self._folder))
            for name in COPIED:
                _copy(ROOT / name, self._local.tree / name)
        return self._local.tree


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", ".hypothesis"))
    else:
        shutil.copy(source, target)


def _not_applicable(chosen: Iterable[Mutant]) -> list[str]:
    counts = {one.name: (ROOT / one.file).read_text("utf-8").count(one.old) for one in chosen}
    return [f"{name}: its text stands {count} times in the source" for name, count in counts.items() if count != 1]


def _not_green(trees: _Trees, pool: ThreadPoolExecutor, chosen: Iterable[Mutant]) -> list[str]:
    """Killers that fail on the untouched tree would kill anything."""
    killers = sorted({killer for one in chosen for killer in one.killers})
    ran = pool.map(lambda killer: _run(trees.mine(), (killer,)), killers)
    return [
        f"{killer} does not pass on the untouched tree:\n{output}"
        for killer, (code, output) in zip(killers, ran, strict=True)
        if code != 0
    ]


def _try(trees: _Trees, one: Mutant) -> str:
    tree = trees.mine()
    path = tree / one.file
    whole = path.read_text("utf-8")
    path.write_text(whole.replace(one.old, one.new), "utf-8")
    began = time.monotonic()
    try:
        code, output = _run(tree, one.killers)
    finally:
        path.write_text(whole, "utf-8")
    took = f"{time.monotonic() - began:.0f} s"
    if code is None:
        return f"killed: no end within {TIMEOUT_SEC} s"
    if code == TESTS_FAILED:
        return f"killed in {took} by {_killer(output)}"
    return f"SURVIVED {took}" if code == 0 else f"BROKEN (pytest says {code})\n{output}"


def _killer(output: str) -> str:
    failed = [line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return failed[0].partition("::")[2].partition(" - ")[0] if failed else "?"


def _run(tree: Path, tests: tuple[str, ...]) -> tuple[int | None, str]:
    # Bytecode is checked by time in whole seconds; two mutants of one file may be closer than that.
    command = [sys.executable, "-B", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--tb=line", *tests]
    process = subprocess.Popen(
        command, cwd=tree, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        output, _ = process.communicate(timeout=TIMEOUT_SEC)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        return None, output
    return process.returncode, "\n".join(output.splitlines()[-15:])


if __name__ == "__main__":
    sys.exit(main())
