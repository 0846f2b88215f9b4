# Two commands do their own set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# These measure how soon something happens: they run alone. All others share the cores.
ALONE := tests/processes $(addprefix tests/scenarios/test_,backpressure.py demo.py own_alerts.py)

.PHONY: help install dev clickhouse demo test test-slow lint lock docs clean

help: ## Show what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Watchkeeper needs Python 3.11 or newer; try: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Build requirements come from the lock too: under pip, constraints do not reach isolated builds.
$(VENV)/.installed: requirements.lock pyproject.toml hatch_build.py | $(BIN)/python
	$(BIN)/pip install --quiet --require-hashes --requirement requirements.lock
	$(BIN)/pip install --quiet --no-build-isolation --no-deps --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.installed
	$(BIN)/pip install --quiet --require-hashes --requirement requirements-dev.lock
	@touch $@

clickhouse: | $(BIN)/python
	@tests/fetch-clickhouse $(VENV)/clickhouse

install: $(VENV)/.installed ## Set up .venv with the locked requirements

dev: $(VENV)/.dev ## The same, with what the tests need

demo: install ## Run the main job: daemon, simulated fleet, a real stop; prints a URL
	$(BIN)/watchkeeper demo

test: dev clickhouse ## Lint, types and the whole suite
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -m "not slow" --numprocesses 2 --dist loadfile $(addprefix --ignore=,$(ALONE))
	$(BIN)/pytest -m "not slow" $(ALONE)

test-slow: dev clickhouse ## The long runs too: twenty seeds of the demo
	$(BIN)/pytest

lint: dev ## Mend what can be mended by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: dev ## Resolve the requirements anew (needs uv)
	uv pip compile pyproject.toml requirements-build.in --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header --no-annotate --quiet --output-file requirements.lock
	uv pip compile pyproject.toml requirements-build.in --group dev --constraint requirements.lock \
	  --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header --no-annotate --quiet --output-file requirements-dev.lock

docs: install ## Write docs/events.md and docs/settings.md from the code
	$(BIN)/python -m monitor.reference

clean: ## Take away what the commands made here
	rm -rf $(VENV) demo-data
