"""Object stores by URL: what goes wrong on the way, what must not show, and how much memory it takes."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from batchor_engine import ArtifactStore, LocalArtifactStore
from batchor_engine.artifacts import objects
from batchor_engine.artifacts.urls import artifact_place, open_artifacts
from batchor_engine.errors import ArtifactMissingError, StoreError

from ..servers.s3 import BUCKET, SECRET, S3Server
from ..servers.s3_proxy import Trouble, s3_proxy

MIB = 1 << 20
CONTENT = os.urandom(20 * MIB)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries without waiting, so that a server that stays down is given up at once."""
    backoff = {"init_backoff": timedelta(milliseconds=1), "max_backoff": timedelta(milliseconds=5), "base": 2}
    monkeypatch.setattr(objects, "_RETRIES", {**objects._RETRIES, "max_retries": 2, "backoff": backoff})


@pytest.fixture
def place() -> str:
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


def behind(endpoint: str, monkeypatch: pytest.MonkeyPatch, place: str) -> ArtifactStore:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    return open_artifacts(place)


# --- on the way


@pytest.mark.parametrize("kind", ["cut_request", "lost_answer", "503", "500"])
@pytest.mark.parametrize(
    ("method", "path"), [("PUT", ""), ("PUT", "partNumber=2"), ("POST", "uploads"), ("POST", "uploadId")]
)
def test_trouble_during_an_upload_is_overcome(
    s3: S3Server, place: str, monkeypatch: pytest.MonkeyPatch, impatient: None, kind: str, method: str, path: str
) -> None:
    with s3_proxy(s3.endpoint, Trouble(kind, method, path)) as proxy:
        store = behind(proxy.endpoint, monkeypatch, place)
        content = CONTENT if path else b"small"
        with store.open_write("r/a") as stream:
            stream.write(content)
    assert proxy.seen[kind] == 1
    with behind(s3.endpoint, monkeypatch, place).open_read("r/a") as stream:
        assert stream.read() == content


