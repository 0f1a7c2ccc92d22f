# cachesvc. `make` lists what there is. Everything is installed into .venv, as config/requirements/ pins it: only what
# running needs (run.txt), until a target asks for the tools of development (dev.txt).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet
# Every package is pinned and hashed, so pip has nothing to resolve. Python compiles a module when it first imports it.
LOCKED := --no-deps --no-compile --require-hashes -r
# The build backend is one of the pinned packages: no isolated environment is made for it.
SOURCE := --no-deps --no-build-isolation
PROJECT := pyproject.toml
SDK := $(wildcard clients/python/pyproject.toml)
PINS := config/requirements
# Processes that run tests at a time. Much of a test's time is waiting for servers.
JOBS ?= 2
TO_RUN := $(VENV)/.installed-to-run
TO_DEVELOP := $(VENV)/.installed-to-develop

.DEFAULT_GOAL := help
.PHONY: help run test test-faults peer-http peer-keyv lint demo demo-break demo-cdc bench load run-two-regions
.PHONY: reference pictures lock servers clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(TO_RUN) ## Serve on 127.0.0.1:8080 with embedded servers until Ctrl-C (ARGS="--namespaces ns.yaml" for yours, "--topology …" for other servers)
	@exec $(BIN)/python -m cachesvc serve $(ARGS)

test: $(TO_DEVELOP) servers lint ## Install missing servers, then lint and run every test but the drills (ARGS="-k name" for some)
	$(BIN)/pytest -m "not faults" --numprocesses $(JOBS) --dist loadfile $(ARGS)

test-faults: $(TO_DEVELOP) servers ## Break real servers while the checker runs; ends with a table (ARGS="-k name", DRILL_SEED=n)
	$(BIN)/pytest tests/faults -m faults --numprocesses $(JOBS) --dist worksteal $(ARGS)

peer-http: $(TO_DEVELOP) servers ## Hold HTTP caching to http-tests/cache-tests (SUITE=file, docs/http-caching.md)
	$(BIN)/python -m tests.peers.http_caching $(SUITE)

peer-keyv: $(TO_DEVELOP) servers ## Run Keyv's suite for stores over HTTP (needs node; fetches from npm)
	$(BIN)/python -m tests.peers.keyv_contract

lint: $(TO_DEVELOP) ## Ruff, formatting, types, and the one way of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python clients/python/unasync.py --check

demo: $(TO_RUN) ## A tour: miss, origin, L1, L2 and L3 hits, an invalidation
	@$(BIN)/python -m loadtests.demo

demo-break: $(TO_RUN) servers ## Break a memcached, a cell and a queue of two regions: what is answered, and how it heals
	@$(BIN)/python -m loadtests.demo_break

demo-cdc: $(TO_DEVELOP) servers ## Change rows in a throw-away PostgreSQL: the page changes in both regions
	@$(BIN)/python -m loadtests.demo_cdc

bench: $(TO_DEVELOP) ## Every comparison side by side (ONLY=name, JSON=file, SMOKE=1)
	@command -v wrk >/dev/null || echo "wrk is not installed (apt-get install wrk): load comes from the built-in driver"
	@$(BIN)/python -m loadtests.bench

load: $(TO_DEVELOP) servers ## Scenarios: load, faults, a verdict and a plot each, in .run/load (SCENARIO=steady, DURATION=0.3)
	@exec $(BIN)/python -m loadtests.load.runner $(SCENARIO) --duration $(or $(DURATION),1)

run-two-regions: $(TO_RUN) servers ## Two regions of two cells with real servers and an origin, until Ctrl-C
	@exec $(BIN)/python -m loadtests.fleet config/two-regions.yaml --run-dir .run/two-regions --origin

clean: ## Remove caches, logs and built files (not .venv)
	rm -rf .run build dist *.egg-info clients/python/*.egg-info clients/python/src/*.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .schemathesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# Only a finished installation leaves its stamp: an interrupted one is done again.
$(TO_RUN): $(PROJECT) $(PINS)/run.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 …" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) \
	  || { rm -rf $(VENV); echo "venv is missing: apt-get install python3-venv" >&2; exit 1; }
	$(PIP) install $(LOCKED) $(PINS)/run.txt
	$(PIP) install $(SOURCE) -e .
	@touch $@

$(TO_DEVELOP): $(TO_RUN) $(SDK) $(PINS)/dev.txt
	$(PIP) install $(LOCKED) $(PINS)/dev.txt
	$(if $(SDK),$(PIP) install $(SOURCE) -e clients/python)
	@touch $@

reference: $(TO_DEVELOP) ## Write docs/reference.md anew from the code
	$(BIN)/python -m cachesvc.commands.reference > docs/reference.md

pictures: ## Draw docs/pictures/*.svg anew from the .dot files beside them
	@command -v dot >/dev/null || { echo "graphviz is missing: apt-get install graphviz" >&2; exit 1; }
	for source in docs/pictures/*.dot; do dot -Tsvg -o "$${source%.dot}.svg" "$$source"; done

# One resolution for every Python and system that the ranges allow. Pins that still fit stay, unless ARGS=--upgrade.
lock: PIN = .run/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --custom-compile-command "make lock" $(ARGS)
lock: ## Write the pinned versions and their hashes anew from both pyproject.toml (ARGS=--upgrade for the newest)
	$(PYTHON) -m venv .run/lock && .run/lock/bin/pip install --disable-pip-version-check --quiet uv
	$(PIN) --all-extras $(PROJECT) $(SDK) --output-file $(PINS)/dev.txt
	echo setuptools | $(PIN) $(PROJECT) - --constraints $(PINS)/dev.txt --output-file $(PINS)/run.txt
	rm -rf .run/lock

# The integration tests run against real servers, which they start and stop themselves. Those with etcd and
# HAProxy are skipped where these are not installed and cannot be.
servers:
	@missing=; wanted=; \
	command -v memcached >/dev/null || missing="$$missing memcached"; \
	command -v redis-server >/dev/null || missing="$$missing redis-server"; \
	command -v promtool >/dev/null || missing="$$missing prometheus"; \
	command -v etcd >/dev/null || wanted=" etcd-server"; \
	PATH="$$PATH:/usr/sbin" command -v haproxy >/dev/null || wanted="$$wanted haproxy"; \
	ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || wanted="$$wanted postgresql"; \
	test -n "$$missing$$wanted" || exit 0; \
	if ! command -v apt-get >/dev/null; then as_root=false; \
	elif [ "$$(id -u)" = 0 ]; then as_root=env; \
	elif sudo -n true 2>/dev/null; then as_root="sudo -n env"; \
	else as_root=false; fi; \
	test -z "$$missing" || echo "missing:$$missing"; \
	{ $$as_root DEBIAN_FRONTEND=noninteractive apt-get update -q \
	  && $$as_root DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing $$wanted; } \
	  || test -z "$$missing" || { echo "Install these packages, then run make again:$$missing" >&2; exit 1; }
