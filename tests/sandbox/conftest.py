"""A sandbox on a real socket and the official client before it; nothing of the engine."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from openai import OpenAI

from batchor_engine.sandbox import Phases, SandboxServer

AT_ONCE = Phases(0, 0, 0, 0)
Line = dict[str, Any]


class Shop:
    """A running sandbox, a client, and the few moves that every test makes."""

    def __init__(self, server: SandboxServer) -> None:
        self.server = server
        self.client = OpenAI(api_key="sk-test", base_url=server.base_url, max_retries=0, timeout=20)

    def line(self, custom_id: str, prompt: str = "", /, **body: Any) -> Line:
        given = {"model": "gpt-5-mini", "input": prompt or f"Say something about {custom_id}.", **body}
        return {"custom_id": custom_id, "method": "POST", "url": "/v1/responses", "body": given}

    def lines(self, count: int, **body: Any) -> list[Line]:
        return [self.line(f"r{at}", **body) for at in range(1, count + 1)]

    def structured(self, custom_id: str, schema: dict[str, Any], prompt: str = "") -> Line:
        wrapper = {"type": "json_schema", "name": "thing", "strict": True, "schema": schema}
        return self.line(custom_id, prompt, text={"format": wrapper})

    def upload(self, lines: list[Line] | bytes) -> str:
        data = lines if isinstance(lines, bytes) else b"".join(json.dumps(one).encode() + b"\n" for one in lines)
        return self.client.files.create(file=("in.jsonl", data), purpose="batch").id

    def submit(self, lines: list[Line] | bytes, endpoint: Any = "/v1/responses", **more: Any) -> Any:
        file_id = self.upload(lines)
        return self.client.batches.create(input_file_id=file_id, endpoint=endpoint, completion_window="24h", **more)

    def end(self, batch: Any) -> Any:
        """Finish a batch without counting a poll, and look at it."""
        self.server.finish(batch.id)
        return self.client.batches.retrieve(batch.id)

    def until(self, happened: Callable[[], Any]) -> None:
        """Waits for what the server does by itself; a minute is only reached where it never does."""
        end = time.monotonic() + 60
        while not happened():
            assert time.monotonic() < end, "it never happened"
            time.sleep(0.01)

    def done(self, lines: list[Line] | bytes, endpoint: Any = "/v1/responses", **more: Any) -> Any:
        return self.end(self.submit(lines, endpoint, **more))

    def raw(self, file_id: str) -> bytes:
        return self.client.files.content(file_id).content

    def rows(self, file_id: str | None) -> list[Line]:
        if not file_id:
            return []
        return [json.loads(one) for one in self.raw(file_id).split(b"\n") if one]

    def by_id(self, file_id: str | None) -> dict[str, Line]:
        return {row["custom_id"]: row for row in self.rows(file_id)}

    def text(self, row: Line) -> str:
        messages = [one for one in row["response"]["body"]["output"] if one["type"] == "message"]
        return messages[0]["content"][0]["text"]


OpenShop = Callable[..., Shop]


@pytest.fixture(scope="session")
def closers() -> Iterator[ThreadPoolExecutor]:
    """Servers take a moment to leave; the next test need not wait for that, the session does."""
    with ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.fixture
def open_shop(closers: ThreadPoolExecutor) -> Iterator[OpenShop]:
    opened: list[Shop] = []

    def make(**config: Any) -> Shop:
        server = SandboxServer(**{"clock": "polls", "polls": AT_ONCE, **config}).start()
        opened.append(Shop(server))
        return opened[-1]

    yield make
    for shop in opened:
        shop.client.close()
        closers.submit(shop.server.stop)


@pytest.fixture
def shop(open_shop: OpenShop) -> Shop:
    return open_shop()