def test_a_whole_file_is_read_by_a_few_requests(s3: S3Server, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_artifacts(place).open_write("r/a") as stream:
        stream.write(CONTENT)
    with s3_proxy(s3.endpoint) as proxy, behind(proxy.endpoint, monkeypatch, place).open_read("r/a") as stream:
        assert stream.read() == CONTENT
    assert proxy.seen["GET"] <= 4


def test_an_upload_whose_end_is_forgotten_is_done_again(
    s3: S3Server, place: str, monkeypatch: pytest.MonkeyPatch, impatient: None
) -> None:
    with s3_proxy(s3.endpoint, Trouble("404", "POST", "uploadId")) as proxy:
        store = behind(proxy.endpoint, monkeypatch, place)
        with store.open_write("r/a") as stream:
            stream.write(CONTENT)
    assert proxy.seen["404"] == 1
    with behind(s3.endpoint, monkeypatch, place).open_read("r/a") as stream:
        assert stream.read() == CONTENT


@pytest.mark.parametrize("kind", ["cut_answer", "lost_answer", "503", "500"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_trouble_during_a_download_is_overcome(
    s3: S3Server, place: str, monkeypatch: pytest.MonkeyPatch, impatient: None, kind: str, method: str
) -> None:
    with open_artifacts(place).open_write("r/a") as stream:
        stream.write(CONTENT)
    with s3_proxy(s3.endpoint, Trouble(kind, method, skip=1 if method == "GET" else 0)) as proxy:
        store = behind(proxy.endpoint, monkeypatch, place)
        with store.local_file("r/a") as path:
            assert path.read_bytes() == CONTENT
    assert proxy.seen[kind] == 1


@pytest.mark.parametrize("kind", ["503", "500"])
def test_an_error_that_answers_head_has_no_content(s3: S3Server, kind: str) -> None:
    """The connection is used again, and what is left on it would be the beginning of the next answer."""
    with s3_proxy(s3.endpoint, Trouble(kind, "HEAD")) as proxy:
        address = urlsplit(proxy.endpoint)
        with socket.create_connection((address.hostname, address.port or 0), timeout=30) as connection:
            connection.sendall(b"HEAD /none HTTP/1.1\r\nHost: proxy\r\nConnection: close\r\n\r\n")
            answer = connection.makefile("rb").read()
    assert answer.startswith(f"HTTP/1.1 {kind} ".encode())
    assert answer.endswith(b"\r\n\r\n")


def test_an_upload_that_a_client_gave_up_is_not_forwarded(s3: S3Server) -> None:
    """The server would wait for the rest, and the proxy for the server, long after the test that did this."""
    with s3_proxy(s3.endpoint) as proxy:
        address = urlsplit(proxy.endpoint)
        with socket.create_connection((address.hostname, address.port or 0), timeout=20) as connection:
            connection.sendall(b"PUT /none HTTP/1.1\r\nHost: proxy\r\nContent-Length: 9\r\n\r\nhalf")
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(1) == b""
    assert proxy.seen["PUT"] == 1


def test_a_server_that_is_away_for_a_while_is_waited_for(
    s3: S3Server, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backoff = {"init_backoff": timedelta(milliseconds=1), "max_backoff": timedelta(milliseconds=5), "base": 2}
    monkeypatch.setattr(objects, "_RETRIES", {**objects._RETRIES, "backoff": backoff})
    troubles = Trouble("cut_request", "PUT", "partNumber=2", times=20), Trouble("cut_answer", "GET", times=20, skip=1)
    with s3_proxy(s3.endpoint, *troubles) as proxy:
        store = behind(proxy.endpoint, monkeypatch, place)
        with store.open_write("r/a") as stream:
            stream.write(CONTENT)
        with store.local_file("r/a") as path:
            assert path.read_bytes() == CONTENT
    assert (proxy.seen["cut_request"], proxy.seen["cut_answer"]) == (20, 20)


def test_a_server_that_never_answered_is_told_soon(s3: S3Server, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreError, match="after 8 retries"):
        behind("http://127.0.0.1:9", monkeypatch, place).write_text("r/a", "x")


def test_a_server_that_says_nothing_is_asked_again(
    s3: S3Server, place: str, monkeypatch: pytest.MonkeyPatch, impatient: None
) -> None:
    monkeypatch.setattr(objects, "_TIMEOUTS", {name: timedelta(seconds=0.5) for name in objects._TIMEOUTS})
    troubles = [Trouble("silence", method) for method in ("PUT", "HEAD", "GET")]
    with s3_proxy(s3.endpoint, *troubles) as proxy:
        store = behind(proxy.endpoint, monkeypatch, place)
        store.write_text("r/a", "content")
        assert store.read_text("r/a") == "content"
    assert proxy.seen["silence"] == 3


@pytest.mark.parametrize("kind", ["cut_request", "503"])
@pytest.mark.parametrize(("method", "path"), [("PUT", "partNumber=2"), ("POST", "uploadId")])
def test_an_upload_that_cannot_end_leaves_nothing_to_see_and_the_old_object_whole(
    s3: S3Server, place: str, monkeypatch: pytest.MonkeyPatch, impatient: None, kind: str, method: str, path: str
) -> None:
    open_artifacts(place).write_text("r/old", "old")
    with s3_proxy(s3.endpoint, Trouble(kind, method, path, times=10_000)) as proxy:
        store = behind(proxy.endpoint, monkeypatch, place)
        for key in ("r/new", "r/old"):
            with pytest.raises(StoreError, match=r"Cannot use s3://runs/"), store.open_write(key) as stream:
                stream.write(CONTENT)
    after = behind(s3.endpoint, monkeypatch, place)
    assert list(after.list_keys("")) == ["r/old"]
    assert after.read_text("r/old") == "old"


def test_a_download_that_cannot_end_gives_no_file(
    s3: S3Server, place: str, monkeypatch: pytest.MonkeyPatch, impatient: None
) -> None:
    open_artifacts(place).write_text("r/a", "x" * 1000)
    with s3_proxy(s3.endpoint, Trouble("cut_answer", "GET", times=10_000)) as proxy:
        store = behind(proxy.endpoint, monkeypatch, place)
        with pytest.raises(StoreError), store.local_file("r/a") as path:
            pytest.fail(f"{path} was handed out")
        with pytest.raises(StoreError):
            store.read_range("r/a", 0, 500)


def test_an_object_that_is_replaced_while_it_is_read_is_never_mixed(s3: S3Server, place: str) -> None:
    store = open_artifacts(place)
    with store.open_write("r/a") as stream:
        stream.write(b"1" * 4 * MIB)
    with store.open_read("r/a") as stream:
        assert stream.read(10) == b"1" * 10
        with store.open_write("r/a") as other:
            other.write(b"2" * 4 * MIB)
        with pytest.raises(StoreError):
            stream.read()


# --- what is said


def test_a_missing_object_names_the_place(s3: S3Server, place: str) -> None:
    with pytest.raises(ArtifactMissingError, match=place):
        open_artifacts(place).read_text("r/a")


def test_a_wrong_key_is_said_without_the_key(
    s3: S3Server, place: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret-key")
    store = open_artifacts(place)
    with pytest.raises(StoreError, match="SignatureDoesNotMatch") as caught:
        store.write_text("r/a", "x")
    told = "".join([str(caught.value), repr(store), store.location, str(vars(caught.value)), *capfd.readouterr()])
    assert "another-secret-key" not in told
    assert "Authorization" not in told
    assert caught.value.__suppress_context__
    assert pickle.loads(pickle.dumps(caught.value)).message == caught.value.message


@pytest.mark.parametrize(
    "url",
    [
        "s3://id:secret-word@bucket/path",
        "s3://secret-word@bucket",
        "az://container/path?sig=secret-word",
        "gs://bucket/path#secret-word",
    ],
)
def test_a_url_with_more_than_a_place_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="environment") as caught:
        open_artifacts(url)
    assert "secret-word" not in str(caught.value)


@pytest.mark.parametrize("url", ["ftp://host/path", "s3:///path", "s3://bucket/../x", "", "file://host/path"])
def test_a_url_that_is_no_place_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="artifacts_url"):
        open_artifacts(url)


def test_a_path_made_of_a_url_is_refused_instead_of_becoming_a_folder() -> None:
    with pytest.raises(ValueError, match="give s3://… as a string"):
        open_artifacts(Path("s3://bucket/path"))


def test_a_place_is_recorded_in_one_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert artifact_place("s3://bucket/a//b/") == "s3://bucket/a/b"
    assert artifact_place("s3://bucket/") == "s3://bucket"
    assert artifact_place("memory://") == "memory://"
    assert artifact_place("runs") == artifact_place(f"file://{tmp_path}/runs") == str(tmp_path / "runs")
    assert artifact_place("file:///with%20space") == "/with space"


@pytest.mark.parametrize("url", ["s3://bucket/p", "gs://bucket/p", "az://container/p"])
def test_a_store_is_made_without_a_call(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    store = open_artifacts(url)
    assert (store.location, repr(store)) == (url, f"ObjectArtifactStore('{url}')")


def test_memory_is_shared_by_its_name_and_ends_with_its_last_store() -> None:
    first = open_artifacts("memory://shared")
    first.write_text("a", "x")
    assert open_artifacts("memory://shared/").read_text("a") == "x"
    assert not open_artifacts("memory://other").exists("a")
    del first
    assert not open_artifacts("memory://shared").exists("a")


def test_without_the_library_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['obstore'] = None\n"
        "from batchor_engine import BatchRunner\n"
        "BatchRunner(storage='memory', artifacts_url='.')\n"
        "print('a folder needs nothing')\n"
        "BatchRunner(storage='memory', artifacts_url='s3://bucket')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "a folder needs nothing\n")
    assert done.stderr.splitlines()[-1].startswith("ImportError: ")
    assert "batchor-dagster[objectstore]" in done.stderr.splitlines()[-1]


# --- memory

_PEAK = r"""
import re, sys
from batchor_engine.artifacts.urls import open_artifacts
store, mib, block = open_artifacts(sys.argv[1]), int(sys.argv[2]), bytes(1 << 20)
with store.open_write("r/big") as stream:
    for _ in range(mib):
        stream.write(block)
with store.local_file("r/big") as path:
    assert path.stat().st_size == mib << 20
with store.open_read("r/big") as stream:
    assert sum(len(line) for line in iter(lambda: stream.read(1 << 16), b"")) == mib << 20
# Not getrusage(): its peak counts what the parent had when it forked.
print(int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]) // 1024)
"""


def peak_mib(place: str, size: int) -> int:
    command = [sys.executable, "-c", _PEAK, place, str(size)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_memory_is_flat_in_the_size_of_an_object(s3: S3Server, place: str) -> None:
    small, large = peak_mib(place, 1), peak_mib(place, 200)
    print(f"peak of 1 MiB: {small} MiB, of 200 MiB: {large} MiB")
    assert large - small < 80


def test_keys_and_secrets_are_nowhere_in_the_process_of_a_store(s3: S3Server, place: str) -> None:
    store: Any = open_artifacts(place)
    assert SECRET not in repr(vars(store))
    assert isinstance(open_artifacts("."), LocalArtifactStore)
