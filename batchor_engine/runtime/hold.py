"""Holding a lease while working: taken, prolonged by a heartbeat, given back.

Law: one owner advances a resource at a time. A process that was away too long finds its fence refused by the store.
"""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from batchor_engine.core.ownership import Owner, is_provably_dead, parse_owner
from batchor_engine.core.records import Lease
from batchor_engine.errors import BatchorError, RunBusyError
from batchor_engine.ports.state import StateStore

LEASE_SEC = 60.0
_HEARTBEAT_SEC = LEASE_SEC / 4
# Owners of this process that are done, and whose leases could not be given back: they are as good as dead.
_left: set[str] = set()


@contextmanager
def held(store: StateStore, resource: str) -> Generator[Lease | None]:
    """The lease on `resource`, or None where another owner that may be alive has it."""
    me = _this_process()
    taken = store.acquire(resource, str(me), LEASE_SEC)
    if isinstance(taken, str) and (taken in _left or is_provably_dead(taken, me, _started_of_holder(taken))):
        taken = store.acquire(resource, str(me), LEASE_SEC, dead_owner=taken)
    if isinstance(taken, str):
        yield None
        return
    with _heartbeat(store, taken):
        try:
            yield taken
        finally:
            _left.add(str(me))
            # What failed in the block is the news, not that a full disk keeps the lease from being given back, too.
            with suppress(BatchorError):
                store.release(taken)
                _left.discard(str(me))


def run_lease(run_id: str) -> str:
    """The resource whose owner may plan and submit for a run."""
    return f"run:{run_id}"


@contextmanager
def owned(store: StateStore, run_id: str) -> Generator[Lease]:
    """The lease of a run, for a change that cannot be left to somebody else; RunBusyError where another has it."""
    with held(store, run_lease(run_id)) as lease:
        if lease is None:
            raise RunBusyError(run_id)
        yield lease


@contextmanager
def _heartbeat(store: StateStore, lease: Lease) -> Generator[None]:
    """Prolong the lease now and then; when that fails the next write finds out, so failing here is silent."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(_HEARTBEAT_SEC):
            with suppress(BatchorError):
                store.renew(lease, LEASE_SEC)

    thread = threading.Thread(target=beat, name=f"batchor-lease-{lease.fence}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _this_process() -> Owner:
    pid = os.getpid()
    return Owner(
        # "/" separates the fields of an owner's name.
        host=socket.gethostname().replace("/", "_"),
        boot=_read("/proc/sys/kernel/random/boot_id"),
        namespace=_namespace(),
        pid=pid,
        started=_started_of(pid) or "",
        token=uuid.uuid4().hex[:12],
    )


def _started_of_holder(holder: str) -> str | None:
    owner = parse_owner(holder)
    if owner is None:
        return None
    # A /proc that hides other users' processes shows nothing of one that is alive.
    hidden = not _read(f"/proc/{owner.pid}/stat") and _runs(owner.pid)
    return owner.started if hidden else _started_of(owner.pid)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _started_of(pid: int) -> str | None:
    """Start time of a process in clock ticks since boot, from /proc; None where it does not run or cannot be asked."""
    text = _read(f"/proc/{pid}/stat")
    # The command name, in parentheses, may hold spaces; the start time is the 20th field after it.
    fields = text.rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 and fields[0] != "Z" else None


def _namespace() -> str:
    """Empty, so that nobody is called dead, where /proc is missing or tells of another namespace's processes."""
    with suppress(OSError):
        if os.readlink("/proc/self") == str(os.getpid()):
            return str(os.readlink("/proc/self/ns/pid"))
    return ""


def _read(path: str) -> str:
    with suppress(OSError):
        return Path(path).read_text(encoding="utf-8").strip()
    return ""
