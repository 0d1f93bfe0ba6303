"""A real S3 server on loopback for tests: SeaweedFS from the package index, one process, one bucket.

Law: it listens on 127.0.0.1 only, reports to nobody, and is gone with its context.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import obstore
from obstore.store import S3Store

from . import session

BUCKET = "runs"
KEY_ID, SECRET = "test-key-id", "test-secret-that-must-not-show"
_START_SEC = 60.0
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class S3Server:
    """Where the server is; `environment()` is all that a process needs to use it."""

    endpoint: str
    url: str = f"s3://{BUCKET}"

    def environment(self, endpoint: str | None = None) -> dict[str, str]:
        """AWS settings for this server, or for a proxy before it."""
        return {
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": endpoint or self.endpoint,
        }

    def new_place(self) -> str:
        """A URL below which nothing is."""
        return f"{self.url}/{uuid.uuid4().hex[:12]}"

    def keys(self, prefix: str | None = None) -> list[str]:
        """What is in the bucket, asked past our own code."""
        store = _store(self.endpoint)
        return sorted(meta["path"] for page in obstore.list(store, prefix) for meta in page)


@contextmanager
def s3_server() -> Generator[S3Server]:
    """Start a server with an empty bucket, in this session's folder."""
    with tempfile.TemporaryDirectory(prefix="s3-", dir=session.home(), ignore_cleanup_errors=True) as folder:
        port, master, volume, filer, *grpc = _free_ports(8)
        identity = {"name": "test", "credentials": [{"accessKey": KEY_ID, "secretKey": SECRET}], "actions": ["Admin"]}
        config = Path(folder, "s3.json")
        config.write_text(json.dumps({"identities": [identity]}))
        ports = {"s3": port, "master": master, "volume": volume, "filer": filer}
        command = [
            str(Path(sys.executable).with_name("weed")), "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            f"-dir={folder}", "-filer", "-s3", f"-s3.config={config}", "-s3.iam=false",
            "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false",
            "-master.volumeSizeLimitMB=256", "-volume.max=16", f"-filer.localSocket={folder}/filer.sock",
            f"-s3.localSocket={folder}/s3.sock",
            *(f"-{name}.port={one}" for name, one in ports.items()),
            *(f"-{name}.port.grpc={one}" for name, one in zip(ports, grpc, strict=True)),
        ]  # fmt: skip
        with Path(folder, "log").open("wb") as log:
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=folder,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - it makes one system call
            )
            try:
                server = S3Server(f"http://127.0.0.1:{port}")
                _wait_until_up(server, process, Path(folder, "log"))
                yield server
            finally:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()


def _die_with_parent() -> None:
    """A test run that is killed leaves no server behind."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _wait_until_up(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SEC
    while True:
        try:
            obstore.put(_store(server.endpoint), "up", b"")
            obstore.delete(_store(server.endpoint), "up")
            return
        except Exception as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"no S3 server: {error}\n{log.read_text(errors='replace')[-3000:]}") from error
            time.sleep(0.05)


def _store(endpoint: str) -> S3Store:
    return S3Store(
        BUCKET,
        endpoint=endpoint,
        access_key_id=KEY_ID,
        secret_access_key=SECRET,
        region="us-east-1",
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )


def _free_ports(count: int) -> Iterator[int]:
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in taken:
            one.bind(("127.0.0.1", 0))
        return iter([one.getsockname()[1] for one in taken])
