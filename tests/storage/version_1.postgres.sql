CREATE TABLE batch_ranges (
	batch BIGINT NOT NULL,
	position INTEGER NOT NULL,
	part BIGINT NOT NULL,
	first_index BIGINT NOT NULL,
	last_index BIGINT NOT NULL,
	line_offset BIGINT NOT NULL,
	length BIGINT NOT NULL,
	items INTEGER NOT NULL,
	tokens BIGINT NOT NULL,
	attempt INTEGER NOT NULL,
	fresh BOOLEAN NOT NULL,
	PRIMARY KEY (batch, position)
);
CREATE TABLE batches (
	id BIGSERIAL NOT NULL,
	run BIGINT NOT NULL,
	state TEXT NOT NULL,
	intent_id TEXT NOT NULL,
	account TEXT NOT NULL,
	scope TEXT NOT NULL,
	items INTEGER NOT NULL,
	bytes BIGINT NOT NULL,
	tokens BIGINT NOT NULL,
	reserve_until FLOAT(53) NOT NULL,
	provider_batch_id TEXT,
	input_file_id TEXT,
	output_file_id TEXT,
	error_file_id TEXT,
	remote_status TEXT,
	remote_completed INTEGER NOT NULL,
	remote_failed INTEGER NOT NULL,
	errors TEXT,
	created_at FLOAT(53) NOT NULL,
	create_at FLOAT(53),
	submitted_at FLOAT(53),
	ended_at FLOAT(53),
	polled_at FLOAT(53),
	cancel_asked_at FLOAT(53),
	collect_failures INTEGER NOT NULL,
	collect_after FLOAT(53) NOT NULL,
	output_key TEXT,
	error_key TEXT,
	PRIMARY KEY (id),
	UNIQUE (intent_id)
);
CREATE TABLE items (
	run BIGINT NOT NULL,
	idx BIGINT NOT NULL,
	item_id TEXT NOT NULL,
	state SMALLINT NOT NULL,
	attempts SMALLINT NOT NULL,
	uncounted SMALLINT NOT NULL,
	granted SMALLINT NOT NULL,
	part BIGINT,
	line_offset BIGINT NOT NULL,
	length INTEGER NOT NULL,
	tokens INTEGER NOT NULL,
	grp INTEGER NOT NULL,
	batch BIGINT,
	segment BIGINT,
	retry_at FLOAT(53),
	PRIMARY KEY (run, idx),
	CONSTRAINT items_by_id UNIQUE (run, item_id)
);
CREATE TABLE leases (
	resource TEXT NOT NULL,
	owner TEXT,
	fence BIGINT NOT NULL,
	expires_at FLOAT(53) NOT NULL,
	PRIMARY KEY (resource)
);
CREATE TABLE parts (
	id BIGSERIAL NOT NULL,
	run BIGINT NOT NULL,
	key TEXT NOT NULL,
	sidecar_key TEXT NOT NULL,
	first_index BIGINT NOT NULL,
	last_index BIGINT NOT NULL,
	bytes BIGINT NOT NULL,
	next_index BIGINT NOT NULL,
	next_offset BIGINT NOT NULL,
	left_items INTEGER NOT NULL,
	left_tokens BIGINT NOT NULL,
	pruned_at FLOAT(53),
	PRIMARY KEY (id)
);
CREATE TABLE run_labels (
	run BIGINT NOT NULL,
	key TEXT NOT NULL,
	value TEXT NOT NULL,
	PRIMARY KEY (run, key)
);
CREATE TABLE runs (
	id BIGSERIAL NOT NULL,
	run_id TEXT NOT NULL,
	created_at FLOAT(53) NOT NULL,
	config TEXT NOT NULL,
	artifact_root TEXT NOT NULL,
	control TEXT NOT NULL,
	control_reason TEXT,
	drain BOOLEAN NOT NULL,
	source_kind TEXT NOT NULL,
	source_ref TEXT NOT NULL,
	source_fingerprint TEXT NOT NULL,
	checkpoint TEXT NOT NULL,
	next_index BIGINT NOT NULL,
	ingest_finished BOOLEAN NOT NULL,
	n_pending BIGINT NOT NULL,
	n_queued_local BIGINT NOT NULL,
	n_submitted BIGINT NOT NULL,
	n_completed BIGINT NOT NULL,
	n_failed_retryable BIGINT NOT NULL,
	n_failed_permanent BIGINT NOT NULL,
	live_batches INTEGER NOT NULL,
	last_sequence BIGINT NOT NULL,
	superseded BIGINT NOT NULL,
	backoff_consecutive INTEGER NOT NULL,
	backoff_total INTEGER NOT NULL,
	backoff_until FLOAT(53) NOT NULL,
	backoff_class TEXT,
	revision BIGINT NOT NULL,
	tidied BOOLEAN NOT NULL,
	exported_at FLOAT(53),
	export_root TEXT,
	PRIMARY KEY (id),
	UNIQUE (run_id)
);
CREATE TABLE schema_version (
	product TEXT NOT NULL,
	version INTEGER NOT NULL,
	PRIMARY KEY (product)
);
CREATE TABLE scope_waiters (
	scope TEXT NOT NULL,
	run BIGINT NOT NULL,
	since FLOAT(53) NOT NULL,
	seen_at FLOAT(53) NOT NULL,
	PRIMARY KEY (scope, run)
);
CREATE TABLE scopes (
	name TEXT NOT NULL,
	reserved BIGINT NOT NULL,
	learned_limit BIGINT,
	scale FLOAT(53) NOT NULL,
	PRIMARY KEY (name)
);
CREATE TABLE segments (
	id BIGSERIAL NOT NULL,
	run BIGINT NOT NULL,
	batch BIGINT,
	key TEXT NOT NULL,
	bytes BIGINT NOT NULL,
	first_sequence BIGINT NOT NULL,
	rows INTEGER NOT NULL,
	completed INTEGER NOT NULL,
	failed INTEGER NOT NULL,
	superseded INTEGER NOT NULL,
	first_index BIGINT NOT NULL,
	last_index BIGINT NOT NULL,
	input_tokens BIGINT NOT NULL,
	cached_tokens BIGINT NOT NULL,
	output_tokens BIGINT NOT NULL,
	reasoning_tokens BIGINT NOT NULL,
	failures TEXT NOT NULL,
	PRIMARY KEY (id)
);
CREATE INDEX batches_by_run ON batches (run, state);
CREATE INDEX batches_by_scope ON batches (scope, reserve_until);
CREATE INDEX batches_by_state ON batches (state);
CREATE INDEX items_reopened ON items (run, state, idx) WHERE batch IS NOT NULL AND state < 1;
CREATE INDEX items_waiting ON items (run, retry_at) WHERE state = 4;
CREATE INDEX parts_by_run ON parts (run, first_index);
CREATE INDEX run_labels_by_value ON run_labels (key, value);
CREATE INDEX segments_by_run ON segments (run, first_sequence);
