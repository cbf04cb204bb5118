# `make demo` and `make test` need nothing but Python and make: the first target that runs creates .venv and installs.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

PYTHON ?= python3
EXTRAS ?= dagster,train,eval,dev
PORT ?= 3000
BIN := .venv/bin
STAMP := .venv/.installed-$(EXTRAS)
SLOW_TESTS := browser faults services
EXAMPLES := browser/test_report.py::test_text_of_records_is_shown_as_text \
    faults/test_kill.py::test_a_killed_command_started_again_does_what_is_left[stage1] \
    services/test_prepare_all.py::test_videos_that_no_archive_holds_are_listed_as_missing

# Tests make instances of their own.
demo ui lint: export DAGSTER_HOME := $(CURDIR)/dagster_home

.PHONY: help install demo test test-all ui lint format bench constraints clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

install: $(STAMP)  ## create .venv and install (every other target does this by itself)

# uv takes seconds where pip takes minutes, but does not read pip's settings: a local build of torch is found through find-links.
$(STAMP): pyproject.toml constraints.txt
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	    $(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 14))' \
	        || { echo "Python 3.10 to 3.13 is needed, $(PYTHON) is $$($(PYTHON) -V 2>&1): make PYTHON=/path/to/python3.11" >&2; exit 1; }; \
	    $(PYTHON) -m venv --clear .venv; \
	fi
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt uv
	@links=$${UV_FIND_LINKS:-$${PIP_FIND_LINKS:-$$($(BIN)/python -m pip config get global.find-links 2>/dev/null || true)}}; \
	links=$$(xargs -n 1 <<<"$$links" | paste -sd,); \
	if [ -n "$$links" ]; then export UV_FIND_LINKS="$$links"; fi; \
	$(BIN)/uv pip install --python $(BIN)/python --compile-bytecode --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

# numba does not see that a function compiled into another file's has changed: compile all anew when any source did.
KERNELS := .venv/.kernels
$(KERNELS): $(STAMP) $(wildcard ov_model/codec/*.py ov_model/codec/h264/*.py)
	@find ov_model/codec -name '*.nb[ic]' -delete
	@touch $@

demo: $(KERNELS)  ## real clips -> training JSONL -> a tiny model that answers, through Dagster
	$(BIN)/python -m ov_assets.demo

test: $(KERNELS)  ## all tests, of browser, faults and services one each
	$(BIN)/python -m pytest -n auto --dist worksteal tests $(SLOW_TESTS:%=--ignore=tests/%) $(EXAMPLES:%='tests/%')

test-all: $(KERNELS)  ## those of browser, faults and services
	$(BIN)/python -m pytest -n auto --dist worksteal $(wildcard $(SLOW_TESTS:%=tests/%))

ui: $(STAMP)  ## Dagster's UI on 127.0.0.1, PORT=3000
	$(BIN)/dagster dev -h 127.0.0.1 -p $(PORT)

lint: $(STAMP)  ## ruff, its formatter in check mode, pyright, Dagster's definitions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	VIRTUAL_ENV='$(CURDIR)/.venv' $(BIN)/dg check defs

format: $(STAMP)  ## format and sort imports
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(KERNELS)  ## speed and fidelity, printed as ratios
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python "$$script"; done

# Keeps the pins that stand; move one with: make constraints UPGRADE='--upgrade-package polars'
constraints: $(STAMP)  ## resolve all extras together again -> constraints.txt
	$(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.10 --python $(BIN)/python --no-annotate --custom-compile-command 'make constraints' \
	    --extra dagster --extra train --extra eval --extra ray --extra k8s --extra postgres --extra deploy --extra s3-server --extra demo --extra dev $(UPGRADE) --output-file constraints.txt
	sed -i -e "s/ ; sys_platform == 'linux'$$//" -e "s/ and sys_platform == 'linux'//g" constraints.txt

clean:  ## remove .venv and caches; lakes and Dagster's history stay
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
