from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st

from batchor_engine.core.tokens import Tokenizers, estimate_tokens, ratio_tokens

BYTES = tiktoken.Encoding(
    "bytes", pat_str=r"(?s:.)", mergeable_ranks={bytes([n]): n for n in range(256)}, special_tokens={"<|end|>": 256}
)


class Loads:
    """A loader that counts, and fails or blocks on demand."""

    def __init__(self, error: Exception | None = None, gate: threading.Event | None = None) -> None:
        self.asked: list[str] = []
        self.error, self.gate = error, gate

    def __call__(self, model: str) -> tiktoken.Encoding:
        self.asked.append(model)
        if self.gate:
            self.gate.wait(30)
        if self.error:
            raise self.error
        return BYTES


@pytest.mark.parametrize(("characters", "per_token", "tokens"), [(0, 4, 0), (1, 4, 1), (4, 4, 1), (5, 4, 2), (9, 3, 3)])
def test_the_ratio_rounds_up(characters: int, per_token: int, tokens: int) -> None:
    assert ratio_tokens(characters, per_token) == tokens


def test_the_tokenizer_counts_where_it_loads() -> None:
    assert estimate_tokens("héllo", model="m", chars_per_token=4, tokenizers=Tokenizers(Loads())) == 6


def test_special_tokens_in_a_prompt_are_text() -> None:
    assert Tokenizers(Loads()).count("<|end|>", "m") == 7


@given(st.text(max_size=50))
def test_counting_in_slices_loses_nothing(text: str) -> None:
    long = text + "a" * 120_000
    assert Tokenizers(Loads()).count(long, "m") == len(long.encode())


@pytest.mark.parametrize("error", [OSError("offline"), ValueError("hash mismatch"), ImportError("no tiktoken")])
def test_a_tokenizer_that_cannot_load_is_tried_once_a_process(error: Exception) -> None:
    load = Loads(error)
    tokenizers = Tokenizers(load)
    for model in ("a", "b", "a", "c"):
        assert estimate_tokens("x" * 9, model=model, chars_per_token=4, tokenizers=tokenizers) == 3
    assert load.asked == ["a"]


def test_an_unknown_model_says_nothing_about_the_others() -> None:
    load = Loads(KeyError("no such model"))
    tokenizers = Tokenizers(load)
    assert tokenizers.encoding("unknown") is None
    load.error = None
    assert tokenizers.encoding("known") is BYTES
    assert tokenizers.encoding("unknown") is None
    assert load.asked == ["unknown", "known"]


def test_a_load_that_hangs_is_left_behind_at_the_deadline_and_never_tried_again() -> None:
    gate = threading.Event()
    load = Loads(gate=gate)
    tokenizers = Tokenizers(load, deadline_sec=0.01)
    try:
        assert tokenizers.encoding("a") is None
        assert tokenizers.encoding("b") is None
        assert load.asked == ["a"]
    finally:
        gate.set()


def test_many_threads_load_once() -> None:
    load = Loads()
    tokenizers = Tokenizers(load)
    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(lambda _: tokenizers.count("abc", "m"), range(64)))
    assert counts == [3] * 64
    assert load.asked == ["m"]


@pytest.mark.parametrize(
    ("model", "encoding"), [("gpt-5.2", "o200k_base"), ("gpt-99-nano", "o200k_base"), ("my-own-model", None)]
)
def test_a_model_newer_than_the_table_uses_the_newest_vocabulary(
    monkeypatch: pytest.MonkeyPatch, model: str, encoding: str | None
) -> None:
    def unknown(name: str) -> tiktoken.Encoding:
        raise KeyError(name)

    asked: list[str] = []
    monkeypatch.setattr(tiktoken, "encoding_for_model", unknown)
    monkeypatch.setattr(tiktoken, "get_encoding", lambda name: asked.append(name) or BYTES)
    assert Tokenizers().encoding(model) is (BYTES if encoding else None)
    assert asked == ([encoding] if encoding else [])
