"""Who holds a lease, said precisely enough to know when the holder is dead.

Law: an owner is called dead only by a process that shares its boot and its pid namespace; anybody else waits.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Owner:
    """A process (host, boot, pid namespace, pid, start time) and one acquisition within it."""

    host: str
    boot: str
    namespace: str
    pid: int
    started: str
    token: str

    def __str__(self) -> str:
        return "/".join((self.host, self.boot, self.namespace, str(self.pid), self.started, self.token))


def parse_owner(text: str) -> Owner | None:
    """Read an owner's name back; None for one that was not written by us."""
    fields = text.split("/")
    if len(fields) != len(Owner.__dataclass_fields__) or not fields[3].isdigit():
        return None
    host, boot, namespace, pid, started, token = fields
    return Owner(host, boot, namespace, int(pid), started, token)


def is_provably_dead(holder: str, me: Owner, started_of_pid: str | None) -> bool:
    """Whether `holder` cannot be running: same boot and namespace as `me`, and its pid is gone or is another process.

    `started_of_pid` is the start time of the process that has the holder's pid now, None where there is none.
    """
    owner = parse_owner(holder)
    if owner is None or not (owner.boot and owner.namespace):
        return False
    if (owner.boot, owner.namespace) != (me.boot, me.namespace):
        return False
    return started_of_pid != owner.started
