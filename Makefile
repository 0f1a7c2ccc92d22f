# cachesvc. `make` lists what there is. Everything is installed into .venv, and only when a pyproject.toml changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SDK := $(wildcard clients/python/pyproject.toml)
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help run test test-faults lint demo bench load run-two-regions servers clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(INSTALLED) ## Serve on 127.0.0.1:8080 with embedded servers until Ctrl-C (ARGS="--topology …" for others)
	@exec $(BIN)/python -m cachesvc serve $(ARGS)

test: $(INSTALLED) servers lint ## Install missing servers, then lint and run every test but the drills (ARGS="-k name" for some)
	$(BIN)/pytest -m "not faults" $(ARGS)

test-faults: $(INSTALLED) servers ## Break real servers while the checker runs; ends with a table (ARGS="-k name", DRILL_SEED=n)
	$(BIN)/pytest tests/faults -m faults $(ARGS)

lint: $(INSTALLED) ## Ruff, formatting, types, and the one way of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python clients/python/unasync.py --check

demo: $(INSTALLED) ## A tour: miss, origin, L1, L2 and L3 hits, an invalidation
	@$(BIN)/python -m loadtests.demo

bench: $(INSTALLED) ## Every comparison side by side (ONLY=name, JSON=file, SMOKE=1)
	@command -v wrk >/dev/null || echo "wrk is not installed (apt-get install wrk): load comes from the built-in driver"
	@$(BIN)/python -m loadtests.bench

load: $(INSTALLED) servers ## Scenarios: load, faults, a verdict and a plot each, in .run/load (SCENARIO=steady, DURATION=0.3)
	@exec $(BIN)/python -m loadtests.load.runner $(SCENARIO) --duration $(or $(DURATION),1)

run-two-regions: $(INSTALLED) servers ## Two regions of two cells with real servers and an origin, until Ctrl-C
	@exec $(BIN)/python -m loadtests.fleet config/two-regions.yaml --run-dir .run/two-regions --origin

clean: ## Remove caches, logs and built files (not .venv)
	rm -rf .run build dist *.egg-info clients/python/*.egg-info clients/python/src/*.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .schemathesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# Only a finished installation leaves the stamp: an interrupted one is done again.
$(INSTALLED): pyproject.toml $(SDK)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 …" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) \
	  || { rm -rf $(VENV); echo "venv is missing: apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev,load]' $(if $(SDK),-e clients/python)
	@touch $@

# The integration tests run against real servers, which they start and stop themselves.
servers:
	@missing=; \
	command -v memcached >/dev/null || missing="$$missing memcached"; \
	command -v redis-server >/dev/null || missing="$$missing redis-server"; \
	command -v promtool >/dev/null || missing="$$missing prometheus"; \
	test -n "$$missing" || exit 0; \
	if ! command -v apt-get >/dev/null; then as_root=false; \
	elif [ "$$(id -u)" = 0 ]; then as_root=env; \
	elif sudo -n true 2>/dev/null; then as_root="sudo -n env"; \
	else as_root=false; fi; \
	echo "missing:$$missing"; \
	{ $$as_root DEBIAN_FRONTEND=noninteractive apt-get update -q \
	  && $$as_root DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing; } \
	  || { echo "Install these packages, then run make again:$$missing" >&2; exit 1; }
