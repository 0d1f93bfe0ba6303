"""docs/metadata.md has a line for every key."""

from __future__ import annotations

from pathlib import Path

from batchor_dagster.metadata import described

PAGE = Path(__file__).parents[2] / "docs" / "metadata.md"


def test_the_page_lists_the_keys_as_the_code_has_them() -> None:
    assert f"-->\n{described()}\n<!-- end of keys" in PAGE.read_text(), (
        "run: python -m batchor_dagster.metadata docs/metadata.md"
    )
