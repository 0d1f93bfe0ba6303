"""Artifacts as objects in S3, Google Cloud Storage, Azure Blob Storage, or in memory.

Law: an object appears whole or not at all, and only at the end; memory holds a few blocks, whatever the object's size.
Credentials come from the environment, and nothing that leaves this module repeats them.
"""

from __future__ import annotations

import importlib
import io
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from urllib.parse import urlsplit

from batchor_engine.artifacts.atomic import whole_file
from batchor_engine.artifacts.keys import key_parts
from batchor_engine.errors import ArtifactMissingError, StoreError
from batchor_engine.ports.artifacts import ArtifactStore

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_MIB = 1024 * 1024
# A part of an upload and a block of a download; an object may have 10,000 parts.
_BLOCK_BYTES = 8 * _MIB
_BLOCKS_AT_ONCE = 4
# What a reader fetches at a time: a compressed row group is seldom larger.
_READ_AHEAD_BYTES = _MIB
# The time is the bound: pauses are drawn by chance, and a server that refuses connections answers at once.
_RETRIES: dict[str, Any] = {
    "max_retries": 1000,
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=5), "base": 2},
    "retry_timeout": timedelta(seconds=90),
}
# Whoever was never reached may be a wrong address, which must not take a minute and a half to say.
_FIRST_RETRIES = 8
_TIMEOUTS = {
    "connect_timeout": timedelta(seconds=10),
    "read_timeout": timedelta(seconds=60),
    # One request carries one block.
    "timeout": timedelta(seconds=300),
}
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT")
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist")
_QUERY = re.compile(r"\?[^\s)\"]*")
_CODE = re.compile(r"<Code>(\w+)</Code>")


