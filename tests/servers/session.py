"""A folder for the servers of a test session that ends with the session, however that ends.

Law: whoever made the folder holds a lock in it for as long as it lives; what lies in a folder whose lock is free is
ended and removed, by a process that waits for that, or by the next session.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TextIO

# The folder of this session, for all its processes.
HOME = "BATCHOR_TEST_HOME"
_LOCK = "session"
# Several times what a session holds at once.
_ROOM_BYTES = 4 << 30
# A PostgreSQL that is told to quit at once still gives its shared memory back.
_GRACE_SEC = 3.0
# Closed by the kernel when this process ends. The lock belongs to the process: no child that is forked inherits it.
_held: dict[Path, TextIO] = {}


def fast_disk() -> Path:
    """A disk in memory that has room and runs programs, else any: no test asks what becomes of a disk's fsync."""
    try:
        memory = os.statvfs("/dev/shm")
    except OSError:
        return Path(tempfile.gettempdir())
    usable = memory.f_bavail * memory.f_frsize >= _ROOM_BYTES and not memory.f_flag & os.ST_NOEXEC
    return Path("/dev/shm" if usable else tempfile.gettempdir())


def home() -> Path:
    return Path(os.environ[HOME])


def open_folder(folder: Path) -> Path:
    """Make the folder, which lives as long as this process; end what dead sessions left beside it."""
    for other in folder.parent.glob(f"{folder.name.rpartition('-')[0]}-*"):
        if other not in _held:
            end_if_dead(other)
    # It gets its name with its lock: a session that begins beside this one would take it for a dead one's.
    unlocked = folder.with_name(f".{folder.name}")
    unlocked.mkdir()
    # Another user runs the database, whatever the umask of this one is.
    unlocked.chmod(0o755)
    lock = (unlocked / _LOCK).open("w")
    fcntl.lockf(lock, fcntl.LOCK_EX)
    unlocked.rename(folder)
    _held[folder] = lock
    return folder


def watch(folder: Path) -> None:
    """Have a process wait for the end of the session, to end its servers; before the first of them starts."""
    # It outlives this process: nobody here waits for it, and no object of this process is closed for it.
    quiet = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
    command = [sys.executable, "-I", __file__, str(folder)]
    os.posix_spawn(sys.executable, command, os.environ, file_actions=quiet, setsid=True)


def close_folder(folder: Path) -> None:
    """Remove it, its servers being stopped; the process that waits then ends too."""
    shutil.rmtree(folder, ignore_errors=True)
    _held.pop(folder).close()


def end_if_dead(folder: Path, *, wait: bool = False) -> bool:
    """End the servers in the folder of a dead session and remove it; a folder without our lock is none of ours."""
    try:
        lock = (folder / _LOCK).open("r+")
    except OSError:
        return False
    with lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        deadline = time.monotonic() + _GRACE_SEC
        while servers := _servers(folder):
            for pid in servers:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGQUIT if time.monotonic() < deadline else signal.SIGKILL)
            time.sleep(0.1)
        shutil.rmtree(folder, ignore_errors=True)
    return True


def _servers(folder: Path) -> list[int]:
    """Living processes that work in a folder of the session."""
    found: list[int] = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").readlink().is_relative_to(folder) and int(entry.name) != os.getpid():
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                found += [int(entry.name)] if state != "Z" else []
        except OSError:
            continue
    return found


if __name__ == "__main__":
    os.chdir("/")
    end_if_dead(Path(sys.argv[1]), wait=True)
