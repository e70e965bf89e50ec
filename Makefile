# FastMTA. `make help` lists the targets. Everything is built into .venv; nothing outside this folder is touched,
# but for the system packages that some tests need, and those only when root (tests/install_packages.sh).

SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BUILT := $(VENV)/.built
SOURCES := setup.py pyproject.toml requirements-test.lock $(wildcard fastmta/_*.pyx fastmta/_*.pxd fastmta/_*/*.pxi)

# what must also pass with records in memory
MEMORY_TESTS := tests/imap tests/pop3 tests/smtp tests/delivery tests/session tests/e2e/test_one_process.py $(addprefix tests/store/test_, \
  store_memory.py store_model.py store_units.py store_queue.py store_mailboxes.py store_heads.py store_failures.py store_stats.py unit_packing.py)

# More processes than cores: much of what tests do is waiting (tests/support/parallel.py).
PARALLEL := -p tests.support.parallel --processes 6

.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: $(BUILT) ## make .venv and compile the extensions into fastmta/

$(VENV)/.venv: 
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "FastMTA needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || { echo "python3 -m venv failed: install the package python3-venv and try again" >&2; rm -rf $(VENV); exit 1; }
	@touch $@

$(BUILT): $(VENV)/.venv $(SOURCES)
	@echo "installing libraries and compiling (about two minutes the first time)"
	@rm -f fastmta/*.so
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-test.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
	  --config-settings editable_mode=compat -e .  # a path; the finder that is the default costs each start 30 ms
	@$(BIN)/python -m compileall -q fastmta  # also where PYTHONDONTWRITEBYTECODE would have each start do it
	@touch $@

run: build ## start a demo server on loopback high ports, with two accounts
	@exec $(BIN)/python -m fastmta.supervisor.demo

test: build packages ## the whole suite, in its short forms
	@$(BIN)/python -m pytest $(PARALLEL) tests

packages:
	@bash tests/install_packages.sh

lint: build ## ruff and mypy
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

interop: build ## programs from the distribution as clients and peers, a browser among them
	@bash tests/install_packages.sh desktop
	@bash tests/install_clients.sh $(BIN)/python
	@FASTMTA_DIALOGS=1000 $(BIN)/python -m pytest -m interop tests/interop

faults: build packages ## the long form of the fault tests
	@$(BIN)/python -m tests.faults.ledger --rounds $${ROUNDS:-200}
	@FASTMTA_LONG=1 $(BIN)/python -m pytest tests/faults --timeout 3600

simulate: build ## the long form of the seeded simulations
	@FASTMTA_LONG=1 FASTMTA_MODEL_EXAMPLES=$${EXAMPLES:-500} $(BIN)/python -m pytest tests/store tests/queue tests/session --timeout 3600
	@$(BIN)/python -m tests.simulation.run $${SEEDS:-0 10000}
	@FASTMTA_TEST_ENGINE=memory $(BIN)/python -m pytest $(PARALLEL) $(MEMORY_TESTS)

fuzz: build ## the fuzz targets, FUZZ_SECONDS each
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check atheris || echo "no atheris here: mutation without coverage"
	@set -e; for target in tests/fuzz/fuzz_*.py; do echo "$$target"; $(BIN)/python $$target --seconds $${FUZZ_SECONDS:-60}; done

bench: build packages ## measure against peers; prints ratios
	@$(BIN)/python -m bench.run

packages-test: build ## install wheel and sdist into fresh environments, by the locks, and send a message with each
	@FASTMTA_LONG=1 $(BIN)/python -m pytest tests/packages --timeout 1800

debug: build ## compile with bounds checks and without optimisation
	@rm -f $(BUILT)
	@FASTMTA_BUILD=debug $(BIN)/python setup.py -q build_ext --inplace --force

asan: build ## compile with AddressSanitizer and UBSan and run the extensions' tests under them
	@rm -f $(BUILT)
	@FASTMTA_BUILD=asan $(BIN)/python setup.py -q build_ext --inplace --force
	@LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 PYTHONMALLOC=malloc \
	  $(BIN)/python -m pytest $(PARALLEL) tests/parser tests/mime tests/store tests/imap tests/session tests/smtp tests/intake tests/index tests/fuzz --timeout 1800 \
	  --capture sys \
	  --ignore tests/mime/test_dovecot.py  # Dovecot does not live under the preloaded sanitiser

clean: ## remove what was built
	@rm -rf $(VENV) build fastmta/*.so *.egg-info

.PHONY: help build run test packages lint interop faults simulate fuzz bench packages-test debug asan clean
