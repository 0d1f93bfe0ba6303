"""What a job would send and cost, before a cent is spent.

Law: nothing is stored, sent or kept in memory by the row; no key is needed. A number that is a guess says so.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any, Generic, TypeVar, cast

from pydantic import BaseModel
from pydantic_core import from_json, to_jsonable_python

from batchor_engine.config import ProviderKind
from batchor_engine.core.budget import Allowance, allowance, scope_name
from batchor_engine.core.costs import Cost, Priced, UsageByTier, price, usd, with_note
from batchor_engine.core.forecast import Files, limit_warnings, packing_warnings
from batchor_engine.core.identity import check_batch_metadata
from batchor_engine.core.packing import Load, PackLimits, too_large
from batchor_engine.core.strict_schema import model_output_schema
from batchor_engine.core.text import counted
from batchor_engine.core.tokens import PROCESS_TOKENIZERS
from batchor_engine.core.types import BatchRequestLine
from batchor_engine.errors import PromptBuildError, StructuredOutputSchemaError
from batchor_engine.job import BatchJob, form_of
from batchor_engine.models import BatchItem, JSONObject, RunUsage
from batchor_engine.ports.providers import BatchProvider, StructuredOutputSchema
from batchor_engine.ports.sources import ItemSource
from batchor_engine.runtime.costs import price_list
from batchor_engine.runtime.feed import feed, first_position
from batchor_engine.runtime.host import Host
from batchor_engine.runtime.render import render_row

_KEPT = 100
# The names under which a request body caps its answer, by endpoint.
_OUTPUT_CAPS = ("max_output_tokens", "max_completion_tokens", "max_tokens")
_RUN = "the plan"

T = TypeVar("T")


@dataclass(frozen=True)
class RowProblem:
    """A row that would not be answered, and why."""

    item_id: str
    reason: str


@dataclass(frozen=True)
class SchemaVerdict:
    """The strict schema as it is sent, or why the model cannot have one."""

    name: str | None = None
    schema: JSONObject | None = None
    error: str | None = None


@dataclass(frozen=True)
class JobPlan:
    """What a job would send and cost; lists of rows hold the first hundred, their counts all.

    `input_tokens` are of whole request lines, so a little above what is billed. `cost_low` is the input alone,
    `cost_high` adds every answer at its longest and is None where an answer has no limit; retries come on top.
    """

    rows: int
    request_files: int
    request_bytes: int
    input_tokens: int
    tokens_counted_by: str
    cost_low: Cost
    cost_high: Cost | None
    cost_words: str
    too_large: tuple[RowProblem, ...] = ()
    too_large_count: int = 0
    duplicate_ids: tuple[str, ...] = ()
    duplicate_count: int = 0
    unbuildable: tuple[RowProblem, ...] = ()
    unbuildable_count: int = 0
    schema: SchemaVerdict | None = None
    samples: tuple[JSONObject, ...] = ()
    blockers: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def can_start(self) -> bool:
        """Whether start() would take the whole job; `blockers` say why not."""
        return not self.blockers

    def to_payload(self) -> JSONObject:
        """The plan as JSON; amounts are strings, so that no cent is lost."""
        return cast(JSONObject, to_jsonable_python({**asdict(self), "can_start": self.can_start}))


def estimate(host: Host, job: BatchJob[Any, Any], *, sample: int = 3) -> JobPlan:
    """Read and render every row once; ValueError for an iterator, which could not be read again by start()."""
    if sample < 0:
        raise ValueError(f"sample must not be negative, but is {sample}")
    if not isinstance(job.items, ItemSource) and iter(job.items) is job.items:
        raise ValueError(
            "items is an iterator: planning would use it up, and nothing would be left to send. Pass a list, or a "
            "source (CsvItemSource, …)."
        )
    planning = _Planning(host, job, sample)
    planning.read()
    return planning.result()


class _FirstFew(Generic[T]):
    """The first hundred of something, and how many there were."""

    def __init__(self) -> None:
        self.kept: list[T] = []
        self.count = 0

    def add(self, one: T) -> None:
        self.count += 1
        if len(self.kept) < _KEPT:
            self.kept.append(one)


class _Ids:
    """Every id seen so far, in a temporary file of SQLite's own, which goes with the connection."""

    def __init__(self) -> None:
        self._rows = sqlite3.connect("")
        self._rows.execute("PRAGMA journal_mode=OFF")
        self._rows.execute("CREATE TABLE seen (id BLOB PRIMARY KEY) WITHOUT ROWID")

    def is_new(self, item_id: str) -> bool:
        encoded = item_id.encode("utf-8", "surrogatepass")
        return self._rows.execute("INSERT OR IGNORE INTO seen VALUES (?)", (encoded,)).rowcount == 1

    def close(self) -> None:
        self._rows.close()


