"""A PostgreSQL for the measurements: the one that was named, else one of our own for as long as they take."""

from __future__ import annotations

import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def postgres(named: str | None, *, left_out: bool) -> Iterator[str | None]:
    """Its URL; None where it is left out. The server of the tests is started with every write synced to the disk."""
    if named or left_out:
        yield named
        return
    from tests.servers.postgres import PostgresServer

    # A socket's path is short, and another user than root must be able to reach it.
    server = PostgresServer(Path(f"/var/tmp/batchor-bench-{uuid.uuid4().hex[:8]}"), durable=True)
    try:
        server.start()
        yield server.dsn
    except AssertionError as error:
        sys.exit(f"no PostgreSQL could be started ({error}); name one by --postgres URL, or say --no-postgres")
    finally:
        server.stop()
        shutil.rmtree(server.home, ignore_errors=True)


def with_schema(dsn: str) -> str:
    """The URL with a schema that nobody has used."""
    return f"{dsn}{'&' if '?' in dsn else '?'}schema=bench_{uuid.uuid4().hex[:12]}"
