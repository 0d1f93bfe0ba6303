"""Names of things: run ids, custom ids, the metadata that marks a remote batch as ours, and when two jobs are one.

Law: a custom id follows from item id and attempt alone, so an answer finds its row without any lookup table.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import cast

from batchor_engine.models import JSONObject, JSONValue

MAX_RUN_ID_CHARS = 200
MAX_CUSTOM_ID_CHARS = 64
_ATTEMPT_ROOM = len(":a") + 6
_PLAIN_ID = re.compile(rf"(?!sha256\.[0-9a-f]{{40}}\Z)[A-Za-z0-9_.:-]{{1,{MAX_CUSTOM_ID_CHARS - _ATTEMPT_ROOM}}}")

INTENT_KEY = "batchor_intent"
RUN_KEY = "run_id"
MAX_METADATA_PAIRS, MAX_METADATA_KEY, MAX_METADATA_VALUE = 16, 64, 512


def new_run_id(now: datetime, token: str) -> str:
    """batchor_{UTC time}_{8 hex}; `token` is any text that is random enough."""
    return f"batchor_{now.astimezone(UTC):%Y%m%dT%H%M%SZ}_{hashlib.sha256(token.encode()).hexdigest()[:8]}"


def check_run_id(run_id: str) -> str:
    """The id itself, or a ValueError where it is empty or too long to name files after."""
    if not isinstance(cast(object, run_id), str):
        raise TypeError(f"run_id must be a text, not {type(run_id).__name__} ({run_id!r})")
    if not run_id:
        raise ValueError("run_id must not be empty: leave it out, and a run id is made for you")
    if len(run_id) > MAX_RUN_ID_CHARS:
        raise ValueError(f"run_id has {len(run_id)} characters; a run id has at most {MAX_RUN_ID_CHARS}")
    if "\0" in run_id:
        raise ValueError(f"run_id {run_id!r} holds a NUL character, which neither files nor databases can keep")
    return run_id


def custom_id(item_id: str, attempt: int) -> str:
    """`{item_id}:a{attempt}`, or a hash of the item id where a provider would refuse it.

    An item id that looks like such a hash is hashed too, so two items never share a custom id.
    """
    if _PLAIN_ID.fullmatch(item_id):
        return f"{item_id}:a{attempt}"
    return f"sha256.{hashlib.sha256(item_id.encode('utf-8', 'surrogatepass')).hexdigest()[:40]}:a{attempt}"


def for_attempt(first: str, attempt: int) -> str:
    """The custom id of a later attempt, from that of any attempt."""
    return f"{first.rpartition(':a')[0]}:a{attempt}"


def remote_metadata(run_id: str, intent_id: str, batch_metadata: Mapping[str, str]) -> dict[str, str]:
    """What the remote batch carries: the user's pairs, our run id and our intent id."""
    return {**batch_metadata, RUN_KEY: run_id, INTENT_KEY: intent_id}


def check_batch_metadata(pairs: Mapping[str, object]) -> None:
    """ValueError or TypeError, naming the pair, where the provider would refuse the metadata or lose ours."""
    room = MAX_METADATA_PAIRS - 2
    if len(pairs) > room:
        raise ValueError(f"batch_metadata has {len(pairs)} pairs; the provider leaves room for {room} beside ours")
    for key, value in pairs.items():
        if not isinstance(value, str):
            raise TypeError(f"batch_metadata[{key!r}] must be a string, not {type(value).__name__}")
        if key in {RUN_KEY, INTENT_KEY}:
            raise ValueError(f"batch_metadata must not set {key!r}: batchor finds its batches by it")
        if not key or len(key) > MAX_METADATA_KEY or len(value) > MAX_METADATA_VALUE:
            raise ValueError(
                f"batch_metadata[{key!r}]: a key has 1 to {MAX_METADATA_KEY} characters, a value at most "
                f"{MAX_METADATA_VALUE}"
            )


def input_file_name(intent_id: str) -> str:
    """The remote name of a request file, by which an orphan is recognised."""
    return f"batchor_{intent_id}.jsonl"


def config_differences(stored: JSONObject, given: JSONObject) -> list[str]:
    """Dotted names of what differs between the compared parts of two run configs, stored against given."""
    return sorted(_differences("", _readable(stored.get("compared")), _readable(given.get("compared"))))


def _readable(compared: JSONValue) -> JSONValue:
    """The compared parts with the model as module:Class and its schema as a short hash."""
    if not isinstance(compared, dict):
        return compared
    model, schema = compared.get("model"), compared.get("schema")
    named = f"{model['module']}:{model['qualname']}" if isinstance(model, dict) else None
    if isinstance(schema, dict):
        schema = {"name": schema["name"], "fields of the model, by hash": str(schema["hash"])[:12]}
    return {**compared, "model": named, "schema": schema}


def _differences(path: str, one: JSONValue, other: JSONValue) -> list[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        names = {*one, *other}
        return [found for name in names for found in _differences(_join(path, name), one.get(name), other.get(name))]
    return [] if one == other else [f"{path} ({_short(one)} stored, {_short(other)} given)"]


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _short(value: JSONValue) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