@dataclass
class _Output:
    """The longest that all answers together can be; `limited` only while every request has a limit of its own."""

    limited: bool = True
    usage: UsageByTier | None = None

    def add(self, used: RunUsage, longest: int | None) -> None:
        if longest is None or self.usage is None:
            self.limited = False
        else:
            self.usage.add(replace(used, output_tokens=longest))


def _longest_answer(body: object) -> int | None:
    """Output tokens that a request allows at most, all its choices together; None without a limit."""
    fields: dict[str, Any] = cast("dict[str, Any]", body) if isinstance(body, dict) else {}
    caps = [fields[name] for name in _OUTPUT_CAPS if isinstance(fields.get(name), int)]
    choices = fields.get("n")
    return min(caps) * (choices if isinstance(choices, int) else 1) if caps else None


@dataclass
class _Seen:
    """What reading the rows has come to so far."""

    rows: int = 0
    samples: list[JSONObject] = field(default_factory=list[JSONObject])
    large: _FirstFew[RowProblem] = field(default_factory=_FirstFew[RowProblem])
    doubles: _FirstFew[str] = field(default_factory=_FirstFew[str])
    unbuilt: _FirstFew[RowProblem] = field(default_factory=_FirstFew[RowProblem])


class _Planning:
    """One reading of a job."""

    def __init__(self, host: Host, job: BatchJob[Any, Any], sample: int) -> None:
        self._job, self._sample = job, sample
        self._provider: BatchProvider = host.provider(job.provider_config)
        self._schema = _schema_of(job)
        self._allowed = _allowance(host, job, self._provider)
        chunk = job.chunk_policy
        self._limits = PackLimits(chunk.max_requests, chunk.max_file_bytes, self._allowed.per_batch)
        # What the provider has taught this store fails no row of a new run.
        self._budget = job.provider_config.budget_limits()
        self._row_limits = replace(self._limits, max_tokens=self._budget.per_batch_limit)
        self._files, self._seen = Files(self._limits), _Seen()
        self._prices: Priced = _prices(job, host.store.now())
        self._input, self._output = UsageByTier(self._prices), _Output(usage=UsageByTier(self._prices))

    def read(self) -> None:
        items = self._job.items
        with closing(_Ids()) as ids:
            for row in feed(_RUN, items, first_position(items)):
                self._seen.rows += 1
                if not ids.is_new(row.item.item_id):
                    self._seen.doubles.add(row.item.item_id)
                self._weigh(row.item)

    def _weigh(self, item: BatchItem[Any]) -> None:
        try:
            line = render_row(_RUN, self._job, item, self._provider, _sent(self._schema))
        except (PromptBuildError, TypeError) as error:
            self._seen.unbuilt.add(RowProblem(item.item_id, str(error)))
            return
        request = cast("dict[str, Any]", from_json(line, cache_strings="keys"))
        tokens = self._provider.estimate_request_tokens(
            cast("BatchRequestLine", request), chars_per_token=self._job.chunk_policy.chars_per_token
        )
        if len(self._seen.samples) < self._sample:
            self._seen.samples.append(request)
        weight = Load(1, len(line), tokens)
        if (problem := too_large(weight, self._row_limits, self._budget.effective_limit)) is not None:
            self._seen.large.add(RowProblem(item.item_id, problem.message))
            return
        self._files.add(weight)
        self._input.add(RunUsage(input_tokens=tokens))
        # Vectors and verdicts are no output tokens.
        longest = 0 if self._job.provider_config.answer_form() else _longest_answer(request.get("body"))
        self._output.add(RunUsage(input_tokens=tokens), longest)

    def result(self) -> JobPlan:
        seen, files = self._seen, self._files
        low = with_note(price(self._input.totals, self._prices), "input only")
        high = self._cost_high()
        return JobPlan(
            rows=seen.rows,
            request_files=files.count,
            request_bytes=files.total.bytes,
            input_tokens=files.total.tokens,
            tokens_counted_by=_counted_by(self._job),
            cost_low=low,
            cost_high=high,
            cost_words=_cost_words(low, high),
            too_large=tuple(seen.large.kept),
            too_large_count=seen.large.count,
            duplicate_ids=tuple(seen.doubles.kept),
            duplicate_count=seen.doubles.count,
            unbuildable=tuple(seen.unbuilt.kept),
            unbuildable_count=seen.unbuilt.count,
            schema=self._schema,
            samples=tuple(seen.samples),
            blockers=tuple(self._blockers()),
            warnings=tuple(self._warnings()),
        )

    def _cost_high(self) -> Cost | None:
        if not (self._output.limited and self._output.usage and self._files.count):
            return None
        return with_note(price(self._output.usage.totals, self._prices), "every answer at its longest")

    def _blockers(self) -> Iterator[str]:
        if self._schema is not None and self._schema.error is not None:
            yield f"the model cannot be sent as a strict schema: {self._schema.error}"
        try:
            form_of(self._job)
            check_batch_metadata(self._job.batch_metadata)
        except (TypeError, ValueError) as error:
            yield str(error)
        if self._seen.doubles.count:
            first = self._seen.doubles.kept[0]
            rows = counted(self._seen.doubles.count, "row")
            yield f"{rows} with an item id that was there before, the first one is {first!r}"
        if self._seen.unbuilt.count:
            first = self._seen.unbuilt.kept[0]
            yield f"{counted(self._seen.unbuilt.count, 'row')} cannot be rendered, the first one is {first.item_id!r}"

    def _warnings(self) -> Iterator[str]:
        if not self._seen.rows:
            yield "the source has no rows"
        if self._seen.large.count:
            yield f"{counted(self._seen.large.count, 'row')} too large, which would fail without being sent"
        yield from packing_warnings(self._files, self._allowed)
        yield from limit_warnings(self._limits)


