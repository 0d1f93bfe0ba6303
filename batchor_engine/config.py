"""What a user says about a provider: model, endpoint, limits, connection.

Law: the public payload of a config holds no secret, and a connection (key, URL, organization, project) never takes part
in the question whether two configs ask for the same answers.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, TypeAlias, cast
from urllib.parse import urlsplit

from batchor_engine.models import EmbeddingItemResult, Form, JSONObject, JSONValue, Moderation

_HOUR_SEC = 3600
_PAST_PATH = re.compile(r"[?#]")
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")


class ProviderKind(StrEnum):
    """Providers that come with the engine."""

    OPENAI = "openai"


class OpenAIEndpoint(StrEnum):
    """Endpoints a batch may address."""

    RESPONSES = "/v1/responses"
    CHAT_COMPLETIONS = "/v1/chat/completions"
    EMBEDDINGS = "/v1/embeddings"
    MODERATIONS = "/v1/moderations"


class OpenAIModel(StrEnum):
    """Models by name; any other string is passed on as it is."""

    GPT_5_2 = "gpt-5.2"
    GPT_5_1 = "gpt-5.1"
    GPT_5 = "gpt-5"
    GPT_5_MINI = "gpt-5-mini"
    GPT_5_NANO = "gpt-5-nano"
    GPT_4_1 = "gpt-4.1"
    GPT_4_1_MINI = "gpt-4.1-mini"
    GPT_4_1_NANO = "gpt-4.1-nano"


class OpenAIReasoningEffort(StrEnum):
    """Reasoning efforts by name; any other string is passed on as it is."""

    NONE = "none"
    MINIMAL = "minimal"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    XHIGH = "xhigh"


OpenAIModelName: TypeAlias = OpenAIModel | str
OpenAIReasoningLevel: TypeAlias = OpenAIReasoningEffort | str


class ProviderConfig(ABC):
    """Settings of one provider; subclass it together with BatchProvider to add a provider."""

    poll_interval_sec: float

    @property
    @abstractmethod
    def provider_kind(self) -> ProviderKind:
        """Stable id for dispatch and storage."""

    @abstractmethod
    def to_payload(self) -> JSONObject:
        """All fields as JSON, secrets included."""

    def to_public_payload(self) -> JSONObject:
        """All fields as JSON without secrets; override it where there are credentials."""
        return self.to_payload()

    def answer_payload(self) -> JSONObject:
        """The fields that a resumed run must share with the stored one; cadence is not one of them."""
        return {key: value for key, value in self.to_public_payload().items() if key != "poll_interval_sec"}

    def budget_limits(self) -> OpenAIEnqueueLimitConfig:
        """The enqueued-token limits of this provider; none by default."""
        return OpenAIEnqueueLimitConfig()

    def scope_model(self) -> str:
        """The model whose enqueued-token limit this config shares with other runs."""
        return ""

    def answer_form(self) -> Form:
        """What every answer is, where the endpoint alone decides that; None for text, which a job's model may read."""
        return None


