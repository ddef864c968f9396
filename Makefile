# `make` alone lists the targets. PYTHON is the interpreter that the environment in .venv is made with.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup run test test-slow faults lint format bench reproduce clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/pip install --quiet --editable '.[dev]'
	@touch $(STAMP)

setup: $(STAMP) ## make .venv with everything that the targets below need

run: setup ## set up, then train the default GAN on 4,500 real digits: one or two minutes
	$(BIN)/gan-train model=mlp optim=adam

test: setup ## set up, then run the tests: under ten minutes
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-slow: setup ## the tests that kill processes, install wheels and train to convergence: under forty minutes
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow

faults: setup ## kill, starve and damage runs, and print what became of them: ten minutes
	$(BIN)/python -m pytest -m faults

lint: setup ## ruff and mypy
	$(BIN)/ruff check gan_cli tests scripts configs
	$(BIN)/ruff format --check gan_cli tests scripts configs
	$(BIN)/mypy

format: setup ## rewrite the sources as ruff formats them
	$(BIN)/ruff check --fix-only --quiet gan_cli tests scripts configs
	$(BIN)/ruff format gan_cli tests scripts configs

bench: setup ## steps a second beside PyTorch, which it installs into .venv; writes outputs/bench.json
	$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/python scripts/bench

TABLE ?= article
SIZE ?= quick
reproduce: setup ## rerun a table of results: TABLE=article, ring, grid, ...; SIZE=quick or full
	$(BIN)/python scripts/reproduce $(TABLE) --size $(SIZE)

clean: ## remove the environment and what the tools leave; outputs/ stays
	rm -rf $(VENV) build dist *.egg-info .ruff_cache .mypy_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
