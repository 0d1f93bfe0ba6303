"""A local server that speaks the OpenAI Files and Batches API, strict where the provider is, with faults on demand.

Law: nothing here imports the rest of batchor_engine; the server and the client must not share a mistake.
"""

from __future__ import annotations

from .config import Phases, SandboxConfig
from .errors import SandboxError
from .faults import Fault, FaultKind, load_faults
from .server import SandboxServer, serve
from .values import Responder, SandboxAnswer, SandboxRequest

__all__ = [
    "Fault",
    "FaultKind",
    "Phases",
    "Responder",
    "SandboxAnswer",
    "SandboxConfig",
    "SandboxError",
    "SandboxRequest",
    "SandboxServer",
    "load_faults",
    "serve",
]
