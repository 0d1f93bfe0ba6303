"""Vectors and verdicts from the command line."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchor_engine.sandbox import SandboxServer
from tests.cli.conftest import Shell

EMBED = ("--endpoint", "/v1/embeddings", "--request-option", "dimensions=8")


def test_vectors_go_from_a_file_to_a_parquet_column(shell: Shell) -> None:
    waited = shell.finish(*EMBED)
    assert waited.json["completed_items"] == 3
    lines = shell.on("results", "r").lines
    assert [len(line["embedding"]) for line in lines] == [8, 8, 8]
    assert shell.on("export-results", "r", "--output", "v.parquet").code == 0
    column = pq.read_table("v.parquet")["embedding"]
    assert column.type == pa.list_(pa.float32())
    assert column.to_pylist() == [line["embedding"] for line in lines]


def test_a_plan_of_vectors_can_start(shell: Shell) -> None:
    given = ("--input", "rows.csv", "--id-field", "slug", "--prompt-field", "body", "--model", "text-embedding-3-small")
    planned = shell("plan", *given, *EMBED)
    assert planned.code == 0
    assert planned.json["samples"][0]["body"]["encoding_format"] == "base64"


def test_verdicts_go_from_a_file_to_a_parquet_column(shell: Shell) -> None:
    shell.finish("--endpoint", "/v1/moderations")
    assert [line["output_json"]["flagged"] for line in shell.on("results", "r").lines] == [False] * 3
    assert shell.on("export-results", "r", "--output", "m.parquet").code == 0
    assert pq.read_table("m.parquet")["flagged"].to_pylist() == [False] * 3


def test_a_model_for_an_endpoint_that_answers_with_data_stores_nothing(shell: Shell, models: str) -> None:
    refused = shell.start(*EMBED, "--structured-output-class", f"{models}:Dish")
    assert refused.code == 1
    assert "needs an endpoint that answers with text" in refused.complaint
    assert shell.stored() == []


def test_a_server_with_its_own_names_is_reached_by_options(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    names = ("--api-key-env", "AZURE_KEY", "--header-env", "api-key=AZURE_KEY", "--batch-endpoint", "/responses")
    refused = shell.start(*names)
    assert refused.code == 1
    assert "the environment variable AZURE_KEY is not set" in refused.complaint
    assert shell.stored() == []
    monkeypatch.setenv("AZURE_KEY", "secret")
    with SandboxServer(clock="polls", azure=True) as server:
        waited = shell.finish(*names, "--base-url", server.base_url, "--input-expires-after-sec", "86400")
        assert waited.json["completed_items"] == 3
