# What people run. Everything lives in .venv and below this folder; nothing needs an environment variable.
#   make demo   watch Dagster turn support tickets into typed rows: no key, no network but the package index
#   make test   the tests          make check  ruff and pyright
#               what the machine lacks (a browser) is named at the end; ALL_RINGS=1 makes it an error
#   make dev    Dagster, open      make bench  measurements (N=1000000: that many rows; ROUNDS=2: twice)
#   make test-long   200 kills in random moments and at every crash point (SEED=n repeats a run)
#   make mutants     each law removed once: a test must notice

PYTHON ?= python3
JOBS ?= 2
BIN := .venv/bin

.PHONY: help demo dev test test-long mutants check bench
.DEFAULT_GOAL := help

help:
	@sed -n 's/^#   //p' Makefile

demo: .venv/.has-demo
	@$(BIN)/python -m example_project.demo

dev: .venv/.has-demo
	@$(BIN)/python -m example_project.demo --dev

test: .venv/.has-test
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup $(if $(ALL_RINGS),--all-rings)

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
	@touch $@ .venv/.has-demo

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || \
	  { echo "make: there is no $(PYTHON); name a Python 3.11 or newer: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: Python 3.11 or newer is needed, and $(PYTHON) is $$($(PYTHON) -V 2>&1); name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "make: $(PYTHON) cannot make virtual environments; install its venv module (Debian: apt install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv .venv
