# `make` alone lists the targets. PYTHON is the interpreter that the environment in .venv is made with.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
COMPARED := $(VENV)/.compared
TORCH := torch==2.13.0
# A worker that is done takes over half of what is left of the other's tests.
PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal
# What a new JAX or NumPy might change.
NUMERICS := contract earlier_runs engine losses penalties augment optim strategies games metrics models conv ensemble

.DEFAULT_GOAL := help
.PHONY: help setup setup-comparisons run test test-comparisons test-numerics test-slow faults lint format bench reference reproduce clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 20

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/pip install --quiet --editable '.[dev]'
	@touch $(STAMP)

# Of what torch-fidelity asks for, torchvision is not needed, and might bring another PyTorch.
$(COMPARED): $(STAMP)
	$(BIN)/pip install --quiet $(TORCH) tqdm scipy
	$(BIN)/pip install --quiet --no-deps torch-fidelity==0.4.0
	@touch $(COMPARED)

setup-comparisons: $(COMPARED)

setup: $(STAMP) ## make .venv with everything that the targets below need

run: setup ## set up, then train the default GAN on 4,500 real digits: one or two minutes
	$(BIN)/gan-train model=mlp optim=adam

test: setup ## set up, then run the tests, but for those below: under ten minutes
	$(PYTEST) -m "not slow and not comparison"

test-comparisons: setup-comparisons ## the tests beside PyTorch and torch-fidelity, which it installs into .venv
	$(BIN)/python -m pytest -m comparison

test-numerics: setup ## those of the tests that a new version of JAX or NumPy might fail
	$(PYTEST) -m "not slow and not comparison" $(wildcard $(NUMERICS:%=tests/test_%.py))

# A file's tests stay in one process: some of them start a Slurm, of which a machine has room for one.
test-slow: setup ## the tests that kill processes, install wheels and train to convergence: under 25 minutes
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
	$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/pip install --quiet $(TORCH)
	$(BIN)/python scripts/bench

reference: setup ## write configs/README.md, the page of all options, anew
	$(BIN)/python scripts/reference

TABLE ?= article
SIZE ?= quick
reproduce: setup ## rerun a table of results: TABLE=article, ring, grid, ...; SIZE=quick or full
	$(BIN)/python scripts/reproduce $(TABLE) --size $(SIZE)

clean: ## remove the environment and what the tools leave; outputs/ stays
	rm -rf $(VENV) build dist *.egg-info .ruff_cache .mypy_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
