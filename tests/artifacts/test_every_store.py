"""What every artifact store does, wherever it keeps its files; the one with only the contract's five methods too."""

from __future__ import annotations

import io
import os
import uuid
from pathlib import Path
from typing import Any

import pytest

from batchor_engine import ArtifactStore
from batchor_engine.artifacts.urls import open_artifacts
from tests.text_only import TextOnly

BLOCK = os.urandom(1 << 20)
# Somebody's own bucket, or an emulator; its credentials come from the environment.
OWN = os.environ.get("BATCHOR_TEST_ARTIFACTS_URL")
BAD_KEYS = ["", "/a", "a//b", "a/../b", ".", "a/./b", "a\\b", "a\0b", "a/"]


@pytest.fixture(params=["local", "memory", "s3", "text", *([OWN] if OWN else [])])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    if request.param == OWN:
        return open_artifacts(f"{OWN}/{uuid.uuid4().hex}")
    if request.param == "text":
        return TextOnly(tmp_path / "root")
    if request.param == "s3":
        request.getfixturevalue("s3")
        return open_artifacts(f"s3://runs/{uuid.uuid4().hex}/deep")
    return open_artifacts(tmp_path / "root" if request.param == "local" else f"memory://{uuid.uuid4().hex}/deep")


def fill(store: ArtifactStore, key: str, content: bytes) -> None:
    with store.open_write(key) as stream:
        stream.write(content)


def content_of(store: ArtifactStore, key: str) -> bytes:
    with store.open_read(key) as stream:
        return stream.read()


@pytest.mark.parametrize("text", ["", "a\r\nb\n", "\u2028\u0085\x0b", "\N{PILE OF POO}"])
def test_text_comes_back_as_it_went(store: ArtifactStore, text: str) -> None:
    store.write_text("r/a.txt", text)
    assert store.read_text("r/a.txt") == text
    with store.stage_local_copy("r/a.txt") as path:
        assert path.read_bytes() == text.encode()


def test_text_uses_the_encoding_it_is_told(store: ArtifactStore) -> None:
    store.write_text("a", "é", encoding="latin-1")
    assert store.read_text("a", encoding="latin-1") == "é"


def test_a_second_write_replaces_the_first(store: ArtifactStore) -> None:
    store.write_text("a", "a long first text")
    store.write_text("a", "second")
    assert store.read_text("a") == "second"


def test_bytes_come_back_as_they_went_also_in_several_blocks(store: ArtifactStore) -> None:
    content = b"".join([BLOCK] * 9) + b"end"
    fill(store, "r/big", content)
    assert content_of(store, "r/big") == content
    with store.local_file("r/big") as path:
        assert path.read_bytes() == content


def test_an_empty_file_is_a_file(store: ArtifactStore) -> None:
    fill(store, "r/empty", b"")
    assert store.exists("r/empty")
    assert content_of(store, "r/empty") == b""
    assert store.read_range("r/empty", 0, 5) == b""


def test_a_reader_seeks_and_reads_lines(store: ArtifactStore) -> None:
    fill(store, "r/lines", b"one\ntwo\x0b\x85\n" + BLOCK.replace(b"\n", b" ") * 3 + b"\nlast")
    with store.open_read("r/lines") as stream:
        assert stream.readline() == b"one\n"
        assert stream.seek(-4, io.SEEK_END) == stream.tell()
        assert stream.read() == b"last"
        stream.seek(4)
        assert next(iter(stream)) == b"two\x0b\x85\n"


def test_a_file_is_opened_again_and_again(store: ArtifactStore) -> None:
    fill(store, "r/a", b"0123456789")
    with store.reading("r/a") as opening:
        for start in (7, 0):
            with opening() as stream:
                stream.seek(start)
                assert stream.read(2) == b"0123456789"[start : start + 2]


@pytest.mark.parametrize(("offset", "length", "found"), [(3, 4, b"3456"), (8, 9, b"89"), (10, 1, b""), (50, 1, b"")])
def test_a_range_is_read_alone(store: ArtifactStore, offset: int, length: int, found: bytes) -> None:
    fill(store, "r/a", b"0123456789")
    assert store.read_range("r/a", offset, length) == found


