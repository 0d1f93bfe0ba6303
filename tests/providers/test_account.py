"""Which key is used and when, which account a provider speaks for, and what it estimates; no call is made."""

from __future__ import annotations

from typing import Any

import pytest

from batchor_engine.config import OpenAIConnection, OpenAIEnqueueLimitConfig, OpenAIProviderConfig
from batchor_engine.models import PromptParts
from batchor_engine.providers.openai import OpenAIBatchProvider, resolve_openai_api_key


def test_the_key_is_looked_up_only_when_a_call_is_about_to_happen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    provider = OpenAIBatchProvider(OpenAIProviderConfig(model="gpt-5-mini"))
    provider.render_request(custom_id="a", prompt_parts=PromptParts("p"))
    assert provider.account_label == "api.openai.com//"
    assert provider.lists_batches
    with pytest.raises(ValueError, match=r"OpenAIProviderConfig\(api_key=\.\.\.\).*OPENAI_API_KEY"):
        provider.get_batch("batch_1")
    provider.delete_input_file("file_1")


@pytest.mark.parametrize(
    ("given", "environment", "key"), [("sk-a", "sk-b", "sk-a"), ("", "sk-b", "sk-b"), (" sk-a\n", None, "sk-a")]
)
def test_the_configs_key_wins_over_the_environments(
    monkeypatch: pytest.MonkeyPatch, given: str, environment: str | None, key: str
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    if environment:
        monkeypatch.setenv("OPENAI_API_KEY", environment)
    assert resolve_openai_api_key(OpenAIProviderConfig(model="m", api_key=given)) == key


@pytest.mark.parametrize("environment", [None, "", " \n"])
def test_no_key_is_a_value_error_that_names_both_ways(monkeypatch: pytest.MonkeyPatch, environment: str | None) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    if environment is not None:
        monkeypatch.setenv("OPENAI_API_KEY", environment)
    with pytest.raises(ValueError, match=r"api_key=\.\.\.\).*OPENAI_API_KEY"):
        resolve_openai_api_key(OpenAIProviderConfig(model="m"))


@pytest.mark.parametrize(
    ("config", "environment", "label"),
    [
        ({}, {}, "api.openai.com//"),
        ({"base_url": "http://127.0.0.1:8000/v1"}, {}, "127.0.0.1:8000//"),
        ({}, {"OPENAI_BASE_URL": "https://gate.example/v1"}, "gate.example//"),
        ({}, {"OPENAI_BASE_URL": "https://user:secret@gate.example/v1"}, "gate.example//"),
        ({"organization": "org-1", "project": "proj-1"}, {}, "api.openai.com/org-1/proj-1"),
        ({}, {"OPENAI_ORG_ID": "org-2", "OPENAI_PROJECT_ID": "proj-2"}, "api.openai.com/org-2/proj-2"),
        ({"enqueue_limits": OpenAIEnqueueLimitConfig(quota_scope="team")}, {}, "team"),
    ],
)
def test_the_account_is_host_organization_and_project_whatever_the_key(
    monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], environment: dict[str, str], label: str
) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    labels = {
        OpenAIBatchProvider(OpenAIProviderConfig(model="m", api_key=key, **config)).account_label
        for key in ("", "sk-one", "sk-two")
    }
    assert labels == {label}


# Where a URL may hide a key, and what of it may be said.
SECRET_URLS = [
    ("http://gate.example/v1?api_key=hush-hush", "'http://gate.example/v1' must end with its path"),
    ("http://gate.example/v1#hush-hush", "'http://gate.example/v1' must end with its path"),
    ("http://gate.example/v1?to=me@hush-hush", "'http://gate.example' must end with its path"),
    ("http://me:hush-hush@gate.example/v1", "must not carry credentials"),
    ("ftp://gate.example/v1?api_key=hush-hush", r"must be http\(s\), not 'ftp://gate.example/v1'"),
]


@pytest.mark.parametrize(("url", "told"), SECRET_URLS)
def test_a_url_that_may_hold_a_key_is_refused_without_being_shown(url: str, told: str) -> None:
    for kind in (lambda: OpenAIProviderConfig(model="m", base_url=url), lambda: OpenAIConnection(base_url=url)):
        with pytest.raises(ValueError, match=f"^base_url {told}") as caught:
            kind()
        assert "hush" not in str(caught.value)


