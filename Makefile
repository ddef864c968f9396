# `make` without a target lists the targets. PYTHON is the interpreter that creates the environment in VENV.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
COMPARED := $(VENV)/.compared
TORCH := torch==2.13.0
# With worksteal, a worker without tests takes half of the other worker's remaining tests.
PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal
# The test files whose results a new version of JAX or NumPy might change.
NUMERICS := contract earlier_runs engine losses penalties augment optim strategies games metrics models conv ensemble vae estimators private text video

.DEFAULT_GOAL := help
.PHONY: help setup setup-comparisons run test test-comparisons test-numerics test-slow faults lint format bench reference reproduce clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 20

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/pip install --quiet --editable '.[dev]'
	@touch $(STAMP)

# --no-deps, because torch-fidelity requires torchvision, which the tests do not need and which may replace PyTorch.
$(COMPARED): $(STAMP)
	$(BIN)/pip install --quiet $(TORCH) tqdm scipy scikit-image jax-privacy nltk
	$(BIN)/pip install --quiet --no-deps torch-fidelity==0.4.0
	@touch $(COMPARED)

setup-comparisons: $(COMPARED)

setup: $(STAMP) ## create the environment .venv with the dependencies of the targets below

run: setup ## train the default GAN on 4,500 real digits: one or two minutes
	$(BIN)/gan-train model=mlp optim=adam

test: setup ## run all tests except the comparisons and the slow tests: under ten minutes
	$(PYTEST) -m "not slow and not comparison"

test-comparisons: setup-comparisons ## compare with PyTorch and torch-fidelity, which it installs into .venv
	$(BIN)/python -m pytest -m comparison

test-numerics: setup ## run the tests that a new version of JAX or NumPy might fail
	$(PYTEST) -m "not slow and not comparison" $(wildcard $(NUMERICS:%=tests/test_%.py))

# loadfile runs the tests of a file in one process, because some start a Slurm cluster, and a machine runs only one.
test-slow: setup ## run the tests that kill processes, install wheels or train to convergence: under 25 minutes
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow

faults: setup ## kill, starve and damage runs, and print the outcomes: ten minutes
	$(BIN)/python -m pytest -m faults

lint: setup ## check the sources with ruff and mypy
	$(BIN)/ruff check gan_cli tests scripts configs
	$(BIN)/ruff format --check gan_cli tests scripts configs
	$(BIN)/mypy

format: setup ## format the sources with ruff
	$(BIN)/ruff check --fix-only --quiet gan_cli tests scripts configs
	$(BIN)/ruff format gan_cli tests scripts configs

bench: setup ## compare the speed with PyTorch, which it installs into .venv; writes outputs/bench.json
	$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/pip install --quiet $(TORCH)
	$(BIN)/python scripts/bench

reference: setup ## write configs/README.md, the page of all options, anew
	$(BIN)/python scripts/reference

TABLE ?= article
SIZE ?= quick
reproduce: setup ## rerun a table of results: TABLE=article, ring, grid, ...; SIZE=quick or full
	$(BIN)/python scripts/reproduce $(TABLE) --size $(SIZE)

clean: ## remove the environment, builds and caches, but not outputs/
	rm -rf $(VENV) build dist *.egg-info .ruff_cache .mypy_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
