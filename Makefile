# Everything from nothing but Python >= 3.10, make and a package index. PYTHON=python3.12 picks another interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# the release whose CPU wheel some indexes carry; a CUDA machine gets its usual build of the same release
TORCH ?= torch==2.13.0
# two tests at a time; a file's tests stay together, for they share what they trained, in the order of tests/conftest.py
PYTEST ?= -n 2 --dist loadscope --no-loadscope-reorder

.PHONY: setup train test fast lint clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@

# the main job on an embedded default: a real frozen LLM, a data set made on the spot
train: setup
	$(BIN)/msekit train --config quickstart --resume

test: setup
	$(BIN)/python -m pytest $(PYTEST)

# without what takes more than a few seconds or several processes
fast: setup
	$(BIN)/python -m pytest $(PYTEST) -m "not slow and not multiprocess"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info
