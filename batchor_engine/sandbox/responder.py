"""Who answers: the sandbox's own generator, or a user's callable given as such or as "module:attr"."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any, cast

from pydantic_core import to_json

from .errors import SandboxError
from .generate import CannotFitError, fit, plain_text, rng_for
from .text import as_object, count_tokens, wants_json
from .values import JSONObject, Responder, SandboxAnswer, SandboxRequest, Usage

REASONING = {"minimal": 0, "low": 64, "medium": 192, "high": 640, "xhigh": 1280, "max": 2560}


def load_responder(given: Responder | str | None) -> Responder | None:
    """The callable that was given, imported if it was named; None stands for the sandbox's generator."""
    if given is None or callable(given):
        return given
    module, colon, attribute = given.partition(":")
    if not colon:
        raise SandboxError(f"the responder {given!r} must be named as module:attribute")
    # `python -m` puts the current directory on the path, a console script does not.
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found: Any = importlib.import_module(module)
        for name in attribute.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError) as error:
        raise SandboxError(f"the responder {given!r} cannot be imported: {error}") from error
    if not callable(found):
        raise SandboxError(f"the responder {given!r} is not callable")
    return cast("Callable[[SandboxRequest], str | JSONObject | SandboxAnswer]", found)


def default_answer(request: SandboxRequest, seed: int, chars: int) -> SandboxAnswer:
    """An answer that depends on the texts of the request and fits its schema."""
    schema_text = "" if request.schema is None else to_json(request.schema).decode()
    rng = rng_for(str(seed), request.prompt, request.system, schema_text)
    if request.schema is not None:
        try:
            return SandboxAnswer(text=dump(fit(request.schema, rng)))
        except CannotFitError as error:
            return SandboxAnswer(status_code=400, error_code="invalid_json_schema", error_message=str(error))
    text = plain_text(rng, chars // 6 if chars else rng.randint(12, 40))
    if chars:
        text = text.ljust(chars, ".")[:chars]
    return SandboxAnswer(text=dump({"answer": text}) if wants_json(request.endpoint, request.body) else text)


def as_answer(given: str | JSONObject | SandboxAnswer) -> SandboxAnswer:
    """What a responder returned as an answer: text as it is, an object as its JSON."""
    if isinstance(given, SandboxAnswer):
        return given
    return SandboxAnswer(text=given if isinstance(given, str) else dump(given))


def dump(value: Any) -> str:
    """JSON text with its characters unescaped, as models write it."""
    return to_json(value).decode("utf-8")


def usage_of(request: SandboxRequest, answer: SandboxAnswer, chars_per_token: float) -> Usage:
    """The answer's own token counts, and plausible ones where it gives none."""
    tokens_in = answer.input_tokens
    if tokens_in is None:
        tokens_in = prompt_tokens(request, chars_per_token)
    cached = answer.cached_tokens
    if cached is None:
        # The provider caches whole blocks of 128 tokens once a prompt has 1,024; the system text is what repeats.
        cached = count_tokens(request.system, chars_per_token) // 128 * 128 if tokens_in >= 1024 else 0
    thought = answer.reasoning_tokens
    if thought is None:
        thought = _reasoning(request)
    said = answer.output_tokens
    if said is None:
        said = count_tokens(answer.refusal or answer.text, chars_per_token) + thought
    return Usage(tokens_in, min(cached, tokens_in), said, thought)


def prompt_tokens(request: SandboxRequest, chars_per_token: float) -> int:
    """A plausible number of tokens that the model reads for a request."""
    schema = "" if request.schema is None else dump(request.schema)
    return count_tokens(request.prompt + request.system + schema, chars_per_token) + 7


def _reasoning(request: SandboxRequest) -> int:
    effort = as_object(request.body.get("reasoning")).get("effort") or request.body.get("reasoning_effort")
    base = REASONING.get(str(effort), 0)
    return base + rng_for("reasoning", request.prompt).randrange(base // 2) if base else 0


def shorten(request: SandboxRequest, answer: SandboxAnswer, chars_per_token: float) -> SandboxAnswer:
    """The answer cut at the request's own token limit, and then marked as incomplete."""
    names = ("max_output_tokens", "max_completion_tokens", "max_tokens")
    limits = [request.body[name] for name in names if isinstance(request.body.get(name), int)]
    if not limits or answer.body is not None or answer.refusal is not None:
        return answer
    room = max(0, min(limits) - _reasoning(request))
    if count_tokens(answer.text, chars_per_token) <= room:
        return answer
    keep = answer.text[: int(room * chars_per_token)]
    return SandboxAnswer(text=keep, incomplete=True, input_tokens=answer.input_tokens)
