"""Two workers on one database and one bucket, each with a disk of its own: one is killed, the other one finishes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from batchor_engine import BatchRunner
from batchor_engine.sandbox import Phases, SandboxServer
from batchor_engine.testing import check_invariants

from .. import rings
from ..servers.network import can_make_hosts, hosts
from ..servers.s3 import S3Server
from ..stores import POSTGRES_DSN, STORES, new_url
from .points import POINTS
from .worker import ROWS

WORKER = Path(__file__).with_name("worker.py")
KILLED = (-9, 128 + 9)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("postgres" not in STORES, reason="BATCHOR_TEST_STORES leaves PostgreSQL out"),
]


def work(
    place: Path, options: dict[str, object], *, inside: list[str] | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """A process that sees no folder of another one: home, working directory and temporary files are its own."""
    place.mkdir()
    own = {"HOME": str(place), "TMPDIR": str(place), **environment}
    command = [*(inside or []), sys.executable, str(WORKER), json.dumps(options)]
    return subprocess.run(
        command, cwd=place, env={**os.environ, **own}, capture_output=True, text=True, timeout=200, check=False
    )


def assert_finished(healed: subprocess.CompletedProcess[str], sandbox: SandboxServer, store: str, place: Path) -> None:
    assert healed.returncode == 0, healed.stderr
    assert json.loads(healed.stdout)["completed"] == ROWS
    assert len(sandbox.paid()) == ROWS
    runner = BatchRunner(storage=store)
    assert check_invariants(runner) == []
    assert [one.item_id for one in runner.get_run("crashing").results()] == [f"row-{n}" for n in range(ROWS)]
    runner.close()
    # Who was killed cannot tidy up; who finished leaves nothing on this disk.
    assert [path for path in place.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("point", [point for point in POINTS if point.endswith(("_stored", "created", "downloaded"))])
def test_a_run_is_finished_without_the_disk_of_who_began_it(s3: S3Server, tmp_path: Path, point: str) -> None:
    store, bucket = new_url("postgres", tmp_path), s3.new_place()
    with SandboxServer(phases=Phases(0.02, 0.05, 0.02, 0.02)) as sandbox:
        # The second does not wait for this lease: it sees that its owner is dead.
        options = {"store": store, "artifacts": bucket, "base_url": sandbox.base_url, "lease_sec": 3600}
        killed = work(tmp_path / "one", {**options, "at": {point: 2}})
        assert killed.returncode in KILLED, killed.stderr
        (tmp_path / "one").rename(tmp_path / "gone")
        assert_finished(work(tmp_path / "two", options), sandbox, store, tmp_path / "two")


def test_a_run_is_finished_by_another_host(
    s3: S3Server, tmp_path: Path, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    if why := can_make_hosts():
        rings.cannot_run(pytestconfig, "two hosts", why)
    monkeypatch.delenv(POSTGRES_DSN, raising=False)
    store, bucket = new_url("postgres", tmp_path, own_server=True), s3.new_place()
    with SandboxServer(phases=Phases(0.02, 0.05, 0.02, 0.02)) as sandbox, hosts("one", "two") as bridge:
        database = bridge.forward(f"{store.partition('host=')[2].partition('&')[0]}/.s.PGSQL.5432")
        s3_port, provider = (bridge.forward(address_of(url)) for url in (s3.endpoint, sandbox.base_url))
        options = {
            "store": f"postgresql://postgres@{bridge.address}:{database}/postgres?schema={store.partition('schema=')[2]}",
            "artifacts": bucket,
            "base_url": f"http://{bridge.address}:{provider}/v1",
            # Nobody here can see whether a process of another host is alive, so its lease has to run out.
            "lease_sec": 3,
        }
        environment = {"AWS_ENDPOINT_URL": f"http://{bridge.address}:{s3_port}", "NO_PROXY": "*", "no_proxy": "*"}
        assert "ConnectionRefused" in reach(bridge.inside("one"), address_of(sandbox.base_url))
        killed = work(
            tmp_path / "one", {**options, "at": {"submit.created": 2}}, inside=bridge.inside("one"), **environment
        )
        assert killed.returncode in KILLED, killed.stderr
        (tmp_path / "one").rename(tmp_path / "gone")
        healed = work(tmp_path / "two", options, inside=bridge.inside("two"), **environment)
        assert_finished(healed, sandbox, store, tmp_path / "two")


def reach(inside: list[str], address: tuple[str, int]) -> str:
    """What a host says that tries an address of this machine's own loopback."""
    code = f"import socket; socket.create_connection({address!r}, 10)"
    return subprocess.run([*inside, sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr


def address_of(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port
