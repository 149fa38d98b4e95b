# Two commands for a newcomer: make sweep, make test. Both set everything up by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# No more than the machine has, and idle threads that sleep: two busy runtimes on two cores are 7 times slower.
TEST_ENV := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE

.DEFAULT_GOAL := help
.PHONY: help sweep test test-slow check docs site notebooks pins clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15) and "upsweep needs Python 3.11 to 3.14, and $(PYTHON) is " + sys.version.split()[0] + ": make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --constraint constraints.txt --editable .
	touch $@

sweep: $(VENV)/.installed ## train four generators on real photos and rank them (about 2 minutes)
	$(BIN)/python src/train.py -m init=xavier,he norm=bn,none

test: $(VENV)/.installed-dev ## the tests (at most 8 minutes on 2 cores)
	$(TEST_ENV) $(BIN)/python -m pytest -m 'not slow' -n 2 --dist loadfile

test-slow: $(VENV)/.installed-dev ## real trainings and real processes (at most 20 minutes)
	$(TEST_ENV) $(BIN)/python -m pytest -m slow -n 2 --dist loadfile

check: $(VENV)/.installed-dev ## ruff, mypy, YAML, notebooks, large files: what a commit must pass
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/pre-commit run --all-files --show-diff-on-failure

$(VENV)/.installed-%: $(VENV)/.installed
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[$*]'
	touch $@

docs: $(VENV)/.installed-dev ## write the table of docs/choices.md again
	$(BIN)/python docs/groups.py --write

site: $(VENV)/.installed-docs ## write the pages of docs/ and the reference as a web site into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo 'site/index.html is the first page; its search needs a server: $(BIN)/python -m http.server --directory site'

notebooks: $(VENV)/.installed-notebooks ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks

pins: $(VENV)/.installed-dev ## renew constraints.txt and say what changed (ONLY='torch rich': these alone)
	$(BIN)/python .ci/pins.py $(ONLY)

clean: ## remove caches and what the tools left, not runs and not .venv
	rm -rf .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist site src/*.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
