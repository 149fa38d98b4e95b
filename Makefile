# Two commands for a newcomer: make sweep, make test. Both set everything up by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# No more than the machine has, and idle threads that sleep: two busy runtimes on two cores are 7 times slower.
TEST_ENV := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE

.DEFAULT_GOAL := help
.PHONY: help sweep test test-slow check docs clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "upsweep needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + ": make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev]'
	touch $@

sweep: $(VENV)/.installed ## train four generators on real photos and rank them (about 3 minutes)
	$(BIN)/python src/train.py -m init=xavier,he norm=bn,none

test: $(VENV)/.installed-dev ## the tests (at most 8 minutes on 2 cores)
	$(TEST_ENV) $(BIN)/python -m pytest -m 'not slow' -n 2 --dist loadfile

test-slow: $(VENV)/.installed-dev ## real trainings and real processes (at most 20 minutes)
	$(TEST_ENV) $(BIN)/python -m pytest -m slow -n 2 --dist loadfile

check: $(VENV)/.installed-dev ## ruff, mypy, YAML, notebooks, large files: what a commit must pass
	$(BIN)/pre-commit run --all-files --show-diff-on-failure

docs: $(VENV)/.installed-dev ## write the README's table of config groups again
	$(BIN)/python docs/groups.py --write

clean: ## remove caches and what the tools left, not runs and not .venv
	rm -rf .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist src/*.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