def _schema_of(job: BatchJob[Any, Any]) -> SchemaVerdict | None:
    model: type[BaseModel] | None = job.structured_output
    if model is None:
        return None
    try:
        return SchemaVerdict(*model_output_schema(model, schema_name=job.schema_name))
    except (StructuredOutputSchemaError, ValueError) as error:
        return SchemaVerdict(error=str(error))


def _sent(schema: SchemaVerdict | None) -> StructuredOutputSchema | None:
    return StructuredOutputSchema(schema.name, schema.schema) if schema and schema.name and schema.schema else None


def _allowance(host: Host, job: BatchJob[Any, Any], provider: BatchProvider) -> Allowance:
    """The budget as a run would find it now, with what the provider has taught this store."""
    config = job.provider_config
    limits = config.budget_limits()
    return allowance(
        limits.effective_limit,
        limits.per_batch_limit,
        host.store.scope(scope_name(provider.account_label, config.scope_model())),
        target_ratio=limits.target_ratio,
    )


def _prices(job: BatchJob[Any, Any], now: datetime) -> Priced:
    config = job.provider_config
    return price_list(config.scope_model(), provider=str(config.provider_kind), at=now)


def _counted_by(job: BatchJob[Any, Any]) -> str:
    if job.provider_config.provider_kind is not ProviderKind.OPENAI:
        return "the provider's own estimate"
    encoding: Any = PROCESS_TOKENIZERS.encoding(job.provider_config.scope_model())
    if encoding is None:
        return f"a ratio of {job.chunk_policy.chars_per_token} characters a token, as no tokenizer could be loaded"
    return f"tiktoken ({encoding.name})"


def _cost_words(low: Cost, high: Cost | None) -> str:
    """The cost range as one sentence."""
    if low.amount_usd is None:
        return f"The cost is not known: {low.note}."
    if high is not None and high.amount_usd == low.amount_usd:
        return f"About {usd(low.amount_usd)} for the input at batch prices ({low.source}); the answers cost no tokens."
    least = f"At least {usd(low.amount_usd)} for the input at batch prices ({low.source})"
    if high is None or high.amount_usd is None:
        return f"{least}; the answers come on top and have no limit (set max_output_tokens to get one)."
    return f"{least}, at most {usd(high.amount_usd)} with every answer at its longest; retries come on top."
