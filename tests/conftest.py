"""No test may reach a real account or leave this machine by a proxy, whatever the developer's shell has set."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests import rings

from .stores import STORES, begin_session, end_session, new_url

if TYPE_CHECKING:
    from .servers.s3 import S3Server

pytest.register_assert_rewrite("batchor_engine.testing.store_bench", "batchor_engine.testing.store_contract")

for name in [name for name in os.environ if name.startswith(("OPENAI_", "AWS_"))]:
    del os.environ[name]
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost,::1"

# No test asserts a time, and Hypothesis would: 200 ms an example.
settings.register_profile("untimed", settings(), deadline=None)
settings.load_profile("untimed")

# A shell that runs the suite in the background has switched Ctrl-C off, and every child process would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Before pytest itself looks where temporary files go.
@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        return
    home = begin_session()
    if "TMPDIR" not in os.environ and config.option.basetemp is None:
        # One letter is enough: sockets lie below it, and their paths may have about a hundred.
        os.environ["TMPDIR"], config.option.basetemp = str(home), home / "t"
        tempfile.tempdir = None


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        end_session()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "store_kind" in metafunc.fixturenames:
        wide = metafunc.definition.get_closest_marker("every_store") is not None
        metafunc.parametrize("store_kind", STORES if wide else STORES[:1])


@pytest.fixture
def store_url(store_kind: str, tmp_path: Path) -> str:
    """A store that is not there yet, on each kind that this test is for."""
    return new_url(store_kind, tmp_path)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """One S3 server for the whole session; tests keep apart by paths in its bucket."""
    from .servers.s3 import s3_server

    with s3_server() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The S3 server, with the environment that leads to it."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture
def artifacts_url(store_kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """Where files go: a folder beside SQLite, a bucket beside PostgreSQL."""
    if store_kind == "sqlite" or request.node.get_closest_marker("files_in_a_folder") is not None:
        return str(tmp_path / "runs_artifacts")
    server: S3Server = request.getfixturevalue("s3")
    return server.new_place()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(rings.OPTION, action="store_true", help="fail where a ring of tests cannot run")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in rings.not_run(terminalreporter.getreports("skipped")):
        terminalreporter.write_sep("!", line, yellow=True)
