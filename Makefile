# make demo: the main job on embedded data, with a report to look at. make test: the tests. Both set themselves up.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

.PHONY: demo test test-all test-faults lint audit dist bench docs clean

demo: $(VENV)/run
	$(BIN)/resnetlab study run degradation --scale quick --runs runs --results reports

test: $(VENV)/dev
	$(BIN)/python -m pytest -n auto

test-all: $(VENV)/dev
	$(BIN)/python -m pytest -n auto -m "not faults"

# Kills, full disks and the like, injected into every command that writes; the table goes to results/.
test-faults: $(VENV)/dev
	$(BIN)/python -m pytest tests/faults -m faults --faults-json results/faults.json

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Dependencies: ranges, pins and licences. What is known of them since is asked where there is a network.
audit: $(VENV)/dev
	$(BIN)/python -m pytest tests/test_dependencies.py
	@echo "known vulnerabilities: pipx run pip-audit --requirement constraints.txt --no-deps --disable-pip"

# The sdist and the wheel, in dist/.
dist: $(VENV)/dev
	rm -rf dist build
	$(BIN)/python -c "from setuptools import build_meta as b; b.build_sdist('dist'); b.build_wheel('dist')"

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
