# make help lists what there is. Needs Python 3.11+, a C compiler and pip; everything else is fetched from PyPI.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
SOURCES := $(wildcard gateway/_*.pyx gateway/_*.pxi gateway/_*.pxd) setup.py
.DEFAULT_GOAL := help

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: $(VENV)/built ## set everything up and run the node with embedded defaults
	$(BIN)/python -m gateway

.PHONY: test
test: lint generated unit extras ## set everything up and run every check and test

.PHONY: unit
unit: $(VENV)/dev ## the tests, in WORKERS (2) processes: most of them wait more than they work
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

.PHONY: lint
lint: $(VENV)/dev ## ruff, mypy strict, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(VENV)/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "gateway needs Python 3.11 or newer; say PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -U pip
	@touch $@

$(VENV)/installed: $(VENV)/made requirements/run.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements/run.txt
	@touch $@

$(VENV)/built: $(VENV)/installed $(SOURCES)
	$(BIN)/python setup.py -q build_ext --inplace
	@$(BIN)/python -c 'import pathlib, site; pathlib.Path(site.getsitepackages()[0], "checkout.pth").write_text("$(CURDIR)\n")'
	@touch $@

$(VENV)/dev: $(VENV)/built requirements/dev.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements/dev.txt
	@touch $@

.PHONY: extras
extras: ## what needs more than PyPI: the C++ oracle, Autobahn, Chromium; each says loudly when it is skipped

.PHONY: extras-fetch
extras-fetch: ## fetch what the extras need (Debian, as root)

.PHONY: generated
generated: ## generated files are what their sources say

.PHONY: bench
bench: $(VENV)/dev ## every benchmark, a quarter of an hour in all; docs/benchmarks.md says how to read them
	@for each in framing echo websocket fanout memory logic; do \
		echo "== $$each"; $(BIN)/python benchmarks/$$each.py || exit 1; \
	done

include $(wildcard make/*.mk)

.PHONY: clean
clean: ## remove everything that was built
	rm -rf $(VENV) build dist *.egg-info gateway/*.so gateway/*.c .hypothesis .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
