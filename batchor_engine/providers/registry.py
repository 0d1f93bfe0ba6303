"""Which provider serves which kind of config.

Law: a stored payload is turned into a config only by the loader registered for its kind; the built-in kinds are loaded
when first used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, cast

from batchor_engine.config import OpenAIProviderConfig, ProviderConfig, ProviderKind
from batchor_engine.models import JSONObject, JSONValue
from batchor_engine.ports.providers import BatchProvider, ProviderConfigLoader, ProviderFactory
from batchor_engine.providers.clients import SharedClients


class _Entry(NamedTuple):
    factory: ProviderFactory
    loader: ProviderConfigLoader


class ProviderRegistry:
    """Providers by kind; registering a kind again replaces it."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._clients = SharedClients()

    def register(self, *, kind: ProviderKind | str, factory: ProviderFactory, loader: ProviderConfigLoader) -> None:
        """Make `factory` build the provider and `loader` read the stored config of `kind`."""
        self._entries[_checked_kind(kind)] = _Entry(factory, loader)

    def create(self, config: ProviderConfig) -> BatchProvider:
        """The provider of a config; ValueError for a kind that is not registered."""
        if not isinstance(cast(object, config), ProviderConfig):
            raise TypeError(f"a provider is made from a ProviderConfig, not from {type(config).__name__}")
        return self._entry(config.provider_kind).factory(config)

    def dump_config(self, config: ProviderConfig, *, include_secrets: bool = True) -> JSONObject:
        """The config and its kind as JSON; without secrets it is what may be stored."""
        payload = config.to_payload() if include_secrets else config.to_public_payload()
        return {"provider_kind": str(config.provider_kind), "config": payload}

    def load_config(self, payload: Mapping[str, JSONValue]) -> ProviderConfig:
        """Read what dump_config() wrote; a wrong shape is a TypeError, an unregistered kind a ValueError."""
        if not isinstance(cast(object, payload), Mapping):
            raise TypeError(f"a stored provider config must be an object, not {type(payload).__name__}")
        kind, config = payload.get("provider_kind"), payload.get("config")
        if not isinstance(kind, str):
            raise TypeError(f"provider_kind of a stored config must be a string, not {kind!r}")
        if not isinstance(config, Mapping):
            raise TypeError(f"config of a stored {kind!r} provider must be an object, not {type(config).__name__}")
        return self._entry(kind).loader(config)

    @property
    def clients(self) -> SharedClients:
        """The clients that providers of this registry may use together."""
        return self._clients

    def close(self) -> None:
        """Close the connections that its providers share; a runner does so with the registry that it made itself."""
        self._clients.close()

    def _entry(self, kind: ProviderKind | str) -> _Entry:
        entry = self._entries.get(_checked_kind(kind))
        if entry is None:
            known = ", ".join(sorted(self._entries)) or "none"
            raise ValueError(f"no provider is registered for {str(kind)!r} (registered: {known})")
        return entry


def build_default_provider_registry() -> ProviderRegistry:
    """A registry with every provider that comes with the engine."""
    registry = ProviderRegistry()

    def openai(config: OpenAIProviderConfig) -> BatchProvider:
        from batchor_engine.providers.openai import OpenAIBatchProvider

        return OpenAIBatchProvider.sharing(config, registry.clients)

    registry.register(kind=ProviderKind.OPENAI, factory=openai, loader=OpenAIProviderConfig.from_payload)
    return registry


def _checked_kind(kind: ProviderKind | str) -> str:
    if not isinstance(cast(object, kind), str):
        raise TypeError(f"a provider kind is a ProviderKind or another string, not {kind!r}")
    if not kind:
        raise ValueError("a provider kind must not be empty")
    return str(kind)
