from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from batchor_engine.config import OpenAIEnqueueLimitConfig, OpenAIProviderConfig, ProviderConfig
from batchor_engine.models import JSONObject, JSONValue
from batchor_engine.providers.clients import SharedClients
from batchor_engine.providers.openai import OpenAIBatchProvider
from batchor_engine.providers.registry import ProviderRegistry, build_default_provider_registry

CONFIG = OpenAIProviderConfig(
    model="gpt-5-mini", api_key="sk-very-secret", enqueue_limits=OpenAIEnqueueLimitConfig(enqueued_token_limit=1000)
)


@dataclass(frozen=True)
class LocalConfig(ProviderConfig):
    port: int
    poll_interval_sec: float = 1.0

    @property
    def provider_kind(self) -> Any:
        return "local"

    def to_payload(self) -> JSONObject:
        return {"port": self.port}

    @classmethod
    def from_payload(cls, payload: Mapping[str, JSONValue]) -> LocalConfig:
        port = payload["port"]
        assert isinstance(port, int)
        return cls(port)


def test_openai_is_built_in() -> None:
    assert isinstance(build_default_provider_registry().create(CONFIG), OpenAIBatchProvider)


def test_a_config_comes_back_as_it_was_dumped() -> None:
    registry = build_default_provider_registry()
    assert registry.load_config(registry.dump_config(CONFIG)) == CONFIG


def test_a_public_dump_holds_no_key_and_still_loads() -> None:
    registry = build_default_provider_registry()
    dumped = registry.dump_config(CONFIG, include_secrets=False)
    assert "very-secret" not in repr(dumped)
    assert dumped["provider_kind"] == "openai"
    loaded = registry.load_config(dumped)
    assert isinstance(loaded, OpenAIProviderConfig)
    assert loaded.api_key == ""


def test_a_custom_kind_is_any_other_string() -> None:
    registry = build_default_provider_registry()
    made: list[Any] = []
    registry.register(
        kind="local", factory=lambda config: made.append(config) or "provider", loader=LocalConfig.from_payload
    )
    config = LocalConfig(8080)
    assert registry.create(config) == "provider"
    assert made == [config]
    assert registry.load_config(registry.dump_config(config)) == config


def test_registering_again_replaces() -> None:
    registry = build_default_provider_registry()
    registry.register(kind="openai", factory=lambda config: "mine", loader=OpenAIProviderConfig.from_payload)
    assert registry.create(CONFIG) == "mine"


def test_an_unregistered_kind_is_a_value_error() -> None:
    with pytest.raises(ValueError, match=r"no provider is registered for 'openai' \(registered: none\)"):
        ProviderRegistry().create(CONFIG)
    with pytest.raises(ValueError, match="'other'"):
        build_default_provider_registry().load_config({"provider_kind": "other", "config": {}})


@pytest.mark.parametrize(
    "payload",
    [
        None,
        "text",
        [],
        {},
        {"provider_kind": "openai"},
        {"provider_kind": 7, "config": {}},
        {"provider_kind": "openai", "config": []},
        {"provider_kind": "openai", "config": {}},
        {"provider_kind": "openai", "config": {"model": 7}},
        {"provider_kind": "openai", "config": {"model": "m", "request_timeout_sec": True}},
    ],
)
def test_a_wrong_type_is_a_type_error(payload: Any) -> None:
    with pytest.raises(TypeError):
        build_default_provider_registry().load_config(payload)


@pytest.mark.parametrize(("kind", "error"), [("", ValueError), (None, TypeError), (3, TypeError)])
def test_a_kind_is_a_filled_string(kind: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="kind"):
        ProviderRegistry().register(kind=kind, factory=lambda config: config, loader=LocalConfig.from_payload)


def test_only_a_provider_config_makes_a_provider() -> None:
    with pytest.raises(TypeError, match="dict"):
        build_default_provider_registry().create({})  # type: ignore[arg-type]


def test_the_sdk_and_the_tokenizer_are_imported_on_first_use() -> None:
    code = (
        "import sys; from batchor_engine.providers.registry import build_default_provider_registry as build;"
        "from batchor_engine.config import OpenAIProviderConfig;"
        "p = build().create(OpenAIProviderConfig(model='m')); p.account_label; repr(p);"
        "print([name for name in ('openai', 'tiktoken', 'httpx2', 'pyarrow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_runs_of_one_connection_share_a_client_and_others_do_not() -> None:
    registry = build_default_provider_registry()

    def client(key: str, **settings: Any) -> Any:
        made = registry.create(OpenAIProviderConfig(model="m", api_key=key, **settings))
        assert isinstance(made, OpenAIBatchProvider)
        return made._connected()

    first = client("sk-one", headers={"X-Team": "a"})
    assert client("sk-one", headers={"X-Team": "a"}) is first
    others = [client("sk-two"), client("sk-one"), client("sk-one", base_url="http://127.0.0.1:1/v1")]
    assert len({id(one) for one in (first, *others)}) == 4


def test_a_provider_that_is_closed_leaves_the_shared_client_open() -> None:
    registry = build_default_provider_registry()
    one, other = (registry.create(OpenAIProviderConfig(model="m", api_key="sk")) for _ in range(2))
    assert isinstance(one, OpenAIBatchProvider)
    assert isinstance(other, OpenAIBatchProvider)
    client = other._connected()
    assert one._connected() is client
    one.close()
    assert not client.is_closed()


def test_a_forked_child_speaks_through_a_client_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    clients = SharedClients()
    parents = clients.get({"api_key": "sk"}, dict)
    monkeypatch.setattr("os.getpid", lambda: -1)
    assert clients.get({"api_key": "sk"}, dict) is not parents
