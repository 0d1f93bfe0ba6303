"""Dagster's own processes around a shop's store and instance, killed with all that they started."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.on_dagster.actor import FOLDER_VARIABLE, URL_VARIABLE
from tests.on_dagster.shop import Shop

ROOT = Path(__file__).parents[2]


@contextmanager
def running(shop: Shop, program: str, *arguments: str, log: str, **told: str) -> Iterator[None]:
    """A program of Dagster's, with `told` in its environment and what it says in the shop's folder."""
    command = [str(Path(sys.executable).parent / program), *arguments]
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(shop.instance.root_directory),
        "PYTHONPATH": str(ROOT),
        URL_VARIABLE: shop.sandbox.base_url,
        FOLDER_VARIABLE: str(shop.folder),
        **told,
    }
    with (shop.folder / log).open("ab") as stream:
        leader = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=stream, stderr=stream)
    try:
        yield
    finally:
        family = [psutil.Process(leader.pid), *psutil.Process(leader.pid).children(recursive=True)]
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        leader.wait(30)