def test_a_file_that_was_just_made_is_read_here(store: ArtifactStore) -> None:
    with store.made_file("r/a", lambda path: path.write_bytes(BLOCK)) as path:
        assert path.read_bytes() == BLOCK
        assert content_of(store, "r/a") == BLOCK
    assert content_of(store, "r/a") == BLOCK


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_while_filling_leaves_nothing(store: ArtifactStore, error: type[BaseException]) -> None:
    def break_off(path: Path) -> None:
        path.write_bytes(b"half")
        raise error

    with pytest.raises(error), store.new_file("r/a") as path:
        break_off(path)
    with pytest.raises(error), store.open_write("r/a") as stream:
        break_off(Path(stream.name))
    with pytest.raises(error), store.made_file("r/a", break_off):
        pass
    assert not store.exists("r/a")
    assert list(store.list_keys("")) == []


def test_a_file_is_invisible_until_it_is_whole(store: ArtifactStore) -> None:
    with store.open_write("r/a") as stream:
        stream.write(BLOCK * 9)
        stream.flush()
        assert not store.exists("r/a")
        assert list(store.list_keys("")) == []
    assert store.exists("r/a")


def test_missing_files_are_missing_in_every_way(store: ArtifactStore, tmp_path: Path) -> None:
    calls: list[Any] = [
        lambda: store.read_text("a/b"),
        lambda: store.stage_local_copy("a/b").__enter__(),
        lambda: store.local_file("a/b").__enter__(),
        lambda: store.open_read("a/b").__enter__(),
        lambda: store.read_range("a/b", 0, 1),
        lambda: store.export_to_directory("a/b", tmp_path / "out"),
    ]
    for call in calls:
        with pytest.raises(FileNotFoundError):
            call()
    assert not (tmp_path / "out").exists()
    assert (store.exists("a/b"), store.delete("a/b"), store.remove("a/b")) == (False, False, False)


@pytest.mark.parametrize("key", BAD_KEYS)
def test_a_malformed_key_is_refused_by_every_method(store: ArtifactStore, key: str, tmp_path: Path) -> None:
    calls: list[Any] = [
        lambda: store.write_text(key, "x"),
        lambda: store.read_text(key),
        lambda: store.delete(key),
        lambda: store.stage_local_copy(key).__enter__(),
        lambda: store.export_to_directory(key, tmp_path / "out"),
    ]
    if not isinstance(store, TextOnly):
        calls += [
            lambda: store.remove(key),
            lambda: store.exists(key),
            lambda: store.new_file(key).__enter__(),
            lambda: store.open_write(key).__enter__(),
            lambda: store.made_file(key, lambda path: path).__enter__(),
            lambda: store.local_file(key).__enter__(),
            lambda: store.open_read(key).__enter__(),
            lambda: store.read_range(key, 0, 1),
        ]
    for call in calls:
        with pytest.raises(ValueError, match="key"):
            call()


def test_delete_says_whether_there_was_one(store: ArtifactStore) -> None:
    store.write_text("r/a", "x")
    fill(store, "r/b", b"x")
    assert (store.delete("r/a"), store.delete("r/a")) == (True, False)
    assert (store.remove("r/b"), store.remove("r/b")) == (True, False)
    assert not store.exists("r/b")


def test_export_copies_to_the_key_below_the_destination(store: ArtifactStore, tmp_path: Path) -> None:
    store.write_text("r/deep/a", "content")
    copied = store.export_to_directory("r/deep/a", tmp_path / "out")
    assert copied == tmp_path / "out" / "r" / "deep" / "a"
    assert copied.read_text() == "content"
    assert copied.stat().st_mode & 0o777 == 0o600


def test_keys_are_listed_below_a_folder_and_not_beside_it(store: ArtifactStore) -> None:
    for key in ("r1/b", "r1/a/c", "r10/a", "z", "r1/100%25 =é"):
        store.write_text(key, "x")
    if isinstance(store, TextOnly):
        # Five methods cannot list.
        assert list(store.list_keys("")) == []
        return
    assert sorted(store.list_keys("")) == ["r1/100%25 =é", "r1/a/c", "r1/b", "r10/a", "z"]
    assert list(store.list_keys("r1")) == list(store.list_keys("r1/")) == ["r1/100%25 =é", "r1/a/c", "r1/b"]
    assert list(store.list_keys("nothing")) == []
    assert store.read_text("r1/100%25 =é") == "x"
