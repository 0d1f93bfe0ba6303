"""The names of files below an artifact root, as pure functions of ids.

Law: every id is untrusted. It becomes exactly one path segment, and two ids never share one.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from urllib.parse import quote

from batchor_engine.core.identity import check_run_id

# Most file systems stop at 255 bytes a name; the rest is for prefixes and suffixes.
_MAX_SEGMENT_CHARS = 200
_TOKEN = re.compile(r"[0-9a-f]{32}")
_REQUEST_SUFFIX = ".jsonl"
_SIDECAR_SUFFIX = ".items"


def key_parts(key: str) -> list[str]:
    """The segments of a key; ValueError where it is not a relative path that is spelled in one way only."""
    if not key or "\0" in key or "\\" in key:
        raise ValueError(f"An artifact key is a relative path with forward slashes, not {key!r}.")
    parts = key.split("/")
    # "." and empty parts would give one file two keys.
    if any(part in ("", ".", "..") for part in parts) or Path(key).drive:
        raise ValueError(f"An artifact key is relative, without empty parts, '.' or '..', not {key!r}.")
    return parts


def path_segment(text: str) -> str:
    """One safe path segment for `text`: percent-encoded, and cut and hashed where a file name could not hold it."""
    if not text:
        raise ValueError("An empty id has no place in an artifact key.")
    encoded = quote(text, safe="", errors="surrogatepass")
    if encoded.strip(".") == "":
        return encoded.replace(".", "%2E")
    if len(encoded) <= _MAX_SEGMENT_CHARS:
        return encoded
    # "=" never survives percent-encoding, so a hashed name cannot equal a plain one.
    digest = hashlib.sha256(encoded.encode("ascii")).hexdigest()[:32]
    return f"{encoded[:120]}={digest}"


def run_prefix(run_id: str) -> str:
    return path_segment(check_run_id(run_id))


def requests_prefix(run_id: str) -> str:
    return f"{run_prefix(run_id)}/requests"


def outputs_prefix(run_id: str) -> str:
    return f"{run_prefix(run_id)}/outputs"


def results_prefix(run_id: str) -> str:
    return f"{run_prefix(run_id)}/results"


def signatures_prefix(run_id: str) -> str:
    return f"{run_prefix(run_id)}/owners"


def signature_key(run_id: str, signature: str) -> str:
    """The key of the file that says which store a run's folder belongs to."""
    return f"{signatures_prefix(run_id)}/{path_segment(signature)}.json"


def request_key(run_id: str, token: str) -> str:
    """The key of one request part; `token` is 32 lower-case hex digits, unique in the run."""
    if not _TOKEN.fullmatch(token):
        raise ValueError(f"A request part is named by 32 lower-case hex digits, not {token!r}.")
    return f"{requests_prefix(run_id)}/requests_{token}{_REQUEST_SUFFIX}"


def sidecar_key(request_key: str) -> str:
    """The key of the ids and metadata that belong to a request part; never ends in .jsonl."""
    return request_key.removesuffix(_REQUEST_SUFFIX) + _SIDECAR_SUFFIX


def output_key(run_id: str, provider_batch_id: str) -> str:
    return f"{outputs_prefix(run_id)}/{path_segment(provider_batch_id)}_output.jsonl"


def error_key(run_id: str, provider_batch_id: str) -> str:
    return f"{outputs_prefix(run_id)}/{path_segment(provider_batch_id)}_error.jsonl"


def result_key(run_id: str, name: str) -> str:
    """The key of one result segment; `name` is any text that is unique in the run."""
    return f"{results_prefix(run_id)}/{path_segment(name)}.parquet"