@dataclass(frozen=True)
class OpenAIEnqueueLimitConfig:
    """How many prompt tokens may be enqueued at once; a limit of 0 switches the budget off.

    The usable part is min(int(limit * target_ratio), limit - headroom); max_batch_enqueued_tokens caps one batch (0: no
    further cap); quota_scope names runs that share a limit across accounts or projects.
    """

    enqueued_token_limit: int = 0
    target_ratio: float = 0.7
    headroom: int = 0
    max_batch_enqueued_tokens: int = 0
    quota_scope: str = ""

    def __post_init__(self) -> None:
        limit = self.enqueued_token_limit
        _require(limit >= 0, f"enqueued_token_limit must not be negative, but is {limit}")
        _require(0 < self.target_ratio <= 1, f"target_ratio must be above 0 and at most 1, not {self.target_ratio}")
        _require(self.headroom >= 0, f"headroom must not be negative, but is {self.headroom}")
        _require(not limit or self.headroom < limit, f"headroom {self.headroom} leaves nothing of the limit {limit}")
        cap = self.max_batch_enqueued_tokens
        _require(cap >= 0, f"max_batch_enqueued_tokens must not be negative, but is {cap}")
        effective = self.effective_limit
        if effective is not None:
            _require(
                effective > 0, f"enqueued_token_limit {limit} with target_ratio {self.target_ratio} leaves nothing"
            )
            _require(cap <= effective, f"max_batch_enqueued_tokens {cap} is above the usable limit {effective}")

    @property
    def effective_limit(self) -> int | None:
        """Tokens that may be enqueued at once, or None without a budget."""
        limit = self.enqueued_token_limit
        return min(int(limit * self.target_ratio), limit - self.headroom) if limit else None

    @property
    def per_batch_limit(self) -> int | None:
        """Tokens that one batch may hold, or None without a budget."""
        return min(self.max_batch_enqueued_tokens or (self.effective_limit or 0), self.effective_limit or 0) or None

    def to_payload(self) -> JSONObject:
        return {item.name: getattr(self, item.name) for item in fields(self)}

    @classmethod
    def from_payload(cls, payload: Mapping[str, JSONValue]) -> OpenAIEnqueueLimitConfig:
        """Read stored limits; unknown keys are skipped, a wrong type is a TypeError."""
        known = _known(cls, payload)
        for name in ("enqueued_token_limit", "headroom", "max_batch_enqueued_tokens"):
            _expect(known, name, int)
        _expect(known, "target_ratio", (int, float))
        _expect(known, "quota_scope", str)
        return cls(**known)


# Endpoints that answer with data of their own shape; the others answer with text.
_ANSWER_FORMS: Mapping[OpenAIEndpoint, Form] = {
    OpenAIEndpoint.EMBEDDINGS: EmbeddingItemResult,
    OpenAIEndpoint.MODERATIONS: Moderation,
}


_ALSO_TEXT = ("api_key_env", "line_url", "batch_endpoint")


def _no_options() -> JSONObject:
    return {}


