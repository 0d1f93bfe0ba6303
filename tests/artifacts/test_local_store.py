"""Files below a root: whole, private, and never anywhere else."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from batchor_engine.artifacts.local import LocalArtifactStore
from batchor_engine.errors import ArtifactMissingError, StoreError

BAD_KEYS = ["", "/a", "..", "../a", "a/../b", "a/..", "a\\b", "\\a", "a\0b", "a//b", "./a", "a/.", "a/"]


@pytest.fixture
def store(tmp_path: Path) -> LocalArtifactStore:
    return LocalArtifactStore(tmp_path / "root")


def everything(folder: Path) -> list[Path]:
    return list(folder.rglob("*"))


def fail_while_filling(store: LocalArtifactStore, key: str, error: type[BaseException]) -> None:
    with store.new_file(key) as path:
        path.write_bytes(b"half")
        raise error


def test_root_is_absolute_and_expands_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert LocalArtifactStore("x/../y").root == tmp_path / "y"
    assert LocalArtifactStore("~/z").root == tmp_path / "home" / "z"
    assert LocalArtifactStore("~/z").location == str(tmp_path / "home" / "z")


def test_making_a_store_creates_nothing(store: LocalArtifactStore) -> None:
    assert not store.root.exists()
    assert list(store.list_keys("")) == []
    assert store.delete("a/b") is False
    assert not store.root.exists()


@pytest.mark.parametrize("text", ["", "a\r\nb\n", "\u2028\u0085\x0b", "\N{PILE OF POO}"])
def test_text_comes_back_as_it_went(store: LocalArtifactStore, text: str) -> None:
    store.write_text("a/b.txt", text)
    assert store.read_text("a/b.txt") == text
    assert store.resolve_path("a/b.txt").read_bytes() == text.encode()


def test_text_that_cannot_be_encoded_leaves_the_old_file(store: LocalArtifactStore) -> None:
    store.write_text("a", "old")
    with pytest.raises(UnicodeEncodeError):
        store.write_text("a", "é", encoding="ascii")
    assert store.read_text("a") == "old"


@pytest.mark.parametrize("key", BAD_KEYS)
def test_a_malformed_key_is_refused_by_every_method(store: LocalArtifactStore, key: str, tmp_path: Path) -> None:
    calls = [
        lambda: store.resolve_path(key),
        lambda: store.write_text(key, "x"),
        lambda: store.read_text(key),
        lambda: store.delete(key),
        lambda: store.remove(key),
        lambda: store.stage_local_copy(key).__enter__(),
        lambda: store.local_file(key).__enter__(),
        lambda: store.new_file(key).__enter__(),
        lambda: store.open_write(key).__enter__(),
        lambda: store.export_to_directory(key, tmp_path / "out"),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="key"):
            call()
    assert everything(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX")
def test_folders_and_files_are_their_owners_alone(store: LocalArtifactStore) -> None:
    before = os.umask(0)
    try:
        store.write_text("r/requests/a.jsonl", "x")
        with store.new_file("r/results/b") as path:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            path.unlink()
            path.write_bytes(b"replaced by another program")
    finally:
        os.umask(before)
    for path in [store.root, *everything(store.root)]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX")
def test_a_folder_that_was_there_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    LocalArtifactStore(tmp_path).write_text("a/b", "x")
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_exception_while_filling_leaves_nothing(store: LocalArtifactStore, error: type[BaseException]) -> None:
    with pytest.raises(error):
        fail_while_filling(store, "r/results/a.parquet", error)
    assert everything(store.root) == []


def test_an_exception_while_replacing_keeps_the_old_file(store: LocalArtifactStore) -> None:
    store.write_text("a", "old")
    with pytest.raises(RuntimeError):
        fail_while_filling(store, "a", RuntimeError)
    assert store.read_text("a") == "old"
    assert everything(store.root) == [store.resolve_path("a")]


def test_a_file_is_invisible_until_it_is_whole(store: LocalArtifactStore) -> None:
    with store.open_write("r/a") as stream:
        stream.write(b"12")
        stream.flush()
        assert list(store.list_keys("")) == []
        assert not store.resolve_path("r/a").exists()
    assert list(store.list_keys("")) == ["r/a"]


def test_what_a_killed_writer_left_is_swept_once_it_is_old(store: LocalArtifactStore) -> None:
    writer = store.new_file("r/requests/a")
    left = writer.__enter__()
    assert store.sweep_unfinished("r") == 0
    os.utime(left, (1, 1))
    assert store.sweep_unfinished("other") == 0
    assert store.sweep_unfinished("r") == 1
    assert everything(store.root) == []
    with pytest.raises(FileNotFoundError):
        writer.__exit__(None, None, None)
    assert everything(store.root) == []


def test_missing_files_name_the_root(store: LocalArtifactStore, tmp_path: Path) -> None:
    calls = [
        lambda: store.read_text("a/b"),
        lambda: store.stage_local_copy("a/b").__enter__(),
        lambda: store.local_file("a/b").__enter__(),
        lambda: store.export_to_directory("a/b", tmp_path / "out"),
    ]
    for call in calls:
        with pytest.raises(FileNotFoundError, match=str(store.root)) as caught:
            call()
        assert isinstance(caught.value, ArtifactMissingError)
    assert everything(tmp_path) == []


def test_staging_yields_the_file_itself(store: LocalArtifactStore) -> None:
    store.write_text("a/b", "x")
    with store.stage_local_copy("a/b") as staged, store.local_file("a/b") as local:
        assert staged == local == store.root / "a" / "b"
    assert store.read_text("a/b") == "x"


def test_delete_says_whether_there_was_one_and_removes_emptied_parents(store: LocalArtifactStore) -> None:
    store.write_text("r/requests/a", "x")
    store.write_text("r/outputs/b", "x")
    assert store.delete("r/requests/a") is True
    assert store.delete("r/requests/a") is False
    assert not (store.root / "r" / "requests").exists()
    assert store.remove("r/outputs/b") is True
    assert store.root.is_dir()
    assert everything(store.root) == []


def test_delete_below_a_file_finds_nothing(store: LocalArtifactStore) -> None:
    store.write_text("a", "x")
    assert store.delete("a/b") is False
    assert store.read_text("a") == "x"


def test_a_folder_is_no_artifact(store: LocalArtifactStore) -> None:
    store.write_text("a/b", "x")
    for call in (store.delete, store.remove, store.read_text, lambda key: store.new_file(key).__enter__()):
        with pytest.raises(IsADirectoryError):
            call("a")
    assert store.read_text("a/b") == "x"


@pytest.mark.parametrize("key", ["out/secret", "out", "deep/out/secret"])
def test_a_symlink_cannot_lead_a_key_out_of_the_root(store: LocalArtifactStore, tmp_path: Path, key: str) -> None:
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "secret").write_text("theirs")
    (store.root / "deep").mkdir(parents=True)
    (store.root / "out").symlink_to(outside)
    (store.root / "deep" / "out").symlink_to("../../outside")
    calls = [store.read_text, store.delete, lambda key: store.write_text(key, "mine")]
    for call in calls:
        with pytest.raises(ValueError, match="symlink"):
            call(key)
    assert (outside / "secret").read_text() == "theirs"
    assert list(store.list_keys("")) == []


def test_a_file_symlink_to_the_outside_is_not_read(store: LocalArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("theirs")
    store.root.mkdir()
    (store.root / "a").symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match="symlink"):
        store.read_text("a")


def test_a_root_that_is_itself_a_symlink_works(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    LocalArtifactStore(tmp_path / "link").write_text("a/b", "x")
    assert (tmp_path / "real" / "a" / "b").read_text() == "x"


def test_export_copies_to_the_key_below_the_destination(store: LocalArtifactStore, tmp_path: Path) -> None:
    store.write_text("r/outputs/a", "new")
    for _ in range(2):
        path = store.export_to_directory("r/outputs/a", tmp_path / "x" / "y")
        assert path == tmp_path / "x" / "y" / "r" / "outputs" / "a"
        assert path.read_text() == "new"
    assert store.read_text("r/outputs/a") == "new"


def test_export_to_the_root_itself_changes_nothing(store: LocalArtifactStore) -> None:
    store.write_text("a", "x")
    assert store.export_to_directory("a", store.root) == store.root / "a"
    assert store.read_text("a") == "x"


def test_a_root_that_cannot_be_written_says_so_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = LocalArtifactStore(tmp_path / "file" / "root")
    with pytest.raises(StoreError, match="choose another one") as caught:
        store.write_text("a", "x")
    assert str(store.root) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_writers_and_deleters_of_one_folder_do_not_disturb_each_other(store: LocalArtifactStore) -> None:
    failures: list[BaseException] = []

    def work(name: int) -> None:
        try:
            for turn in range(60):
                store.write_text(f"r/deep/{name}", str(turn))
                assert store.delete(f"r/deep/{name}")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert everything(store.root) == []
