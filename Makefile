# `make demo` shows what Wetread does, `make test` proves it. Both set up what they need.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
ARGS ?=

.PHONY: help setup setup-test demo test every-test lint unit viewer pictures bench fuzz chaos power clean

help: ## what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.setup ## a virtual environment with Wetread in it: .venv/bin/wetread

$(VENV)/.setup: pyproject.toml constraints.txt hatch_build.py
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	# torch first and pinned: asked for by another package, it would come with several gigabytes for GPUs.
	@echo "Installing torch, then Wetread and what it needs, then building the viewer: a minute or two …"
	$(PIP) install --quiet --constraint constraints.txt torch==2.13.0
	$(PIP) install --quiet --constraint constraints.txt --editable .
	touch $@

setup-test: $(VENV)/.setup-test
	$(BIN)/python -m tests.install_peers

$(VENV)/.setup-test: $(VENV)/.setup
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup ## the main job on this machine; ARGS=--once stops by itself, ARGS="--scans DIR" sends a folder
	$(BIN)/wetread demo $(ARGS)

# Compiled once, not by each of the many processes that the tests start.
test: export PYTHONDONTWRITEBYTECODE =
test: ## every test, with real peers where they can be installed, and beside them what lint looks at
	$(MAKE) --no-print-directory --jobs 2 lint every-test

every-test: setup-test
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder --max-worker-restart 0 $(ARGS)

lint: setup-test ## style, types, who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.licences

unit: setup-test ## the tests that need no peer
	$(BIN)/python -m pytest tests/unit $(ARGS)

viewer: setup ## build the viewer again
	$(BIN)/python hatch_build.py

pictures: setup-test ## the pictures of the README
	$(BIN)/python -m tests.e2e.pictures

bench: setup-test ## measure against peers
	$(BIN)/python -m tests.bench $(ARGS)

fuzz: setup-test ## what strangers send, made wrong, for ARGS="--seconds 600"; guided by coverage with pip install '.[fuzz]'
	$(BIN)/python -m tests.fuzz $(ARGS)

chaos: setup-test ## kill, fill, cut and confuse a listener while modalities send to it, for ARGS="--minutes 10"
	$(BIN)/python -m tests.chaos $(ARGS)

power: setup-test ## take the power away from a recorded listener, at ARGS="--states 300" moments
	$(BIN)/python -m tests.chaos.power $(ARGS)

clean: ## remove what was made
	rm -rf $(VENV) web/static/viewer web/viewer/node_modules
