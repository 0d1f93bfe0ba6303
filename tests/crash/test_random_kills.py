"""A short torture in the default suite; the long one is `python -m tests.crash.long`."""

from __future__ import annotations

from pathlib import Path

import pytest

from .torture import Torture, new_sandbox


@pytest.mark.slow
@pytest.mark.every_store
def test_ten_kills_in_random_moments_lose_nothing_and_pay_nothing_twice(
    tmp_path: Path, store_url: str, artifacts_url: str
) -> None:
    with new_sandbox() as sandbox:
        torture = Torture(sandbox, tmp_path, seed=7, rows=80, store=store_url, artifacts=artifacts_url)
        torture.go(10, all_points=False)
        assert torture.problems() == []
        assert torture.report()["rows out"] == torture.report()["rows in"]
