"""The tables. Small integer keys, no prompt and no answer text: those are in files.

Law: a column's meaning never changes; a new meaning is a new column and a numbered migration.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from batchor_engine.states import ITEM_CODES, ItemStatus

PRODUCT = "batchor_engine"

# SQLite makes only INTEGER PRIMARY KEY an alias of the row id.
Key = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData()

schema_version = Table(
    "schema_version",
    metadata,
    Column("product", Text, primary_key=True),
    Column("version", Integer, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("id", Key, primary_key=True),
    Column("run_id", Text, nullable=False, unique=True),
    Column("created_at", Float(53), nullable=False),
    Column("config", Text, nullable=False),
    Column("artifact_root", Text, nullable=False),
    Column("control", Text, nullable=False),
    Column("control_reason", Text),
    Column("drain", Boolean, nullable=False, default=False),
    Column("source_kind", Text, nullable=False),
    Column("source_ref", Text, nullable=False),
    Column("source_fingerprint", Text, nullable=False),
    Column("checkpoint", Text, nullable=False),
    Column("next_index", BigInteger, nullable=False, default=0),
    Column("ingest_finished", Boolean, nullable=False, default=False),
    *(Column(f"n_{status.value}", BigInteger, nullable=False, default=0) for status in ItemStatus),
    Column("live_batches", Integer, nullable=False, default=0),
    Column("last_sequence", BigInteger, nullable=False, default=0),
    Column("superseded", BigInteger, nullable=False, default=0),
    Column("backoff_consecutive", Integer, nullable=False, default=0),
    Column("backoff_total", Integer, nullable=False, default=0),
    Column("backoff_until", Float(53), nullable=False, default=0.0),
    Column("backoff_class", Text),
    Column("revision", BigInteger, nullable=False, default=0),
    Column("tidied", Boolean, nullable=False, default=False),
    Column("exported_at", Float(53)),
    Column("export_root", Text),
)

run_labels = Table(
    "run_labels",
    metadata,
    Column("run", Key, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    Index("run_labels_by_value", "key", "value"),
)

parts = Table(
    "parts",
    metadata,
    Column("id", Key, primary_key=True),
    Column("run", Key, nullable=False),
    Column("key", Text, nullable=False),
    Column("sidecar_key", Text, nullable=False),
    Column("first_index", BigInteger, nullable=False),
    Column("last_index", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("next_index", BigInteger, nullable=False),
    Column("next_offset", BigInteger, nullable=False),
    Column("left_items", Integer, nullable=False),
    Column("left_tokens", BigInteger, nullable=False),
    Column("pruned_at", Float(53)),
    Index("parts_by_run", "run", "first_index"),
)

items = Table(
    "items",
    metadata,
    Column("run", Key, primary_key=True, autoincrement=False),
    Column("idx", BigInteger, primary_key=True, autoincrement=False),
    Column("item_id", Text, nullable=False),
    Column("state", SmallInteger, nullable=False),
    Column("attempts", SmallInteger, nullable=False, default=0),
    Column("uncounted", SmallInteger, nullable=False, default=0),
    Column("granted", SmallInteger, nullable=False, default=0),
    Column("part", Key),
    Column("line_offset", BigInteger, nullable=False, default=0),
    Column("length", Integer, nullable=False, default=0),
    Column("tokens", Integer, nullable=False, default=0),
    Column("grp", Integer, nullable=False, default=0),
    Column("batch", Key),
    Column("segment", Key),
    Column("retry_at", Float(53)),
    UniqueConstraint("run", "item_id", name="items_by_id"),
    sqlite_with_rowid=False,
)

# Rows that were in a batch and must go again. Their conditions are literals: SQLite uses a partial index only when the
# query repeats them letter by letter.
# Pending is the lowest code; "<" keeps SQLite from folding `state` out of ORDER BY state, idx, which only this index
# serves without a sort. With "=" it walks the primary key through all rows of the run instead.
REOPENED = f"batch IS NOT NULL AND state < {ITEM_CODES[ItemStatus.PENDING] + 1}"
WAITING = f"state = {ITEM_CODES[ItemStatus.FAILED_RETRYABLE]}"
for _name, _columns, _where in (
    ("items_reopened", ("run", "state", "idx"), REOPENED),
    ("items_waiting", ("run", "retry_at"), WAITING),
):
    Index(_name, *(items.c[name] for name in _columns), sqlite_where=text(_where), postgresql_where=text(_where))

batches = Table(
    "batches",
    metadata,
    Column("id", Key, primary_key=True),
    Column("run", Key, nullable=False),
    Column("state", Text, nullable=False),
    Column("intent_id", Text, nullable=False, unique=True),
    Column("account", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("items", Integer, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("reserve_until", Float(53), nullable=False),
    Column("provider_batch_id", Text),
    Column("input_file_id", Text),
    Column("output_file_id", Text),
    Column("error_file_id", Text),
    Column("remote_status", Text),
    Column("remote_completed", Integer, nullable=False, default=0),
    Column("remote_failed", Integer, nullable=False, default=0),
    Column("errors", Text),
    Column("created_at", Float(53), nullable=False),
    Column("create_at", Float(53)),
    Column("submitted_at", Float(53)),
    Column("ended_at", Float(53)),
    Column("polled_at", Float(53)),
    Column("cancel_asked_at", Float(53)),
    Column("collect_failures", Integer, nullable=False, default=0),
    Column("collect_after", Float(53), nullable=False, default=0.0),
    Column("output_key", Text),
    Column("error_key", Text),
    Index("batches_by_run", "run", "state"),
    Index("batches_by_state", "state"),
    Index("batches_by_scope", "scope", "reserve_until"),
)

batch_ranges = Table(
    "batch_ranges",
    metadata,
    Column("batch", Key, primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("part", Key, nullable=False),
    Column("first_index", BigInteger, nullable=False),
    Column("last_index", BigInteger, nullable=False),
    Column("line_offset", BigInteger, nullable=False),
    Column("length", BigInteger, nullable=False),
    Column("items", Integer, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("fresh", Boolean, nullable=False),
    sqlite_with_rowid=False,
)

segments = Table(
    "segments",
    metadata,
    Column("id", Key, primary_key=True),
    Column("run", Key, nullable=False),
    Column("batch", Key),
    Column("key", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("first_sequence", BigInteger, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("completed", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("superseded", Integer, nullable=False, default=0),
    Column("first_index", BigInteger, nullable=False),
    Column("last_index", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("failures", Text, nullable=False),
    Index("segments_by_run", "run", "first_sequence"),
)

scopes = Table(
    "scopes",
    metadata,
    Column("name", Text, primary_key=True),
    Column("reserved", BigInteger, nullable=False, default=0),
    Column("learned_limit", BigInteger),
    Column("scale", Float(53), nullable=False, default=1.0),
)

scope_waiters = Table(
    "scope_waiters",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("run", Key, primary_key=True, autoincrement=False),
    Column("since", Float(53), nullable=False),
    Column("seen_at", Float(53), nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("resource", Text, primary_key=True),
    Column("owner", Text),
    Column("fence", BigInteger, nullable=False),
    Column("expires_at", Float(53), nullable=False),
)
