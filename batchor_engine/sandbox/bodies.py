"""Response bodies as the four endpoints send them, built around one answer."""

from __future__ import annotations

import base64
import math
import struct
from typing import Any

from .generate import rng_for
from .text import as_list, as_object
from .values import JSONObject, SandboxAnswer, SandboxRequest, Usage

MODERATION_CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)
RESPONSE_ECHO: JSONObject = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None},
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}


def response_body(request: SandboxRequest, answer: SandboxAnswer, usage: Usage, key: str, now: int) -> JSONObject:
    """A Response object: a reasoning item when an effort was asked for, then one message item."""
    effort = as_object(request.body.get("reasoning")).get("effort")
    output: list[JSONObject] = []
    if effort not in (None, "none"):
        output.append({"id": f"rs_{key}", "type": "reasoning", "summary": []})
    status = "incomplete" if answer.incomplete else "completed"
    if not (answer.incomplete and answer.text == ""):
        output.append(
            {
                "id": f"msg_{key}",
                "type": "message",
                "status": status,
                "role": "assistant",
                "content": [_content(answer)],
            }
        )
    echo = {name: request.body.get(name, default) for name, default in RESPONSE_ECHO.items()}
    return {
        "id": f"resp_{key}",
        "object": "response",
        "created_at": now,
        "completed_at": None if answer.incomplete else now,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if answer.incomplete else None,
        "model": request.model,
        "output": output,
        **echo,
        "usage": usage.as_responses(),
    }


def _content(answer: SandboxAnswer) -> JSONObject:
    if answer.refusal is not None:
        return {"type": "refusal", "refusal": answer.refusal}
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": answer.text}


def chat_body(request: SandboxRequest, answer: SandboxAnswer, usage: Usage, key: str, now: int) -> JSONObject:
    """A chat.completion object with one choice."""
    refused = answer.refusal is not None
    return {
        "id": f"chatcmpl-{key}",
        "object": "chat.completion",
        "created": now,
        "model": request.model,
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": None if refused else answer.text,
                    "refusal": answer.refusal,
                    "annotations": [],
                },
                "logprobs": None,
                "finish_reason": "length" if answer.incomplete else "stop",
            }
        ],
        "usage": usage.as_chat(),
        "service_tier": "default",
        "system_fingerprint": None,
    }


def inputs_of(body: JSONObject) -> list[Any]:
    """The inputs of an embeddings or moderations body; a list of token numbers, or of parts (objects), is one input."""
    given = body.get("input")
    if not isinstance(given, list):
        return [given]
    many = as_list(given)
    return [many] if many and (all(isinstance(one, int) for one in many) or isinstance(many[0], dict)) else many


def embedding_body(request: SandboxRequest, usage: Usage, dimensions: int, seed: int) -> JSONObject:
    """An embeddings list: one unit vector per input, the same for the same text, model and size."""
    size = request.body.get("dimensions") or dimensions
    packed = request.body.get("encoding_format") == "base64"
    vectors = [unit_vector(f"{seed}:{request.model}:{one}", size) for one in inputs_of(request.body)]
    data = [
        {"object": "embedding", "index": at, "embedding": pack(vector) if packed else vector}
        for at, vector in enumerate(vectors)
    ]
    total = {"prompt_tokens": usage.input_tokens, "total_tokens": usage.input_tokens}
    return {"object": "list", "data": data, "model": request.model, "usage": total}


def unit_vector(text: str, size: int) -> list[float]:
    """A vector of length one that depends on the text alone."""
    rng = rng_for("embedding", text)
    raw = [rng.gauss(0.0, 1.0) for _ in range(size)]
    length = math.sqrt(sum(one * one for one in raw)) or 1.0
    return [round(one / length, 8) for one in raw]


def pack(vector: list[float]) -> str:
    """A vector as base64 of little-endian 32-bit floats."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")


def moderation_body(request: SandboxRequest, key: str) -> JSONObject:
    """A moderations answer; a text is flagged for violence when it speaks of killing."""
    return {
        "id": f"modr-{key}",
        "model": request.model or "omni-moderation-latest",
        "results": [_verdict(one) for one in inputs_of(request.body)],
    }


def _verdict(given: Any) -> JSONObject:
    text = str(given)
    kinds = ["text"]
    if isinstance(given, list):
        found = {str(as_object(part).get("type")).removesuffix("_url") for part in as_list(given)}
        kinds = [kind for kind in ("text", "image") if kind in found]
    rng = rng_for("moderation", text)
    scores = {name: round(rng.random() * 0.01, 6) for name in MODERATION_CATEGORIES}
    if "kill" in text.lower():
        scores["violence"] = 0.93
    flags = {name: score > 0.5 for name, score in scores.items()}
    return {
        "flagged": any(flags.values()),
        "categories": flags,
        "category_scores": scores,
        "category_applied_input_types": dict.fromkeys(MODERATION_CATEGORIES, kinds),
    }