@pytest.mark.parametrize(("url", "told"), SECRET_URLS)
def test_the_environments_url_is_checked_before_a_call_and_named(
    monkeypatch: pytest.MonkeyPatch, url: str, told: str
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    provider = OpenAIBatchProvider(OpenAIProviderConfig(model="m", api_key="sk-x"))
    for act in (provider.check_ready, lambda: provider.get_batch("batch_1")):
        with pytest.raises(ValueError, match=f"^the environment variable OPENAI_BASE_URL {told}") as caught:
            act()
        assert "hush" not in str(caught.value)
    # A run that names its server does not look at the variable.
    OpenAIBatchProvider(OpenAIProviderConfig(model="m", api_key="sk-x", base_url="http://127.0.0.1/v1")).check_ready()


def test_an_estimate_falls_back_to_the_ratio_of_the_compact_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Offline:
        def count(self, text: str, model: str) -> None:
            return None

    monkeypatch.setattr("batchor_engine.core.tokens.PROCESS_TOKENIZERS", Offline())
    provider = OpenAIBatchProvider(OpenAIProviderConfig(model="gpt-5-mini"))
    line = provider.build_request_line(custom_id="é", prompt_parts=PromptParts("日本"))
    text = provider.render_request(custom_id="é", prompt_parts=PromptParts("日本")).decode()
    assert provider.estimate_request_tokens(line, chars_per_token=1) == len(text)
    assert provider.estimate_request_tokens(line, chars_per_token=4) == -(-len(text) // 4)


def test_closing_before_any_call_and_closing_a_given_client_is_harmless() -> None:
    class Given:
        closed = False

        def close(self) -> None:
            self.closed = True

    given = Given()
    OpenAIBatchProvider(OpenAIProviderConfig(model="m"), given).close()
    OpenAIBatchProvider(OpenAIProviderConfig(model="m")).close()
    assert not given.closed


def test_extra_headers_reach_the_client_and_are_never_stored_nor_shown() -> None:
    config = OpenAIProviderConfig(model="m", api_key="sk-x", headers={"X-Gateway": "gateway-secret"})
    assert "gateway-secret" not in repr(config)
    assert "headers" not in config.to_public_payload()
    assert "headers" not in config.answer_payload()
    provider = OpenAIBatchProvider(config)
    assert provider._connected().default_headers["X-Gateway"] == "gateway-secret"
    provider.close()


def test_a_named_variable_holds_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other-account")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure")
    config = OpenAIProviderConfig(model="m", api_key_env="AZURE_OPENAI_API_KEY")
    assert resolve_openai_api_key(config) == "azure"
    assert resolve_openai_api_key(OpenAIConnection(api_key="sk-host").apply(config)) == "azure"  # type: ignore[arg-type]
    monkeypatch.delenv("AZURE_OPENAI_API_KEY")
    # Another account's key must not jump in.
    with pytest.raises(ValueError, match="AZURE_OPENAI_API_KEY is not set"):
        resolve_openai_api_key(config)


@pytest.mark.parametrize("pasted", ["0123456789abcdef0123456789abcdef", "sk-abc", "", "Azure_Key"])
def test_a_key_pasted_for_a_name_is_refused_without_being_shown(pasted: str) -> None:
    for settings in ({"api_key_env": pasted}, {"header_env": {"api-key": pasted}}):
        with pytest.raises(ValueError, match="must name an environment variable") as caught:
            OpenAIProviderConfig(model="m", **settings)  # type: ignore[arg-type]
        assert not pasted or pasted not in str(caught.value)
        with pytest.raises(ValueError, match="must name an environment variable"):
            OpenAIConnection(**settings)  # type: ignore[arg-type]


def test_the_url_of_lines_is_compared_on_resume_and_the_connection_is_not() -> None:
    plain = OpenAIProviderConfig(model="m").answer_payload()
    settings: dict[str, Any] = {"batch_endpoint": "/responses", "api_key_env": "K", "input_expires_after_sec": 3600}
    assert OpenAIProviderConfig(model="m", **settings, header_env={"a": "B"}).answer_payload() == plain
    assert OpenAIProviderConfig(model="m", line_url="/responses").answer_payload() != plain
    with pytest.raises(ValueError, match="line_url is a path"):
        OpenAIProviderConfig(model="m", line_url="https://example.com/responses")


def test_a_config_with_every_setting_survives_its_payload() -> None:
    config = OpenAIProviderConfig(
        model="m", api_key_env="K", header_env={"api-key": "K"}, line_url="/x", batch_endpoint="/y",
        input_expires_after_sec=3600,
    )  # fmt: skip
    assert OpenAIProviderConfig.from_payload(config.to_payload()) == config
    assert OpenAIProviderConfig.from_payload(config.to_public_payload()) == config
