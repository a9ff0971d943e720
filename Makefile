# make demo: the main job on embedded data, with a report to look at. make test: the tests. Both set themselves up.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

.PHONY: demo test test-all lint bench docs clean

demo: $(VENV)/run
	$(BIN)/resnetlab study run degradation --scale quick --runs runs --results reports

test: $(VENV)/dev
	$(BIN)/python -m pytest -n auto

test-all: $(VENV)/dev
	$(BIN)/python -m pytest -n auto -m "not faults"

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/run
	$(BIN)/python -m benchmarks.networks
	$(BIN)/python -m benchmarks.data

docs: $(VENV)/docs
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) site

$(VENV)/run: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) .
	@touch $@

$(VENV)/dev: $(VENV)/run
	$(INSTALL) '.[dev]'
	@touch $@

$(VENV)/docs: $(VENV)/run
	$(INSTALL) '.[docs]'
	@touch $@
