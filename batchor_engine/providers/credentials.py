"""Keys and headers: where they come from, and which texts may be shown nowhere.

Law: a value is read when a remote call is about to happen; one that no HTTP header may hold is refused by the name of
its place, because the HTTP client's own complaint quotes it.
"""

from __future__ import annotations

import os
from typing import Any

from batchor_engine.config import OpenAIProviderConfig
from batchor_engine.errors import ApiKeyMissingError
from batchor_engine.providers.records import field_of

_KEY_VARIABLE = "OPENAI_API_KEY"
# A shorter value is a tier or a test's key, and is in many words.
_SHORTEST_SECRET = 8


def resolve_openai_api_key(config: OpenAIProviderConfig) -> str:
    """The key of the config, else of the environment; ApiKeyMissingError (a ValueError) where there is none."""
    variable = config.api_key_env or _KEY_VARIABLE
    # A newline at the end of a secret file is no part of the key.
    given = config.api_key.strip()
    if key := given or _environment(variable):
        return _fit(key, "for the API key", "api_key" if given else f"the environment variable {variable}")
    if config.api_key_env:
        raise ApiKeyMissingError(f"no API key: the environment variable {variable} is not set")
    raise ApiKeyMissingError


def headers_of(config: OpenAIProviderConfig) -> dict[str, str]:
    """The extra headers of every call, those from the environment read now; ApiKeyMissingError where one is missing."""
    found = {name: _fit(value, f"for the header {name!r}", "headers") for name, value in config.headers.items()}
    for header, variable in config.header_env.items():
        value = _environment(variable)
        if not value:
            raise ApiKeyMissingError(
                f"no value for the header {header!r}: the environment variable {variable} is not set"
            )
        found[header] = _fit(value, f"for the header {header!r}", f"the environment variable {variable}")
    return found


def secrets_of(config: OpenAIProviderConfig, client: Any = None) -> list[str]:
    """What no message may hold, the longest first: one secret may be a part of another."""
    given = field_of(client, "api_key")
    found = {
        given if isinstance(given, str) else "",
        config.api_key.strip(),
        _environment(_KEY_VARIABLE),
        _environment(config.api_key_env or _KEY_VARIABLE),
        *config.headers.values(),
        *map(_environment, config.header_env.values()),
    }
    return sorted((one for one in found if len(one) >= _SHORTEST_SECRET), key=len, reverse=True)


def _environment(variable: str) -> str:
    return os.environ.get(variable, "").strip()


def _fit(value: str, purpose: str, place: str) -> str:
    if value.isprintable():
        return value
    raise ApiKeyMissingError(
        f"no usable value {purpose}: {place} has a line break or another control character within, which no HTTP "
        "header may hold"
    )
