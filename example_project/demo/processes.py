"""Starts and ends the demo's processes, each in a group of its own.

Law: only groups that a demo in this folder started are ever signalled, told by pid and start time.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from example_project.demo.home import Child, Home
from example_project.demo.trouble import DemoError

GRACE_SEC = 6.0


class Processes:
    """The running children of one demo, written down in its home as soon as they start."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: Sequence[str], env: Mapping[str, str], cwd: Path) -> None:
        """Start a child whose output goes to its log file."""
        with self._home.log_of(name).open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, *command],
                env={**os.environ, **env},
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._running[name] = child
        noted = Child(name, child.pid, began_at(child.pid))
        self._home.remember(children=[*self._home.note.children, noted])

    def check(self) -> None:
        """Say which child has ended by itself, and what it said last."""
        for name, child in self._running.items():
            if child.poll() is not None:
                log = self._home.log_of(name)
                raise DemoError(f"{name} ended with code {child.returncode}: {last_line(log)} (all of it in {log})")

    def stop(self) -> None:
        """End all children and their descendants."""
        for child in reversed(self._running.values()):
            end_group(child.pid, reap=child)
        self._running.clear()
        self._home.remember(children=[])


def end_stale(home: Home) -> list[str]:
    """End what an earlier demo left running; the names of what was found."""
    stale = [child for child in home.note.children if is_ours(child)]
    for child in reversed(stale):
        end_group(child.pid)
    home.remember(children=[])
    return [child.name for child in stale]


def is_ours(child: Child) -> bool:
    """True while the group lives and its leader, if it lives too, is the process that we started."""
    return bool(group_members(child.pid)) and began_at(child.pid) in {child.began, ""}


def end_group(group: int, reap: subprocess.Popen[bytes] | None = None) -> None:
    """Ask a process group to end, and kill what is left after a grace period; a child of ours is reaped."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)
        if group_is_gone(group, within_sec=GRACE_SEC):
            break
    if reap:
        reap.wait(GRACE_SEC)


def group_is_gone(group: int, *, within_sec: float) -> bool:
    until = time.monotonic() + within_sec
    while group_members(group):
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def group_members(group: int) -> list[int]:
    """Pids of the living processes of a group."""
    return [pid for pid, its_group, state, _ in process_table() if its_group == group and not state.startswith("Z")]


def began_at(pid: int) -> str:
    """When a process began, in the system's own words; empty when there is no such process."""
    return next((began for one, _, state, began in process_table() if one == pid and not state.startswith("Z")), "")


def process_table() -> Iterator[tuple[int, int, str, str]]:
    """Pid, group, state and start of every process, from /proc or else from ps."""
    return proc_table() if Path("/proc/self/stat").exists() else ps_table()


def proc_table() -> Iterator[tuple[int, int, str, str]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                rest = (entry / "stat").read_text().rpartition(")")[2].split()
                yield int(entry.name), int(rest[2]), rest[0], rest[19]


def ps_table() -> Iterator[tuple[int, int, str, str]]:
    said = subprocess.run(["ps", "-A", "-o", "pid=,pgid=,stat=,lstart="], capture_output=True, text=True, check=True)
    for line in said.stdout.splitlines():
        pid, group, state, began = line.split(None, 3)
        yield int(pid), int(group), state, began


def choose_port(home: Home, name: str, wanted: int | None) -> int:
    """The wanted port, else the one of the last demo if it is free, else a free one; remembered for the next demo."""
    if wanted and not is_free(wanted):
        raise DemoError(f"port {wanted} for {name} is taken: end what listens there, or choose another port")
    last = home.note.ports.get(name, 0)
    port = wanted or (last if last and is_free(last) else 0) or any_free_port()
    home.remember(ports={**home.note.ports, name: port})
    return port


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            return False
        return True


def any_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "without a word"
