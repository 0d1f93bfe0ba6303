"""The list of mutants keeps up with the source: one that cannot be applied, or breaks by a name, proves nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .mutants.mutants import MUTANTS, Mutant

ROOT = Path(__file__).parents[1]
# Syntax errors and names that are not there.
CHECK = (sys.executable, "-m", "ruff", "check", "--isolated", "--quiet", "--select", "E9,F821", "-")


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: one.name)
def test_a_mutant_changes_one_place_and_names_what_is_there(mutant: Mutant) -> None:
    whole = (ROOT / mutant.file).read_text("utf-8")
    assert whole.count(mutant.old) == 1
    checked = subprocess.run(
        CHECK, input=whole.replace(mutant.old, mutant.new), capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
