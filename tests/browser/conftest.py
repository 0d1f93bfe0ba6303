"""A real `dagster dev` on the example project, a sandbox that ends batches when told, and a real Chromium before it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from batchor_engine.sandbox import Phases, SandboxServer
from example_project import settings
from example_project.demo.home import Home
from example_project.demo.processes import Processes
from example_project.demo.stage import Ports, open_stage
from tests.browser.desk import ARTIFACTS, Desk, Model
from tests.rings import cannot_run

# As root, and without a word to anybody outside.
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SENSOR_INTERVAL_SEC = "3"


@pytest.fixture(scope="module")
def chromium(request: pytest.FixtureRequest) -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        cannot_run(request.config, "browser", "there is no chromium (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def desk(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    shutil.rmtree(ARTIFACTS, ignore_errors=True)
    ARTIFACTS.mkdir(parents=True)
    model = Model()
    home = Home.open(tmp_path_factory.mktemp("browser") / "home")
    processes = Processes(home)
    with SandboxServer(
        # A batch shows progress with every look and ends when a test says so.
        clock="polls",
        polls=Phases(0, 600, 0, 0),
        responder=model,
        shuffle=True,
    ) as sandbox:
        known = {settings.BASE_URL_VARIABLE: sandbox.base_url, settings.INTERVAL_VARIABLE: SENSOR_INTERVAL_SEC}
        before = {name: os.environ.get(name) for name in known}
        os.environ.update(known)
        try:
            api = open_stage(home, processes, Ports(), with_daemon=True)
            page = chromium.new_page(viewport={"width": 1440, "height": 1100})
            page.set_default_timeout(60_000)
            yield Desk(page, api.url, home, sandbox, model)
        finally:
            processes.stop()
            home.close()
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
