"""Hosts on one machine: network namespaces on a bridge, and servers of this machine that listen on the bridge.

Law: a host has its own interfaces, loopback and processes, and reaches nothing but what is forwarded to the bridge.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import uuid
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field

Address = tuple[str, int] | str


@dataclass
class Bridge:
    """Its address, and hosts by name; `inside()` is what to put before a command."""

    name: str
    address: str
    forwards: ExitStack = field(default_factory=ExitStack)

    def inside(self, host: str) -> list[str]:
        # A shell is the first process there: the kernel protects that one from every signal of its own namespace.
        apart = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", '"$@"; exit $?', "sh"]
        return ["ip", "netns", "exec", f"{self.name}{host}", *apart]

    def forward(self, target: Address) -> int:
        """A port of the bridge behind which `target` is, a TCP address or the path of a socket."""
        listener = socket.create_server((self.address, 0))
        # Only a shutdown wakes the thread that waits in accept().
        self.forwards.callback(listener.shutdown, socket.SHUT_RDWR)
        threading.Thread(target=_accept, args=(listener, target), daemon=True).start()
        return listener.getsockname()[1]


def can_make_hosts() -> str:
    """Why this machine cannot have hosts; empty where it can."""
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    lacking = [name for name in ("ip", "unshare") if shutil.which(name) is None]
    return f"{', '.join(lacking)} is not installed" if lacking else ""


@contextmanager
def hosts(*names: str) -> Generator[Bridge]:
    """A bridge with a host for each name; everything is gone with the context."""
    number = uuid.uuid4().int % (1 << 16)
    bridge = Bridge(f"bt{number:04x}", f"10.{200 + number % 50}.{number >> 8}.1")
    network = bridge.address.rpartition(".")[0]
    with ExitStack() as stack, bridge.forwards:
        _ip(f"link add {bridge.name} type bridge")
        stack.callback(_ip, f"link delete {bridge.name}")
        _ip(f"address add {bridge.address}/24 dev {bridge.name}")
        _ip(f"link set {bridge.name} up")
        for at, name in enumerate(names, 2):
            host, cable = f"{bridge.name}{name}", f"{bridge.name}v{at}"
            _ip(f"netns add {host}")
            stack.callback(_ip, f"netns delete {host}")
            _ip(f"link add {cable} type veth peer name eth0 netns {host}")
            _ip(f"link set {cable} master {bridge.name} up")
            _ip(f"-n {host} address add {network}.{at}/24 dev eth0")
            _ip(f"-n {host} link set eth0 up")
            _ip(f"-n {host} link set lo up")
        yield bridge


def _ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True, capture_output=True)


def _accept(listener: socket.socket, target: Address) -> None:
    with listener, suppress(OSError):
        while True:
            near, _ = listener.accept()
            threading.Thread(target=_connect, args=(near, target), daemon=True).start()


def _connect(near: socket.socket, target: Address) -> None:
    with near, socket.socket(socket.AF_UNIX if isinstance(target, str) else socket.AF_INET) as far:
        with suppress(OSError):
            far.connect(target)
        back = threading.Thread(target=_forward, args=(far, near), daemon=True)
        back.start()
        _forward(near, far)
        back.join()


def _forward(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    # The other way may still have something to say.
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
