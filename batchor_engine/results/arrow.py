"""pyarrow behind one door: imported on first use, untyped because it ships no stubs.

Law: nothing else in this package imports pyarrow, so that reading a text result never pays for it twice.
"""

from __future__ import annotations

from typing import Any, TypeAlias

ArrowSchema: TypeAlias = Any
ArrowTable: TypeAlias = Any
ArrowBatch: TypeAlias = Any
ArrowType: TypeAlias = Any
ArrowArray: TypeAlias = Any


def pyarrow() -> Any:
    """The pyarrow module."""
    import pyarrow as module  # pyright: ignore[reportMissingTypeStubs]

    return module


def parquet() -> Any:
    """The pyarrow.parquet module."""
    import pyarrow.parquet as module  # pyright: ignore[reportMissingTypeStubs]

    return module


def compute() -> Any:
    """The pyarrow.compute module."""
    import pyarrow.compute as module  # pyright: ignore[reportMissingTypeStubs]

    return module
