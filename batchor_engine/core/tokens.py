"""How many prompt tokens a request will count against an enqueued-token limit.

Law: an estimate never waits for the network longer than the deadline, and pays that wait once per process: after one
tokenizer that could not load, all are ratios.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

DEFAULT_DEADLINE_SEC = 3.0
# The tokenizer is quadratic on text without spaces and overflows its stack on a megabyte of it, so text is cut.
_SLICE_CHARS = 50_000
# Model families newer than the installed table; all of them use the newest vocabulary.
_NEWEST_FAMILIES = ("gpt-", "o1", "o3", "o4", "chatgpt-")
_NEWEST_ENCODING = "o200k_base"


class Encoding(Protocol):
    """What is needed of a tiktoken.Encoding."""

    def encode_ordinary(self, text: str) -> list[int]: ...


class Tokenizers:
    """Encodings by model, each loaded at most once, in a thread that is left behind when it takes too long."""

    def __init__(
        self, load: Callable[[str], Encoding] | None = None, *, deadline_sec: float = DEFAULT_DEADLINE_SEC
    ) -> None:
        self._load, self._deadline_sec = load or _load_encoding, deadline_sec
        self._lock = threading.Lock()
        self._known: dict[str, Encoding | None] = {}
        self._unavailable = False

    def encoding(self, model: str) -> Encoding | None:
        """The encoding of `model`, or None where there is none, now and for the rest of the process."""
        if model not in self._known:
            with self._lock:
                if model not in self._known:
                    self._known[model] = None if self._unavailable else self._load_in_time(model)
        return self._known[model]

    def count(self, text: str, model: str) -> int | None:
        """Tokens of `text` by the model's encoding, or None without one."""
        encoding = self.encoding(model)
        if encoding is None:
            return None
        return sum(
            len(encoding.encode_ordinary(text[at : at + _SLICE_CHARS])) for at in range(0, len(text), _SLICE_CHARS)
        )

    def _load_in_time(self, model: str) -> Encoding | None:
        loaded: list[Encoding] = []
        failed: list[Exception] = []

        def attempt() -> None:
            try:
                loaded.append(self._load(model))
            except Exception as error:  # noqa: BLE001 - offline, broken cache, missing package: all mean "use the ratio"
                failed.append(error)

        # The tokenizer's download has no timeout of its own and cannot be interrupted, only left alone.
        worker = threading.Thread(target=attempt, name="batchor-tokenizer", daemon=True)
        worker.start()
        worker.join(self._deadline_sec)
        if loaded:
            return loaded[0]
        # An unknown model says nothing about the others; anything else would cost each of them the same wait.
        self._unavailable = not (failed and isinstance(failed[0], KeyError))
        return None


def ratio_tokens(characters: int, chars_per_token: int) -> int:
    """Tokens by the ratio alone, rounded up."""
    return -(-characters // chars_per_token)


def estimate_tokens(text: str, *, model: str, chars_per_token: int, tokenizers: Tokenizers | None = None) -> int:
    """Tokens of `text` by the model's tokenizer, or by the ratio where it cannot load."""
    counted = (tokenizers or PROCESS_TOKENIZERS).count(text, model)
    return ratio_tokens(len(text), chars_per_token) if counted is None else counted


def _load_encoding(model: str) -> Encoding:
    import tiktoken

    try:
        return tiktoken.encoding_for_model(model)
    except KeyError:
        if model.startswith(_NEWEST_FAMILIES):
            return tiktoken.get_encoding(_NEWEST_ENCODING)
        raise


PROCESS_TOKENIZERS = Tokenizers()
