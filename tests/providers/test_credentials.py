"""Secrets are in no message: neither whole, nor cut, nor escaped, whoever quotes them."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest
from openai import OpenAI

from batchor_engine import ApiKeyMissingError, OpenAIConnection, OpenAIProviderConfig, ProviderError
from batchor_engine.providers.credentials import headers_of, resolve_openai_api_key
from batchor_engine.providers.openai import OpenAIBatchProvider
from batchor_engine.sandbox import Fault, SandboxServer

# Azure's shape: nothing in it says that it is a key.
KEY = "0123456789abcdef0123456789abcdef"
BROKEN = "-----BEGIN TOKEN-----\nMIIabcdefghijkl\n-----END TOKEN-----"


@pytest.fixture(scope="module")
def server() -> Iterator[SandboxServer]:
    with SandboxServer(clock="manual") as running:
        yield running


def said_of(server: SandboxServer, provider: OpenAIBatchProvider, words: str) -> str:
    """What an error says where the server answers with these words."""
    server.faults.add(Fault("http_error", on="batches.list", status=400, message=words))
    with pytest.raises(ProviderError) as caught:
        provider.list_batches()
    provider.close()
    return str(pickle.loads(pickle.dumps(caught.value)))


def provider_at(server: SandboxServer, **config: object) -> OpenAIBatchProvider:
    given = {"model": "m", "api_key": KEY, "base_url": server.base_url, **config}
    return OpenAIBatchProvider(OpenAIProviderConfig(**given))  # type: ignore[arg-type]


@pytest.mark.parametrize("before", [0, 450, 470, 490])
def test_a_key_that_a_cut_goes_through_is_not_shown_in_part(server: SandboxServer, before: int) -> None:
    assert KEY[:4] not in said_of(server, provider_at(server), "x" * before + KEY)


def test_the_key_of_a_given_client_is_not_shown(server: SandboxServer) -> None:
    with OpenAI(api_key=KEY, base_url=server.base_url) as client:
        given = OpenAIBatchProvider(OpenAIProviderConfig(model="m"), client)
        assert "no [redacted] here" in said_of(server, given, f"no {KEY} here")


def test_a_short_value_of_a_header_hides_no_words(server: SandboxServer) -> None:
    provider = provider_at(server, headers={"X-Tier": "e"}, api_key="any")
    assert "there is a mistake in the request, not in any key" in said_of(
        server, provider, "there is a mistake in the request, not in any key"
    )


def test_a_secret_within_another_leaves_no_rest(server: SandboxServer) -> None:
    provider = provider_at(server, headers={"X-Gateway": f"Token {KEY}"})
    assert "no [redacted] here" in said_of(server, provider, f"no Token {KEY} here")


def test_the_reason_of_a_failed_batch_holds_no_key(server: SandboxServer) -> None:
    provider = provider_at(server)
    record = provider._expect_batch(
        {
            "id": "batch_1",
            "status": "failed",
            "errors": {"data": [{"code": "x", "message": f"upstream refused {KEY}"}]},
        },
        "reading batch batch_1",
    )
    assert provider.explain_failure(record).message == "upstream refused [redacted]"
    with pytest.raises(ProviderError, match=r"understood: '<p>\[redacted\]</p>'"):
        provider._expect_batch(f"<p>{KEY}</p>", "reading batch batch_1")
    provider.close()


def test_a_header_that_http_forbids_is_refused_by_name(server: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_TOKEN", BROKEN)
    connection = OpenAIConnection(api_key=KEY, base_url=server.base_url, header_env={"X-Gateway": "GATEWAY_TOKEN"})
    config = connection.apply(OpenAIProviderConfig(model="m"))
    assert isinstance(config, OpenAIProviderConfig)
    provider = OpenAIBatchProvider(config)
    words = "no usable value for the header 'X-Gateway': the environment variable GATEWAY_TOKEN has a line break"
    for call in (provider.check_ready, provider.list_batches, lambda: headers_of(config)):
        with pytest.raises(ApiKeyMissingError) as caught:
            call()
        assert str(caught.value).startswith(words)
        assert "MII" not in str(caught.value)


@pytest.mark.parametrize("place", ["api_key", "OPENAI_API_KEY", "AZURE_KEY"])
def test_a_key_that_http_forbids_is_refused_by_its_place(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(place.upper(), f" {KEY}\n{KEY}\n")
    config = OpenAIProviderConfig(model="m", api_key=f"{KEY}\n{KEY}" if place == "api_key" else "")
    if place == "AZURE_KEY":
        config = OpenAIProviderConfig(model="m", api_key_env=place)
    with pytest.raises(ApiKeyMissingError, match=f"no usable value for the API key: .*{place} has a line") as caught:
        resolve_openai_api_key(config)
    assert KEY not in str(caught.value)
