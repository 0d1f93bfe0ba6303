"""How rows would be packed into request files, and what about that a user should hear before paying.

Law: the same greedy rule as packing (item order, equality fits); nothing here reads a row twice or keeps one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from batchor_engine.core.budget import Allowance
from batchor_engine.core.packing import Load, PackLimits
from batchor_engine.core.text import counted

# The provider's limits (OpenAI, November 2026); only warnings hang on them.
PROVIDER_MAX_REQUESTS = 50_000
PROVIDER_MAX_FILE_BYTES = 200 * 1024 * 1024
PROVIDER_MAX_FILES_AN_HOUR = 2_000
# A batch below this is hardly worth its wait when only a token limit made it so small.
_SMALL_BATCH_ROWS = 100


@dataclass
class Files:
    """Request files as they fill up, one row after the other."""

    limits: PackLimits
    full: int = 0
    of_one_row: int = 0
    closed_by_tokens: int = 0
    rows_closed_by_tokens: int = 0
    total: Load = field(default_factory=Load)
    _open: Load = field(default_factory=Load)

    @property
    def count(self) -> int:
        return self.full + (1 if self._open.items else 0)

    def add(self, weight: Load) -> None:
        """Put one row that fits a file by itself into the open file, or into a new one."""
        if not self._open.plus(weight).within(self.limits):
            self._close(weight)
        self._open = self._open.plus(weight)
        self.total = self.total.plus(weight)

    def _close(self, next_row: Load) -> None:
        self.full += 1
        self.of_one_row += self._open.items == 1
        together = self._open.plus(next_row)
        if together.within(PackLimits(self.limits.max_requests, self.limits.max_bytes)):
            self.closed_by_tokens += 1
            self.rows_closed_by_tokens += self._open.items
        self._open = Load()


def packing_warnings(files: Files, allowed: Allowance) -> Iterator[str]:
    """What about the number and size of request files will cost time."""
    if files.of_one_row:
        yield f"{counted(files.of_one_row, 'request file')} with one row only: raise the limit that closes them"
    if files.closed_by_tokens > 1:
        mean = files.rows_closed_by_tokens // files.closed_by_tokens
        if mean < _SMALL_BATCH_ROWS:
            yield (
                f"the token budget of {files.limits.max_tokens} a batch makes {files.count} batches of about {mean} "
                "rows: raise enqueued_token_limit, target_ratio or max_batch_enqueued_tokens if the account allows it"
            )
    if allowed.total is not None and files.total.tokens > allowed.total:
        rounds = -(-files.total.tokens // allowed.total)
        yield (
            f"the job has about {files.total.tokens} prompt tokens and {allowed.total} may be enqueued at once: it "
            f"goes out in about {rounds} rounds, each waiting for the one before"
        )
    if files.count > PROVIDER_MAX_FILES_AN_HOUR:
        yield f"{files.count} batches, and the provider takes {PROVIDER_MAX_FILES_AN_HOUR} an hour"


def limit_warnings(limits: PackLimits) -> Iterator[str]:
    """Limits of ours above the provider's."""
    if limits.max_requests > PROVIDER_MAX_REQUESTS:
        yield f"ChunkPolicy.max_requests is {limits.max_requests}, OpenAI takes {PROVIDER_MAX_REQUESTS} a batch"
    if limits.max_bytes > PROVIDER_MAX_FILE_BYTES:
        yield f"ChunkPolicy.max_file_bytes is {limits.max_bytes}, OpenAI takes {PROVIDER_MAX_FILE_BYTES} a file"
