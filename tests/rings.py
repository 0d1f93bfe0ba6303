"""Rings of tests that need something of the machine: `make test` names those that did not run, CI fails for most.

Law: a ring that did not run is never silent.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

import pytest

OPTION = "--all-rings"
_MARK = "ring could not run: "


def cannot_run(config: pytest.Config, ring: str, why: str) -> NoReturn:
    """Skip the test with the ring's name and the reason; fail it where all rings must run."""
    if config.getoption(OPTION):
        pytest.fail(f"{ring} {_MARK}{why}", pytrace=False)
    skip(ring, why)


def skip(ring: str, why: str) -> NoReturn:
    """Skip the test with the ring's name and the reason, also where all rings must run."""
    pytest.skip(f"{ring} {_MARK}{why}")


def not_run(reports: Iterable[pytest.TestReport]) -> list[str]:
    """One line for each ring that was left out."""
    reasons = {str(one.longrepr[2]) for one in reports if isinstance(one.longrepr, tuple)}
    return sorted(text.removeprefix("Skipped: ") for text in reasons if _MARK in text)
