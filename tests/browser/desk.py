"""What an operator does with a mouse, by the words of the page, and the engine's own account of what came of it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from playwright.sync_api import Locator, Page, expect

from batchor_engine import BatchRunner, RunInfo
from batchor_engine.sandbox import SandboxAnswer, SandboxRequest, SandboxServer
from example_project import settings
from example_project.demo.home import Home
from example_project.responder import respond

ARTIFACTS = settings.ROOT / "test-artifacts" / "browser"
PATIENCE_SEC = 90.0


@dataclass
class Model:
    """The model behind the provider: it refuses a ticket without a body, until it is told to be lenient."""

    lenient: bool = False

    def __call__(self, request: SandboxRequest) -> SandboxAnswer:
        prompt = f"{request.prompt}There is nothing to read." if self.lenient else request.prompt
        return respond(replace(request, prompt=prompt))


@dataclass(frozen=True)
class Desk:
    """An open page of Dagster, and the store behind it."""

    page: Page
    url: str
    home: Home
    sandbox: SandboxServer
    model: Model

    # --- the engine's account

    def run(self, day: str) -> RunInfo:
        """The newest engine run of a day, read without Dagster, key or provider."""
        with closing(BatchRunner(storage=settings.store_url(self.home.path))) as runner:
            infos = runner.find_runs(labels={"asset": "triage", "partition": day})
        return max(infos, key=lambda info: info.created_at)

    def new_batch(self, day: str, known: Sequence[str]) -> str:
        """The first batch of a day at the provider that is not among the known ones, once it is there."""
        until = time.monotonic() + PATIENCE_SEC
        while not (new := [one for one in self.batches(day) if one not in known]):
            assert time.monotonic() < until, f"no new batch for {day}"
            time.sleep(0.5)
        return new[0]

    def batches(self, day: str) -> list[str]:
        """The batches of a day's run at the provider."""
        return [one.provider_batch_id for one in self.run(day).batches if one.provider_batch_id]

    # --- what a hand does

    def open(self, menu: str) -> None:
        """A page of the menu on the left."""
        if not self.page.url.startswith(self.url):
            self.page.goto(self.url)
        self.page.get_by_text(menu, exact=True).first.click()

    def backfill(self, assets: Sequence[str], days: Sequence[str]) -> None:
        """Catalog, tick the assets, Materialize selected, write the partitions, Launch backfill."""
        self.open("Catalog")
        for name in assets:
            self.page.get_by_test_id(f"checkbox-{name}").locator("xpath=..").click()
        self.page.get_by_role("button", name=re.compile("Materialize selected")).click()
        box = self.page.get_by_placeholder(re.compile("^ex: "))
        box.fill(", ".join(days))
        box.press("Enter")
        self.keep("launch-backfill")
        self.page.get_by_role("button", name="Launch backfill").click()
        expect(self.page.get_by_role("button", name="Launch backfill")).to_be_hidden()

    def asset(self, name: str, tab: str) -> None:
        """An asset by its name in the catalog, and one of its tabs."""
        self.open("Catalog")
        self.page.get_by_text(name, exact=True).first.click()
        self.page.get_by_role("tab", name=tab, exact=True).click()

    def partition(self, asset: str, day: str) -> None:
        self.asset(asset, "Partitions")
        self.page.get_by_title(day, exact=True).first.click()
        expect(self.page.get_by_text("View all historical events")).to_be_visible()

    def order(self, job: str, day: str) -> str:
        """A control job's launchpad with the partition written into its config; what its run says it did."""
        self.open("Jobs")
        self.page.get_by_text(job, exact=True).first.click()
        self.page.get_by_role("tab", name="Launchpad").or_(
            self.page.get_by_role("link", name="Launchpad")
        ).first.click()
        expect(self.page.get_by_text("No errors")).to_be_visible()
        self.page.locator(".CodeMirror").first.get_by_text("partition:").click()
        self.page.keyboard.press("End")
        self.page.keyboard.press("ArrowLeft")
        self.page.keyboard.type(day)
        expect(self.page.get_by_text("No errors")).to_be_visible()
        self.keep(f"{job}-launchpad")
        self.page.get_by_role("button", name="Launch Run").click()
        expect(self.page.get_by_text("RUN_SUCCESS")).to_be_visible(timeout=PATIENCE_SEC * 1000)
        said = self.page.get_by_text(re.compile(f"^(?:Run|[0-9]+ failed rows? of run) triage-{day}-")).first
        expect(said).to_be_visible()
        self.keep(f"{job}-run")
        return said.inner_text()

    # --- what an eye does

    def seen(self, text: str) -> None:
        """Wait for a text, asking for the page again meanwhile, as somebody does who waits."""
        self._seen(lambda: self.page.get_by_text(text).first)

    def told(self, name: str, value: object) -> None:
        """Wait for an entry of metadata with this value."""
        row = re.compile(rf"^\s*{re.escape(name)}\s*{re.escape(str(value))}(?![\w.])")
        self._seen(lambda: self.page.get_by_role("row").filter(has_text=row).first)

    def _seen(self, what: Callable[[], Locator]) -> None:
        until = time.monotonic() + PATIENCE_SEC
        while True:
            try:
                expect(what()).to_be_visible(timeout=8_000)
                return
            except AssertionError:
                if time.monotonic() > until:
                    raise
                self.page.reload()

    def keep(self, name: str) -> None:
        """A screenshot for people."""
        self.page.screenshot(path=ARTIFACTS / f"{name}.png")