@dataclass(frozen=True)
class OpenAIProviderConfig(ProviderConfig):
    """An OpenAI model behind the Batch API, or any server that speaks it.

    An empty `api_key` means the environment variable named by `api_key_env`, else the runner's connection, else
    OPENAI_API_KEY; the same order holds for `base_url` (OPENAI_BASE_URL), `organization` and `project`.
    `request_options` are merged into every request body. `header_env` holds HTTP headers by the environment variable
    with their value. `line_url` and `batch_endpoint` replace the endpoint where a server spells it otherwise, in the
    request lines and in the creation of a batch.
    """

    model: OpenAIModelName
    api_key: str = field(default="", repr=False)
    endpoint: OpenAIEndpoint = OpenAIEndpoint.RESPONSES
    completion_window: str = "24h"
    request_timeout_sec: int = 30
    poll_interval_sec: float = 1.0
    reasoning_effort: OpenAIReasoningLevel | None = None
    enqueue_limits: OpenAIEnqueueLimitConfig = field(default_factory=OpenAIEnqueueLimitConfig)
    base_url: str | None = None
    organization: str | None = None
    project: str | None = None
    request_options: JSONObject = field(default_factory=_no_options)
    # Seconds after which the provider deletes a batch's output files by itself (1 hour to 30 days); None: its default.
    output_expires_after_sec: int | None = None
    # Extra HTTP headers may hold credentials of a gateway, so they are treated like the key: never stored, never shown.
    headers: dict[str, str] = field(default_factory=dict[str, str], repr=False)
    api_key_env: str | None = None
    header_env: dict[str, str] = field(default_factory=dict[str, str])
    line_url: str | None = None
    batch_endpoint: str | None = None
    # The same for the request files that are uploaded.
    input_expires_after_sec: int | None = None

    _SECRET = frozenset({"api_key", "headers"})
    # Connection and cadence change nothing about the answers, so a resume does not compare them (API.md T5.13). The url
    # stands in every stored line, so it is no such setting.
    _NOT_COMPARED = frozenset(
        {
            "request_timeout_sec", "poll_interval_sec", "base_url", "organization", "project", "api_key_env",
            "header_env", "batch_endpoint", "output_expires_after_sec", "input_expires_after_sec",
        }
    )  # fmt: skip

    def __post_init__(self) -> None:
        _expect(vars(self), "request_timeout_sec", (int, float))
        _expect(vars(self), "poll_interval_sec", (int, float))
        _require(bool(self.model), "OpenAIProviderConfig.model must not be empty")
        _expect(vars(self), "model", str)
        _require(self.request_timeout_sec > 0, f"request_timeout_sec must be above 0, not {self.request_timeout_sec}")
        _require(self.poll_interval_sec > 0, f"poll_interval_sec must be above 0, not {self.poll_interval_sec}")
        object.__setattr__(self, "endpoint", OpenAIEndpoint(self.endpoint))
        thinks = self.endpoint not in _ANSWER_FORMS
        _require(thinks or self.reasoning_effort is None, f"{self.endpoint} takes no reasoning_effort")
        for name in ("output_expires_after_sec", "input_expires_after_sec"):
            kept = getattr(self, name)
            in_range = kept is None or _HOUR_SEC <= kept <= 30 * 24 * _HOUR_SEC
            _require(in_range, f"{name} must be between 1 hour and 30 days in seconds, not {kept}")
        for name in ("line_url", "batch_endpoint"):
            path = getattr(self, name)
            _require(
                path is None or path.startswith("/"), f"{name} is a path such as '/chat/completions', not {path!r}"
            )
        check_base_url(self.base_url)
        check_variable_names(self.api_key_env, self.header_env)

    @property
    def provider_kind(self) -> ProviderKind:
        return ProviderKind.OPENAI

    def to_payload(self) -> JSONObject:
        payload: dict[str, Any] = {item.name: getattr(self, item.name) for item in fields(self)}
        plain = {key: str(value) if isinstance(value, StrEnum) else value for key, value in payload.items()}
        return {**plain, "enqueue_limits": self.enqueue_limits.to_payload()}

    def to_public_payload(self) -> JSONObject:
        return {key: value for key, value in self.to_payload().items() if key not in self._SECRET}

    def answer_payload(self) -> JSONObject:
        return {key: value for key, value in self.to_public_payload().items() if key not in self._NOT_COMPARED}

    def budget_limits(self) -> OpenAIEnqueueLimitConfig:
        return self.enqueue_limits

    def scope_model(self) -> str:
        return str(self.model)

    def answer_form(self) -> Form:
        return _ANSWER_FORMS.get(self.endpoint)

    @classmethod
    def from_payload(cls, payload: Mapping[str, JSONValue]) -> OpenAIProviderConfig:
        """Read a stored config, with or without the key; unknown keys are skipped, a wrong type is a TypeError."""
        known = _known(cls, payload)
        for name in ("model", "api_key", "endpoint", "completion_window"):
            _expect(known, name, str)
        _expect(known, "request_timeout_sec", int)
        _expect(known, "poll_interval_sec", (int, float))
        for name in ("output_expires_after_sec", "input_expires_after_sec"):
            _expect(known, name, (int, type(None)))
        for name in ("reasoning_effort", "base_url", "organization", "project", *_ALSO_TEXT):
            _expect(known, name, (str, type(None)))
        for name in ("enqueue_limits", "request_options", "headers", "header_env"):
            _expect(known, name, dict)
        if "model" not in known:
            raise TypeError("a stored OpenAIProviderConfig needs the key 'model'")
        if "enqueue_limits" in known:
            known["enqueue_limits"] = OpenAIEnqueueLimitConfig.from_payload(known["enqueue_limits"])
        return cls(**known)


