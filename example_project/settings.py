"""Where the example keeps its things and whom it asks; every variable is optional."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_HOME = ROOT / ".demo"
DEFAULT_DATA = Path(__file__).resolve().parent / "data"
DEFAULT_SANDBOX_PORT = 8321

HOME_VARIABLE = "BATCHOR_EXAMPLE_HOME"
DATA_VARIABLE = "BATCHOR_EXAMPLE_DATA"
BASE_URL_VARIABLE = "BATCHOR_EXAMPLE_BASE_URL"
INTERVAL_VARIABLE = "BATCHOR_EXAMPLE_INTERVAL_SEC"
MODEL_VARIABLE = "BATCHOR_EXAMPLE_MODEL"
# For many machines: a PostgreSQL URL, an object-store URL, and "multiprocess" for a process for each step.
STORE_VARIABLE = "BATCHOR_EXAMPLE_STORE_URL"
ARTIFACTS_VARIABLE = "BATCHOR_EXAMPLE_ARTIFACTS_URL"
EXECUTOR_VARIABLE = "BATCHOR_EXAMPLE_EXECUTOR"
EXECUTORS = ("in_process", "multiprocess")


def home() -> Path:
    """The folder that holds the runs, the sandbox's state and, in the demo, Dagster's own home."""
    return Path(os.environ.get(HOME_VARIABLE) or DEFAULT_HOME).resolve()


def data_dir() -> Path:
    return Path(os.environ.get(DATA_VARIABLE) or DEFAULT_DATA).resolve()


def store_url(place: Path) -> str:
    return os.environ.get(STORE_VARIABLE) or f"sqlite:///{place / 'runs.sqlite3'}"


def artifacts_url(place: Path) -> str:
    return os.environ.get(ARTIFACTS_VARIABLE) or str(place / "artifacts")


def executor() -> str:
    """Who runs the steps of a Dagster run; ValueError for a name that is not in EXECUTORS."""
    name = os.environ.get(EXECUTOR_VARIABLE) or EXECUTORS[0]
    if name not in EXECUTORS:
        raise ValueError(f"{EXECUTOR_VARIABLE} is {name!r}: choose one of {', '.join(EXECUTORS)}")
    return name


def sandbox_port_file(place: Path) -> Path:
    return place / "sandbox.port"


def base_url() -> str:
    """The server named by the environment, else the sandbox on the port that it wrote down."""
    named = os.environ.get(BASE_URL_VARIABLE)
    if named:
        return named
    file = sandbox_port_file(home())
    text = file.read_text().strip() if file.is_file() else ""
    return f"http://127.0.0.1:{text if text.isdigit() else DEFAULT_SANDBOX_PORT}/v1"


def interval_sec() -> int:
    return int(os.environ.get(INTERVAL_VARIABLE) or 30)


def model() -> str:
    return os.environ.get(MODEL_VARIABLE) or "gpt-5-mini"
