"""Artifact stores by URL: a folder, or a place in an object store.

Law: a URL names a place and nothing else. One that carries a credential is refused, and is not repeated in the error.
"""

from __future__ import annotations

import os
import re
import weakref
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from batchor_engine.artifacts.local import LocalArtifactStore
from batchor_engine.artifacts.objects import ObjectArtifactStore
from batchor_engine.ports.artifacts import ArtifactStore

SCHEMES = ("s3", "gs", "az", "memory")
_KNOWN = "a folder, file://, s3://bucket/path, gs://bucket/path, az://container/path or memory://name"
_BESIDE = f".{os.sep}"
_SQUEEZED_URL = re.compile(rf"({'|'.join(SCHEMES)}):/")
# Objects in memory live as long as somebody has their store; every store of one URL in this process is the same.
_IN_MEMORY: weakref.WeakValueDictionary[str, ObjectArtifactStore] = weakref.WeakValueDictionary()


def is_object_url(place: str) -> bool:
    """Whether a place is in an object store, rather than a folder."""
    return "://" in place and not place.startswith("file://")


def artifact_place(url: str | Path) -> str:
    """The place as it is recorded: an absolute folder, or a URL without a slash at its end; ValueError for others."""
    text = os.fspath(url)
    if isinstance(url, Path) and _SQUEEZED_URL.match(text):
        scheme = text.partition(":")[0]
        raise ValueError(f"this is a Path, which takes a slash out of a URL: give {scheme}://… as a string")
    if not is_object_url(text):
        return str(LocalArtifactStore(_path_of(text)).root)
    parts = _checked(text)
    path = "/".join(part for part in parts.path.split("/") if part)
    return f"{parts.scheme}://{parts.netloc}" + (f"/{path}" if path else "")


def recorded_place(place: str, folder: str | None) -> str:
    """How a state in `folder` records a place: below that folder by the way from there, so that both can be moved."""
    if folder is None or not os.path.isabs(place):
        return place
    parent, name = os.path.split(place)
    way = os.path.relpath(os.path.join(os.path.realpath(parent), name), os.path.realpath(folder))
    return place if way.startswith(os.pardir) else f"{_BESIDE}{way}"


def found_place(recorded: str, folder: str | None) -> str:
    """Where a recorded place is now."""
    if folder is None or not recorded.startswith(_BESIDE):
        return recorded
    return os.path.normpath(os.path.join(folder, recorded))


def open_artifacts(url: str | Path) -> ArtifactStore:
    """The store at a place; ImportError where the library for object stores is not installed."""
    place = artifact_place(url)
    if not is_object_url(place):
        return LocalArtifactStore(place)
    if not place.startswith("memory:"):
        return ObjectArtifactStore(place)
    store = _IN_MEMORY.get(place) or ObjectArtifactStore(place)
    return _IN_MEMORY.setdefault(place, store)


def _path_of(text: str) -> str:
    if not text:
        raise ValueError(f"artifacts_url is empty: name {_KNOWN}")
    if not text.startswith("file://"):
        return text
    parts = urlsplit(text)
    if parts.netloc not in ("", "localhost") or not parts.path:
        raise ValueError("artifacts_url: a file:// URL names an absolute path with three slashes, file:///path")
    return unquote(parts.path)


def _checked(text: str) -> SplitResult:
    parts = urlsplit(text)
    if parts.scheme not in SCHEMES:
        raise ValueError(f"artifacts_url {parts.scheme}://… is not supported: name {_KNOWN}")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(
            f"artifacts_url {parts.scheme}://… holds more than a place: credentials and options come from the "
            "environment, and a URL is stored with every run"
        )
    if not parts.netloc and parts.scheme != "memory":
        raise ValueError(f"artifacts_url {parts.scheme}:///… names no bucket: {parts.scheme}://bucket/path")
    if {".", ".."} & set(parts.path.split("/")):
        raise ValueError(f"artifacts_url {parts.scheme}://…: the path holds '.' or '..'")
    return parts