class ObjectArtifactStore(ArtifactStore):
    """Objects below a URL, which holds no credential; `open_artifacts()` makes one."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._url = url
        self._prefix = parts.path.strip("/")
        self._library = _obstore()
        errors = _obstore("exceptions")
        self._errors, self._refusals = errors.BaseError, (errors.PermissionDeniedError, errors.UnauthenticatedError)
        self._scheme, self._bucket = parts.scheme, parts.netloc
        # What lies in memory is lost with its store.
        self._reached = parts.scheme == "memory"
        with self._told():
            self._store = self._connected(min(_FIRST_RETRIES, _RETRIES["max_retries"]))

    def _connected(self, retries: int) -> Any:
        stores = _obstore("store")
        if self._scheme == "memory":
            return stores.MemoryStore()
        plain = any(os.environ.get(name, "").startswith("http://") for name in _ENDPOINTS)
        options = {**_TIMEOUTS, **({"allow_http": True} if plain else {})}
        retry = {**_RETRIES, "max_retries": retries}
        return stores.from_url(f"{self._scheme}://{self._bucket}", client_options=options, retry_config=retry)

    def __repr__(self) -> str:
        return f"ObjectArtifactStore({self._url!r})"

    @property
    def location(self) -> str:
        return self._url

    # Text, and what the contract says of files.

    def write_text(self, key: str, content: str, *, encoding: str = "utf-8") -> None:
        self._upload(key, content.encode(encoding))

    def read_text(self, key: str, *, encoding: str = "utf-8") -> str:
        with self.open_read(key) as stream:
            return stream.read().decode(encoding)

    def delete(self, key: str) -> bool:
        there = self.exists(key)
        if there:
            with self._told(), suppress(FileNotFoundError):
                self._library.delete(self._store, self._path(key))
        return there

    @contextmanager
    def stage_local_copy(self, key: str) -> Generator[Path]:
        with self.local_file(key) as path:
            yield path

    def export_to_directory(self, key: str, destination_root: str | Path) -> Path:
        root = Path(os.path.abspath(Path(destination_root).expanduser()))
        target = root.joinpath(*key_parts(key))
        with self._reader(key) as source, whole_file(target, root=root) as aside:
            _copy(source, aside)
        return target

    # Bytes.

    @contextmanager
    def new_file(self, key: str) -> Generator[Path]:
        with self._scratch(key) as path:
            yield path
            self._upload(key, path)

    @contextmanager
    def made_file(self, key: str, fill: Callable[[Path], object]) -> Generator[Path]:
        with self._scratch(key) as path:
            fill(path)
            self._upload(key, path)
            yield path

    @contextmanager
    def local_file(self, key: str) -> Generator[Path]:
        with self._reader(key) as source, self._scratch(key) as path:
            _copy(source, path)
            yield path

    @contextmanager
    def open_read(self, key: str) -> Generator[BinaryIO]:
        with io.BufferedReader(self._reader(key), _READ_AHEAD_BYTES) as stream:
            yield stream

    @contextmanager
    def reading(self, key: str) -> Generator[Callable[[], AbstractContextManager[BinaryIO]]]:
        yield partial(self.open_read, key)

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        with self._reader(key) as source:
            source.seek(offset)
            return source.read(length) or b""

    def exists(self, key: str) -> bool:
        with suppress(ArtifactMissingError):
            self._size_and_tag(key)
            return True
        return False

    def remove(self, key: str) -> bool:
        return self.delete(key)

    def list_keys(self, prefix: str) -> Iterator[str]:
        """Keys of the objects in the folder `prefix` and below ("" for all), in order."""
        folder = prefix.rstrip("/")
        below = self._path(folder) if folder else self._prefix
        start = len(self._prefix) + 1 if self._prefix else 0
        with self._told():
            pages = list(self._library.list(self._store, below or None, chunk_size=1000))
        yield from sorted(meta["path"][start:] for page in pages for meta in page)

    # Requests.

    def _path(self, key: str) -> str:
        path = "/".join(key_parts(key))
        return f"{self._prefix}/{path}" if self._prefix else path

    @contextmanager
    def _scratch(self, key: str) -> Generator[Path]:
        """A local path for the bytes of a key, gone when the context ends."""
        self._path(key)
        with tempfile.TemporaryDirectory(prefix="batchor-") as folder:
            path = Path(folder) / "object"
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            yield path

    def _upload(self, key: str, content: bytes | Path) -> None:
        """Make the object; its length in the store is compared with what was sent."""
        path = self._path(key)
        size = len(content) if isinstance(content, bytes) else content.stat().st_size

        def put() -> None:
            if not self._reached:
                # Its answer has no body: where it refuses, the upload is told the reason.
                with suppress(FileNotFoundError, *self._refusals):
                    self._head(path)
            self._library.put(self._store, path, content, chunk_size=_BLOCK_BYTES, max_concurrency=_BLOCKS_AT_ONCE)
            stored = self._library.head(self._store, path)["size"]
            if stored != size:
                raise StoreError(f"{self._url}/{key} has {stored} bytes after {size} were sent: try again.")

        with self._told():
            # The library repeats requests; but when the answer to the last one of an upload is lost, the repeated one
            # may be told that there is no such upload, and then only all of it can be done again.
            with suppress(FileNotFoundError):
                put()
                return
            try:
                put()
            except FileNotFoundError:
                raise StoreError(f"Cannot write to {self._url}: there is no such bucket.") from None

    def _reader(self, key: str) -> _Reader:
        size, tag = self._size_and_tag(key)
        return _Reader(size, lambda start, end: self._fetch(key, start, end, tag))

    def _size_and_tag(self, key: str) -> tuple[int, str | None]:
        path = self._path(key)
        with self._told(key):
            meta = self._head(path)
        return meta["size"], meta["e_tag"]

    def _head(self, path: str) -> Any:
        try:
            meta = self._library.head(self._store, path)
        except FileNotFoundError:
            self._met()
            raise
        self._met()
        return meta

    def _met(self) -> None:
        """The server answered: from now on it is worth waiting for."""
        if not self._reached:
            self._store = self._connected(_RETRIES["max_retries"])
            self._reached = True

    def _fetch(self, key: str, start: int, end: int, tag: str | None) -> bytes:
        path = self._path(key)
        # Blocks of one read are of one object, also when it is replaced meanwhile.
        options = {"range": (start, end), **({"if_match": tag} if tag else {})}
        with self._told(key):
            return bytes(self._library.get(self._store, path, options=options).bytes())

    @contextmanager
    def _told(self, key: str | None = None) -> Generator[None]:
        """Errors of the library become ours, without its long account of the request; URLs may be signed there."""
        try:
            yield
        except FileNotFoundError as error:
            if any(text in str(error) for text in _NO_BUCKET):
                raise StoreError(f"Cannot use {self._url}: there is no such bucket.") from None
            if key is None:
                raise
            raise ArtifactMissingError(key, self._url) from None
        except self._errors as error:
            where = f"{self._url}/{key}" if key else self._url
            raise StoreError(f"Cannot use {where}: {_in_short(error)}") from None


class _Reader(io.RawIOBase):
    """Random access by one request a read."""

    def __init__(self, size: int, fetch: Callable[[int, int], bytes]) -> None:
        super().__init__()
        self._size, self._fetch, self._position = size, fetch, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readall(self) -> bytes:
        """What is left, by a few large requests; the base class would make one for every few KiB."""
        with io.BytesIO() as rest:
            shutil.copyfileobj(cast("BinaryIO", self), rest, _BLOCK_BYTES)
            return rest.getvalue()

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        end = min(self._position + len(view), self._size)
        if end <= self._position:
            return 0
        data = self._fetch(self._position, end)
        if len(data) != end - self._position:
            raise StoreError(f"A read of {end - self._position} bytes gave {len(data)}: try again.")
        view[: len(data)] = data
        self._position = end
        return len(data)


def _copy(source: _Reader, path: Path) -> None:
    with path.open("wb") as target:
        # shutil is typed for files of its own kind, and a raw reader is one.
        shutil.copyfileobj(source, target, _BLOCK_BYTES)


def _in_short(error: Exception) -> str:
    """The first line, which names the request, without a query, which may be signed; and the server's own code."""
    line = str(error).strip().partition("\n")[0].partition("<")[0].rstrip(": ")
    code = _CODE.search(str(error))
    return _QUERY.sub("?…", line)[:500] + (f" ({code[1]})" if code else "")


def _obstore(module: str = "") -> Any:
    try:
        return importlib.import_module(f"obstore.{module}" if module else "obstore")
    except ImportError:
        raise ImportError(
            "Artifacts in an object store need the package obstore: pip install 'batchor-dagster[objectstore]'."
        ) from None
