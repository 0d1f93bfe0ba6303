"""The servers of the demo: the sandbox and Dagster, on this machine only."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from example_project import settings
from example_project.demo.dagster_api import DagsterApi
from example_project.demo.home import Home
from example_project.demo.processes import Processes, choose_port
from example_project.demo.trouble import DemoError

SENSOR_INTERVAL_SEC = 5
# validating, in_progress, finalizing, cancelling: long enough to see progress, short enough to watch.
SANDBOX_PHASES = "2,14,2,1"
START_LIMIT_SEC = 90.0


@dataclass(frozen=True)
class Ports:
    """Ports the user asked for; None leaves the choice to the demo."""

    dagster: int | None = None
    sandbox: int | None = None


def open_stage(home: Home, processes: Processes, ports: Ports, *, with_daemon: bool) -> DagsterApi:
    """Start the sandbox and Dagster's page, and wait until the example project is loaded.

    Without the daemon nothing is launched yet; `start_daemon` adds it.
    """
    home.lay_out()
    dagster_port = choose_port(home, "dagster", ports.dagster)
    if not os.environ.get(settings.BASE_URL_VARIABLE):
        start_sandbox(home, processes, choose_port(home, "sandbox", ports.sandbox))
    command = ["dagster", "dev"] if with_daemon else ["dagster-webserver"]
    start_dagster(home, processes, [*command, "-h", "127.0.0.1", "-p", str(dagster_port)])
    api = DagsterApi(dagster_port)
    wait_for(api.is_loaded, processes, "Dagster")
    return api


def start_sandbox(home: Home, processes: Processes, port: int) -> None:
    command = [
        *("-m", "batchor_engine.sandbox", "--port", str(port), "--phases", SANDBOX_PHASES),
        *("--port-file", str(settings.sandbox_port_file(home.path)), "--state-dir", str(home.sandbox_state)),
        *("--responder", "example_project.responder:respond"),
    ]
    processes.start("sandbox", command, environment(home), settings.ROOT)
    wait_for(lambda: answers(port), processes, "the sandbox")


def start_daemon(home: Home, processes: Processes) -> None:
    """The daemon takes up waiting backfills at once, later ones within half a minute: so it is started last."""
    start_dagster(home, processes, ["dagster-daemon", "run"])


def start_dagster(home: Home, processes: Processes, command: list[str]) -> None:
    """Start one of Dagster's own commands, from the same environment as this process, on the workspace file."""
    script = Path(sys.executable).parent / command[0]
    name = "dagster" if command[1] == "dev" else command[0]
    arguments = [str(script), *command[1:], "-w", str(settings.ROOT / "workspace.yaml")]
    processes.start(name, arguments, environment(home), settings.ROOT)


def environment(home: Home) -> dict[str, str]:
    """What the children need to know; an interval from the environment wins."""
    return {
        "DAGSTER_HOME": str(home.dagster),
        "PYTHONPATH": os.pathsep.join([str(settings.ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "PYTHONUNBUFFERED": "1",
        **{name: ",".join(filter(None, [os.environ.get(name), "127.0.0.1"])) for name in ("NO_PROXY", "no_proxy")},
        settings.HOME_VARIABLE: str(home.path),
        settings.INTERVAL_VARIABLE: os.environ.get(settings.INTERVAL_VARIABLE) or str(SENSOR_INTERVAL_SEC),
    }


def wait_for(ready: Callable[[], bool], processes: Processes, name: str) -> None:
    until = time.monotonic() + START_LIMIT_SEC
    while not ready():
        processes.check()
        if time.monotonic() > until:
            raise DemoError(f"{name} did not start within {START_LIMIT_SEC:.0f} seconds")
        time.sleep(0.25)


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
