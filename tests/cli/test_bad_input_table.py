"""Everything that can be wrong with an input, a place or a provider, in one table.

Each case says what spoils a start, what the command answers, and what mends it. Afterwards nothing is lost: no store
was made, or it is healthy, and the mended command ends with every row answered.
"""

from __future__ import annotations

import gzip
import importlib
import json
import os
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cli.conftest import ROWS, Shell

GOOD_LINE = '{"slug": "a", "body": "Boil"}\n'
NO_SERVER = "http://127.0.0.1:9/v1"


@dataclass(frozen=True)
class Bad:
    """One thing that is wrong. `content` is the input file; `spoil` does any other harm and returns what undoes it."""

    name: str
    says: tuple[str, ...]
    content: str | bytes | None = None
    file: str = "rows.csv"
    words: tuple[str, ...] = ()
    prompt: tuple[str, ...] = ("--prompt-field", "body")
    code: int = 1
    stored: int = 0
    spoil: Callable[[Shell, pytest.MonkeyPatch], Callable[[], object]] | None = None
    # The same run goes on once the cause is gone; a corrected file is another source and needs another run.
    same_run: bool = field(default=False)

    def __str__(self) -> str:
        return self.name


def utf(codec: str) -> bytes:
    return ROWS.encode(codec)


def parquet(**columns: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


def no_key(shell: Shell, patch: pytest.MonkeyPatch) -> Callable[[], object]:
    patch.delenv("OPENAI_API_KEY")
    return lambda: patch.setenv("OPENAI_API_KEY", "sk-test")


def folder_as_input(shell: Shell, patch: pytest.MonkeyPatch) -> Callable[[], object]:
    (shell.folder / "rows.csv").unlink()
    (shell.folder / "rows.csv").mkdir()
    return lambda: None


def base_url(url: str) -> Callable[[Shell, pytest.MonkeyPatch], Callable[[], object]]:
    def spoil(shell: Shell, patch: pytest.MonkeyPatch) -> Callable[[], object]:
        good = os.environ["OPENAI_BASE_URL"]
        patch.setenv("OPENAI_BASE_URL", url)
        return lambda: patch.setenv("OPENAI_BASE_URL", good)

    return spoil


def store_file(content: bytes) -> Callable[[Shell, pytest.MonkeyPatch], Callable[[], object]]:
    """A file that lies where the store should be, and must be left as it is."""

    def spoil(shell: Shell, patch: pytest.MonkeyPatch) -> Callable[[], object]:
        path = shell.write("runs.sqlite3", content)
        return lambda: (path.read_bytes() == content or pytest.fail("the file was changed"), path.unlink())

    return spoil


def database(*statements: str) -> bytes:
    with sqlite3.connect(":memory:") as base:
        for statement in statements:
            base.execute(statement)
        base.commit()
        return base.serialize()


def newer_store(shell: Shell, patch: pytest.MonkeyPatch) -> Callable[[], object]:
    shell.start(run_id="older")
    path = shell.folder / "runs.sqlite3"

    def version(change: int) -> None:
        with sqlite3.connect(path) as base:
            assert base.execute(f"UPDATE schema_version SET version = version + {change}").rowcount == 1
        base.close()

    version(1000)
    return lambda: version(-1000)


def folder_as_store(shell: Shell, patch: pytest.MonkeyPatch) -> Callable[[], object]:
    (shell.folder / "runs.sqlite3").mkdir()
    return (shell.folder / "runs.sqlite3").rmdir


def module(text: str) -> Callable[[Shell, pytest.MonkeyPatch], Callable[[], object]]:
    """A module of models called `wrong` in the working folder."""

    def spoil(shell: Shell, patch: pytest.MonkeyPatch) -> Callable[[], object]:
        path = shell.write("wrong.py", f"from pydantic import BaseModel\n{text}\n")

        def mend() -> None:
            path.write_text("from pydantic import BaseModel\nclass Dish(BaseModel):\n    name: str\n    minutes: int\n")
            forget()

        def forget() -> None:
            sys.modules.pop("wrong", None)
            importlib.invalidate_caches()

        forget()
        return mend

    return spoil


ANSWER = ("--structured-output-class", "wrong:Dish")
TEMPLATE = "--prompt-template"
FOREIGN = database("CREATE TABLE t(x)")

TABLE = [
    # encodings
    Bad("UTF-16 with its mark", ("rows.csv is utf-16, not utf-8", "--encoding utf-16"), utf("utf-16")),
    Bad("UTF-16 without a mark", ("rows.csv looks like utf-16-be", "--encoding utf-16-be"), utf("utf-16-be")),
    Bad("UTF-32", ("rows.csv is utf-32, not utf-8",), utf("utf-32")),
    Bad("gzip", ("rows.csv is gzip-compressed: decompress it",), gzip.compress(ROWS.encode())),
    Bad("gzip JSONL", ("is gzip-compressed: decompress it",), gzip.compress(GOOD_LINE.encode()), "rows.jsonl"),
    Bad("UTF-16 JSONL", ("is utf-16, not utf-8", "--encoding utf-16"), GOOD_LINE.encode("utf-16"), "rows.jsonl"),
    Bad("Latin-1", ("rows.csv is not utf-8", "--encoding"), b"slug,body\na,caf\xe9\n"),
    Bad("an encoding nobody knows", ("no text encoding 'klingon'",), words=("--encoding", "klingon")),
    # files
    Bad("no such file", ("nope.csv: No such file",), words=("--input", "nope.csv")),
    Bad("a folder", ("rows.csv is a folder: name its files",), spoil=folder_as_input),
    Bad("standard input", ("- cannot be read a second time", "save it to a file"), words=("--input", "-"), code=2),
    Bad("another kind of file", ("rows.txt is none of .csv, .jsonl, .parquet",), ROWS, "rows.txt", code=2),
    Bad("an empty file", ("rows.csv is empty",), ""),
    # rows
    Bad("a missing column", ("rows.csv has no column 'body': its columns are 'slug', 'text'",), "slug,text\na,x\n"),
    Bad("a missing id column", ("has no column 'slug'",), "id,body\na,x\n"),
    Bad("two columns of one name", ("more than one column named 'body'",), "slug,body,body\na,x,y\n"),
    Bad("more cells than columns", ("row 2", "3 fields, but the header has 2"), "slug,body\na,x\nb,y,z\n", stored=1),
    Bad("an open quote", ("row 2", "quoted field is still open"), 'slug,body\na,x\nb,"y\n', stored=1),
    Bad("an empty id", ("row 2", "item id is empty"), "slug,body\na,x\n,y\n", stored=1),
    Bad("an id twice", ("item id 'a' twice", "Make them so"), "slug,body\na,x\na,y\n"),
    Bad("a line that is not JSON", ("rows.jsonl:2", "row 2 is not JSON"), GOOD_LINE + "oops\n", "rows.jsonl", stored=1),
    Bad("a first line that is not JSON", ("rows.jsonl:1", "row 1 is not JSON"), "oops\n", "rows.jsonl"),
    Bad("a line that is no object", ("row 2", "must be an object"), GOOD_LINE + "[1]\n", "rows.jsonl", stored=1),
    Bad("an id that is no text", ("the id is 1.5",), '{"slug": 1.5, "body": "x"}\n', "rows.jsonl"),
    Bad("half a character in a prompt", ("'a'", "surrogate"), '{"slug": "a", "body": "\\ud800"}\n', "rows.jsonl"),
    Bad("half a character in an id", ("lone surrogate",), '{"slug": "\\ud800", "body": "x"}\n', "rows.jsonl"),
    Bad("Parquet that is not Parquet", ("rows.parquet is not a Parquet file",), ROWS, "rows.parquet"),
    Bad("Parquet cut short", ("rows.parquet is not a Parquet file",), parquet(slug=["a"])[:-9], "rows.parquet"),
    Bad("Parquet without a column", ("has no column 'body'",), parquet(slug=["a"]), "rows.parquet"),
    Bad("bytes as a prompt", ("row 1", "bytes"), parquet(slug=["a"], body=[b"\x00"]), "rows.parquet"),
    # options
    Bad("a brace alone", ("'{' at character 1 has no partner",), prompt=(TEMPLATE, "{body"), code=2),
    Bad("no column in the template", ("names no {column}",), prompt=(TEMPLATE, "Hello"), code=2),
    Bad("two prompts", ("give exactly one of them",), words=(TEMPLATE, "{body}"), code=2),
    Bad("no column of that name", ("has no column 'nope'",), prompt=(TEMPLATE, "{nope} {body}")),
    Bad("no attempts at all", ("max_attempts must be greater than 0",), words=("--max-attempts", "0"), code=2),
    Bad("an endpoint nobody has", ("'/v1/dreams' is none of",), words=("--endpoint", "/v1/dreams"), code=2),
    Bad("metadata that hides ours", ("must not set 'run_id'",), words=("--batch-metadata", "run_id=x")),
    # models
    Bad("a class that is not there", ("has no Pydantic model 'Dish'",), words=ANSWER, spoil=module("")),
    Bad("a module that fails", ("Cannot import 'wrong'", "division"), words=ANSWER, spoil=module("1 / 0")),
    Bad("a module that is not there", ("Cannot import 'nowhere'",), words=(ANSWER[0], "nowhere:Dish")),
    Bad("no module at all", ("'Dish' is not module:Class",), words=(ANSWER[0], "Dish"), code=2),
    Bad(
        "a schema that is not strict",
        ("Dish cannot be sent as a strict schema", "any"),
        words=ANSWER,
        spoil=module("class Dish(BaseModel):\n    any: dict[str, int]"),
    ),
    # the key and the server
    Bad("no key", ("OPENAI_API_KEY is not set", ".env"), spoil=no_key, same_run=True),
    Bad("a server that is no address", ("OPENAI_BASE_URL must be http(s), not",), spoil=base_url("foo"), same_run=True),
    # the store
    Bad("a database of others", ("holds tables of other software",), spoil=store_file(FOREIGN), same_run=True),
    Bad("a store that is no database", ("is not a database",), spoil=store_file(b"hello " * 999), same_run=True),
    Bad("a store of a newer batchor", ("has schema version 100", "newer one"), spoil=newer_store, same_run=True),
    Bad("a folder as store", ("runs.sqlite3",), spoil=folder_as_store, same_run=True),
    Bad("a store below a file", ("rows.csv/runs.sqlite3",), words=("--db-path", "rows.csv/runs.sqlite3")),
    Bad("files below a file", ("rows.csv/files",), words=("--artifacts-url", "rows.csv/files")),
]  # fmt: skip


def start(shell: Shell, bad: Bad, *, run_id: str = "r", file: str, mended: bool = False) -> Any:
    words, prompt = ((), ("--prompt-field", "body")) if mended and not bad.same_run else (bad.words, bad.prompt)
    given = ("--input", file, "--id-field", "slug", "--model", "gpt-5-mini", *prompt, *words)
    return shell.on("start", run_id, *given)


@pytest.mark.parametrize("bad", TABLE, ids=str)
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_lost(
    bad: Bad, shell: Shell, monkeypatch: pytest.MonkeyPatch, paid: Callable[[], int]
) -> None:
    if bad.content is not None:
        shell.write(bad.file, bad.content)
    mend = bad.spoil(shell, monkeypatch) if bad.spoil else lambda: None

    said = start(shell, bad, file=bad.file)

    assert (said.code, said.out) == (bad.code, b""), said.err
    assert [part for part in bad.says if part not in said.complaint] == [], said.complaint
    assert len(said.complaint) < 700
    mend()
    if not (shell.folder / "runs.sqlite3").exists() and not bad.same_run:
        assert not list(shell.folder.glob("*_artifacts"))
        return
    if bad.stored:
        assert f"{bad.stored} row is stored in run 'r'" in said.complaint
        assert shell.on("cancel", "r").json["failed_items"] + paid() == bad.stored
    else:
        assert "r" not in [run["run_id"] for run in shell.stored()]
    assert_healthy(shell)

    shell.write("good.csv", ROWS)
    again = "r" if bad.same_run else "again"
    assert start(shell, bad, run_id=again, file="rows.csv" if bad.same_run else "good.csv", mended=True).code == 0
    ended = shell.on("wait", again, "--poll-interval", 0.01, "--timeout", 60)
    assert ended.json["status_counts"] == {"completed": 3}
    assert_healthy(shell)


def assert_healthy(shell: Shell) -> None:
    report = shell("doctor", "--offline", "--deep", "--db-path", "runs.sqlite3")
    assert (report.code, report.json["healthy"]) == (0, True), report.out


@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        ("mark.csv", b"\xef\xbb\xbf" + ROWS.encode(), 3),
        ("mark.jsonl", b"\xef\xbb\xbf" + GOOD_LINE.encode(), 1),
        ("blank.csv", "\n\nslug,body\n\na,x\n\n\nb,y\n\n", 2),
        ("blank.jsonl", "\n" + GOOD_LINE + "\n  \t\n" + '{"slug": "b", "body": "y"}', 2),
        ("windows.csv", ROWS.replace("\n", "\r\n"), 3),
        ("windows.jsonl", GOOD_LINE.replace("\n", "\r\n") + '{"slug": "b", "body": "y"}\r\n', 2),
        ("zero.csv", "slug,body\na,x\0y\n", 1),
        ("zero.jsonl", '{"slug": "a", "body": "x\\u0000y"}\n', 1),
        ("breaks.jsonl", '{"slug": "a\u2028", "body": "x\u2028y\u0085z"}\n', 1),
        ("breaks.csv", "slug,body\na\u2028,x\u2029y\u0085\n", 1),
        ("short.csv", "slug,body\na\nb,y\n", 2),
        ("nan.jsonl", '{"slug": "a", "body": NaN}\n', 1),
        ("deep.jsonl", json.dumps({"slug": "a", "body": [[[{"x": [1, None, True]}]]]}) + "\n", 1),
        ("nulls.parquet", parquet(slug=[1, 2], body=[None, "y"]), 2),
    ],
)
def test_what_only_looks_wrong_simply_works(shell: Shell, name: str, content: str | bytes, rows: int) -> None:
    shell.write(name, content)
    assert shell.finish(rows=name).json["status_counts"] == {"completed": rows}
    ids = [line["item_id"] for line in shell.on("results", "r").lines]
    assert len(set(ids)) == rows
