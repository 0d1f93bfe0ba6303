# What people run. Everything lives in .venv and below this folder; nothing needs an environment variable.
#   make demo   watch Dagster turn support tickets into typed rows: no key, no network but the package index
#   make test   the tests          make check  ruff and pyright
#               what the machine lacks (a browser) is named at the end; ALL_RINGS=1 makes it an error
#   make dev    Dagster, open      make bench  measurements (N=1000000: that many rows; ROUNDS=2: twice)
#   make test-long   200 kills in random moments and at every crash point (SEED=n repeats a run)
#   make mutants     each law removed once: a test must notice
#   make test-oldest Dagster's tests on the oldest Dagster that is supported, in a .venv-oldest of its own

PYTHON ?= python3
# One more than the two cores of a small machine: much of a test is waiting for processes and servers.
JOBS ?= 3
BIN := .venv/bin
OLDEST := .venv-oldest/bin
# What of Dagster's tests is run there, too: each asset, sensor, job and page of Dagster once.
ON_OLDEST := $(addprefix tests/on_dagster/test_, assets.py polling_sensor.py control_jobs.py ranges_apart.py backfills_under_way.py)

.PHONY: help demo dev test test-oldest test-long mutants check bench
.DEFAULT_GOAL := help

help:
	@sed -n 's/^#   //p' Makefile

demo: .venv/.has-demo
	@$(BIN)/python -m example_project.demo

dev: .venv/.has-demo
	@$(BIN)/python -m example_project.demo --dev

test: .venv/.has-test
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup $(if $(ALL_RINGS),--all-rings)

# The oldest Dagster uses a form of Pydantic that today's warns of at import; nothing else may warn here either.
test-oldest: .venv-oldest/.has-test
	BATCHOR_TEST_STORES=sqlite $(OLDEST)/python -m pytest -n $(JOBS) --dist loadgroup \
	  -W 'ignore:Support for class-based:pydantic.warnings.PydanticDeprecatedSince20' $(ON_OLDEST)

test-long: .venv/.has-test
	$(BIN)/python -m tests.crash.long --kills $(or $(KILLS),200) $(if $(SEED),--seed $(SEED))

mutants: .venv/.has-test
	$(BIN)/python -m tests.mutants --jobs $(JOBS)

check: .venv/.has-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: .venv/.has-bench
	$(BIN)/python -m benchmarks $(if $(N),--rows $(N)) $(if $(ROUNDS),--rounds $(ROUNDS))

# A stamp is younger than the two files that say what to install; then there is nothing to do.
.venv/.has-demo: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo]'
	@touch $@

.venv/.has-bench: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@touch $@

.venv/.has-test: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
# Hundreds of processes import these; where PYTHONDONTWRITEBYTECODE is set, each would compile them again.
	@$(BIN)/python -m compileall -q batchor_dagster batchor_engine example_project
	@touch $@ .venv/.has-demo

.venv-oldest/.has-test: pyproject.toml constraints.txt constraints-oldest.txt | $(BIN)/python
	[ -x $(OLDEST)/python ] || $(PYTHON) -m venv .venv-oldest
	awk -F= 'NR == FNR { own[$$1] = 1; print; next } !($$1 in own)' constraints-oldest.txt constraints.txt \
	  >.venv-oldest/constraints.txt
	$(OLDEST)/python -m pip install --quiet --disable-pip-version-check -c .venv-oldest/constraints.txt \
	  -e '.[demo,prices]' dagster-dg-cli hypothesis psutil pytest pytest-timeout pytest-xdist
	@touch $@

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || \
	  { echo "make: there is no $(PYTHON); name a Python 3.11 or newer: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: Python 3.11 or newer is needed, and $(PYTHON) is $$($(PYTHON) -V 2>&1); name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "make: $(PYTHON) cannot make virtual environments; install its venv module (Debian: apt install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv .venv