@dataclass(frozen=True)
class OpenAIConnection:
    """How to reach the provider, supplied by the host and never stored; an empty field falls back to the environment.

    `request_timeout_sec` replaces the config's; `quota_scope` names the account in budgets and in batch records.
    `api_key_env` and `header_env` name environment variables, as in OpenAIProviderConfig.
    """

    api_key: str = field(default="", repr=False)
    base_url: str | None = None
    organization: str | None = None
    project: str | None = None
    request_timeout_sec: int | None = None
    quota_scope: str = ""
    headers: dict[str, str] = field(default_factory=dict[str, str], repr=False)
    api_key_env: str | None = None
    header_env: dict[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        check_base_url(self.base_url)
        check_variable_names(self.api_key_env, self.header_env)

    def apply(self, config: ProviderConfig) -> ProviderConfig:
        """Fill what the config leaves open; what the config says itself wins."""
        if not isinstance(config, OpenAIProviderConfig):
            return config
        limits = config.enqueue_limits
        return replace(
            config,
            api_key=config.api_key or ("" if config.api_key_env else self.api_key),
            api_key_env=config.api_key_env or self.api_key_env,
            base_url=config.base_url or self.base_url,
            organization=config.organization or self.organization,
            project=config.project or self.project,
            request_timeout_sec=self.request_timeout_sec or config.request_timeout_sec,
            enqueue_limits=replace(limits, quota_scope=limits.quota_scope or self.quota_scope),
            headers={**self.headers, **config.headers},
            header_env={**self.header_env, **config.header_env},
        )


def check_base_url(url: str | None, name: str = "base_url") -> None:
    """Refuse a URL that is not http(s), or that carries credentials or a query, since the URL is stored and shown."""
    if not url:
        return
    parts = urlsplit(url)
    # What may be a secret stays out of the messages.
    shown = f"{parts.scheme}://{parts.hostname or ''}" if "@" in url else _PAST_PATH.split(url)[0]
    _require(parts.scheme in {"http", "https"} and bool(parts.hostname), f"{name} must be http(s), not {shown!r}")
    _require(not (parts.username or parts.password), f"{name} must not carry credentials: put the key into api_key")
    _require(
        not _PAST_PATH.search(url),
        f"{name} {shown!r} must end with its path, without '?' or '#': a key goes into api_key, a header into headers "
        "or header_env, and a parameter of every call needs a client of your own",
    )


def check_variable_names(key: str | None, headers: Mapping[str, str]) -> None:
    """Refuse what is no name of an environment variable, since names are stored and a pasted secret must not be."""
    for where, name in (("api_key_env", key), *((f"header_env[{header!r}]", name) for header, name in headers.items())):
        # The message leaves the value out: it may be the secret itself.
        fine = name is None or _VARIABLE.fullmatch(name)
        _require(bool(fine), f"{where} must name an environment variable in capitals, such as AZURE_OPENAI_API_KEY")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


def _known(cls: type[Any], payload: Mapping[str, JSONValue]) -> dict[str, Any]:
    if not isinstance(cast(object, payload), Mapping):
        raise TypeError(f"{cls.__name__} is read from a JSON object, not from {type(payload).__name__}")
    names = {item.name for item in fields(cls)}
    return {key: value for key, value in payload.items() if key in names}


def _expect(values: Mapping[str, Any], name: str, kinds: type | tuple[type, ...]) -> None:
    if name not in values:
        return
    value, allowed = values[name], kinds if isinstance(kinds, tuple) else (kinds,)
    # bool is an int to Python, never to a user who wrote a limit.
    if isinstance(value, bool) or not isinstance(value, allowed):
        wanted = " or ".join(kind.__name__ for kind in allowed)
        raise TypeError(f"{name} must be of type {wanted}, not {type(value).__name__} ({value!r})")
