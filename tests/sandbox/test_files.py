from __future__ import annotations

import io
import os
from typing import Any

import httpx2
import openai
import pytest


def test_a_file_comes_back_as_it_was_sent(shop: Any) -> None:
    data = os.urandom(300_000) + b"\r\n--boundary\r\n"
    made = shop.client.files.create(file=("a.jsonl", data), purpose="batch")
    assert made.bytes == len(data)
    assert made.status == "processed"
    assert made.expires_at == made.created_at + 30 * 86_400
    assert shop.raw(made.id) == data
    assert shop.client.files.retrieve(made.id) == made


def test_an_open_file_handle_is_uploaded_under_its_name(shop: Any, tmp_path: Any) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n')
    with path.open("rb") as handle:
        made = shop.client.files.create(file=handle, purpose="batch")
    assert made.filename == "rows.jsonl"


def test_an_empty_upload_is_a_file_of_no_bytes(shop: Any) -> None:
    made = shop.client.files.create(file=("a.jsonl", b""), purpose="batch")
    assert (made.bytes, shop.raw(made.id)) == (0, b"")


def test_a_deleted_file_is_gone(shop: Any) -> None:
    file_id = shop.upload(b"{}\n")
    assert shop.client.files.delete(file_id).deleted
    for ask in (shop.client.files.retrieve, shop.client.files.content, shop.client.files.delete):
        with pytest.raises(openai.NotFoundError, match="No such File object"):
            ask(file_id)


def test_files_are_listed_in_pages_and_by_purpose(shop: Any) -> None:
    ids = [shop.upload(b"%d\n" % at) for at in range(5)]
    other = shop.client.files.create(file=("a.txt", b"x"), purpose="user_data").id
    assert [one.id for one in shop.client.files.list(limit=2, purpose="batch")] == ids[::-1]
    assert [one.id for one in shop.client.files.list(limit=2, order="asc")] == [*ids, other]
    page = shop.client.files.list(limit=4, after=ids[3], purpose="batch")
    assert ([one.id for one in page.data], page.has_more) == (ids[2::-1], False)


def test_a_range_returns_just_those_bytes(shop: Any) -> None:
    file_id = shop.upload(b"0123456789")
    for header, expected, shown in (
        ("bytes=2-4", b"234", "bytes 2-4/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
    ):
        found = shop.client.files.with_raw_response.content(file_id, extra_headers={"Range": header})
        assert (found.status_code, found.content) == (206, expected)
        assert found.headers["content-range"] == shown
        assert found.headers["content-length"] == str(len(expected))
    with pytest.raises(openai.APIStatusError) as caught:
        shop.client.files.content(file_id, extra_headers={"Range": "bytes=10-"})
    assert caught.value.status_code == 416


def test_content_has_its_length(shop: Any) -> None:
    found = shop.client.files.with_raw_response.content(shop.upload(b"0123456789"))
    assert found.headers["content-length"] == "10"


@pytest.mark.parametrize(
    ("name", "purpose", "words"),
    [("a.txt", "batch", "Must be .jsonl"), ("a.jsonl", "nonsense", "is not one of")],
)
def test_an_upload_of_the_wrong_kind_is_refused(shop: Any, name: str, purpose: str, words: str) -> None:
    with pytest.raises(openai.BadRequestError, match=words):
        shop.client.files.create(file=(name, b"{}"), purpose=purpose)
    assert shop.server.stats()["files"] == 0
    assert not list(shop.server.desk.state.files.iterdir())


def test_a_batch_file_above_the_limit_is_a_413_and_leaves_nothing(open_shop: Any) -> None:
    shop = open_shop(max_file_bytes=1000)
    with pytest.raises(openai.APIStatusError) as caught:
        shop.upload(b"x" * 1001)
    assert caught.value.status_code == 413
    assert not list(shop.server.desk.state.files.iterdir())
    assert shop.upload(b"x" * 1000)


def test_expires_after_is_kept_within_its_limits(shop: Any) -> None:
    made = shop.client.files.create(
        file=("a.jsonl", b"{}"), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert made.expires_at == made.created_at + 3600
    with pytest.raises(openai.BadRequestError, match="seconds"):
        shop.client.files.create(
            file=("a.jsonl", b"{}"), purpose="batch", expires_after={"anchor": "created_at", "seconds": 60}
        )


def test_a_call_without_a_key_is_a_401_in_the_providers_shape(shop: Any) -> None:
    for headers in ({}, {"Authorization": "Bearer"}, {"Authorization": "Basic abc"}):
        answer = httpx2.get(f"{shop.server.base_url}/files", headers=headers)
        assert answer.status_code == 401
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_an_unknown_path_is_a_404_in_the_providers_shape(shop: Any) -> None:
    answer = httpx2.get(f"{shop.server.base_url}/nonsense")
    assert (answer.status_code, set(answer.json()["error"])) == (404, {"message", "type", "param", "code"})
    assert httpx2.delete(f"{shop.server.base_url}/batches").status_code == 405


def test_files_of_another_key_or_project_are_hidden_when_scoped(open_shop: Any) -> None:
    shop = open_shop(scoped=True)
    file_id = shop.upload(b"{}\n")
    for other in (
        shop.client.with_options(api_key="sk-other"),
        shop.client.with_options(project="proj-2"),
    ):
        with pytest.raises(openai.NotFoundError):
            other.files.retrieve(file_id)
        assert not other.files.list().data
        with pytest.raises(openai.NotFoundError):
            other.batches.create(input_file_id=file_id, endpoint="/v1/responses", completion_window="24h")
    assert shop.client.files.retrieve(file_id).id == file_id


def test_no_key_is_written_to_the_state_directory(open_shop: Any, tmp_path: Any) -> None:
    shop = open_shop(state_dir=tmp_path, scoped=True)
    client = shop.client.with_options(api_key="sk-very-secret")
    client.files.create(file=("a.jsonl", b"{}"), purpose="batch")
    shop.server.stop()
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"sk-very-secret" not in path.read_bytes()


def test_a_broken_multipart_body_is_a_400(shop: Any) -> None:
    headers = {"Authorization": "Bearer k", "Content-Type": "multipart/form-data; boundary=abc"}
    for body in (b"", b"--abc\r\n", b"--abc\r\nContent-Disposition: form-data\r\n\r\nx\r\n--abc--\r\n"):
        assert httpx2.post(f"{shop.server.base_url}/files", headers=headers, content=body).status_code == 400
    plain = {"Authorization": "Bearer k", "Content-Type": "application/json"}
    assert httpx2.post(f"{shop.server.base_url}/files", headers=plain, content=b"{}").status_code == 400


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
def test_an_upload_may_be_cut_into_blocks_anywhere(size: int) -> None:
    from batchor_engine.sandbox.multipart import MultipartReader

    data = b"\r\n--ab\r\n--abd\r\n" * 3
    body = (
        b'--abc\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--abc\r\nContent-Disposition: form-data; name="file"; filename="\xc3\xa9.jsonl"\r\n\r\n'
        + data
        + b"\r\n--abc--\r\n"
    )
    got: dict[str, bytes] = {}
    reader = MultipartReader(b"abc", lambda part, block: got.update({part.name: got.get(part.name, b"") + block}))
    source = io.BytesIO(body)
    while block := source.read(size):
        reader.feed(block)
    reader.close()
    assert got == {"purpose": b"batch", "file": data}
