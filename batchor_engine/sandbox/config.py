"""The sandbox's settings: where it listens, how fast a batch lives, and the provider's limits as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .errors import SandboxError
from .values import Responder

CLOCKS = ("real", "polls", "manual")
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Phases:
    """How long each phase lasts: seconds for the real clock, number of polls that see it for the polls clock."""

    validating: float = 0.1
    in_progress: float = 0.6
    finalizing: float = 0.2
    cancelling: float = 0.2

    def of(self, status: str) -> float:
        """The length of the phase that is called `status`; ended batches have none."""
        lengths = {
            "validating": self.validating,
            "in_progress": self.in_progress,
            "finalizing": self.finalizing,
            "cancelling": self.cancelling,
        }
        return lengths.get(status, 0.0)


def _no_limits() -> dict[str, int]:
    return {}


@dataclass(frozen=True)
class SandboxConfig:
    """All settings; the defaults give a batch of about one second of real time on a free loopback port."""

    host: str = "127.0.0.1"
    port: int = 0
    state_dir: Path | str | None = None
    responder: Responder | str | None = None
    clock: str = "real"
    phases: Phases = field(default_factory=Phases)
    polls: Phases = field(default_factory=lambda: Phases(1, 2, 1, 1))
    work_wait_sec: float = 2.0
    seed: int = 0
    shuffle: bool = True
    require_key: bool = True
    scoped: bool = False
    organization: str = "org-sandbox"
    models: tuple[str, ...] = ()
    enqueued_token_limits: Mapping[str, int] = field(default_factory=_no_limits)
    chars_per_token: float = 4.0
    window_sec: float = 86_400.0
    max_lines: int = 50_000
    max_embedding_inputs: int = 50_000
    max_file_bytes: int = 200_000_000
    max_validation_errors: int = 100
    embedding_dimensions: int = 1536
    answer_chars: int = 0
    port_file: Path | str | None = None
    # As Azure OpenAI's v1 API: paths below /openai/v1, `api-key` as a header, no expiry of batches, files that stay.
    azure: bool = False
    max_unexpiring_files: int = 500

    def __post_init__(self) -> None:
        if self.host not in LOOPBACK:
            raise SandboxError(f"the sandbox listens on loopback only: host {self.host!r} is refused, use 127.0.0.1")
        if self.clock not in CLOCKS:
            raise SandboxError(f"clock must be one of {', '.join(CLOCKS)}, not {self.clock!r}")
        if not 0 <= self.port <= 65_535:
            raise SandboxError(f"port must be 0 (free choice) to 65535, not {self.port}")
        if self.chars_per_token <= 0:
            raise SandboxError("chars_per_token must be above 0")

    @property
    def prefix(self) -> str:
        """What stands before the paths of the API."""
        return "/openai/v1" if self.azure else "/v1"

    def token_limit(self, model: str) -> int | None:
        """The enqueued-token limit of a model, `*` standing for all others; None means unlimited."""
        return self.enqueued_token_limits.get(model, self.enqueued_token_limits.get("*"))
