# make demo: the main job on embedded data, with a page to read. make test: the tests. Both set themselves up.
# make results: all quick studies once more, into the committed results/, from a clean commit.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

PYTEST := $(BIN)/python -m pytest -n auto --dist worksteal --durations 15
COMMIT = $(shell git rev-parse --short HEAD)

.PHONY: demo test test-all test-faults lint audit dist results clean-commit bench docs clean

demo: $(VENV)/run
	$(BIN)/resnetlab study run degradation --scale quick --runs runs --results reports
	$(BIN)/resnetlab study essay --results reports --also results

test: $(VENV)/dev
	$(PYTEST)

test-all: $(VENV)/extras
	$(PYTEST) -m "not faults"

# Kills, full disks and the like, injected into every command that writes, and the table of them.
test-faults: $(VENV)/dev
	$(BIN)/python -m pytest tests/faults -m faults --faults-json reports/faults.json

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A folder of runs for each commit, so that no run of other code gets into the records.
results: clean-commit $(VENV)/run
	$(BIN)/resnetlab study run --all --scale quick --runs runs/results-$(COMMIT) --results results

clean-commit:
	@changes=$$(git status --porcelain -- ':/' ':(exclude,top)results') && test -z "$$changes" || \
		{ echo "results/ is written from a clean commit only, which its records name: commit what is changed." >&2; exit 1; }

# Dependencies: ranges, pins and licences. What is known of them since is asked where there is a network.
audit: $(VENV)/dev
	$(BIN)/python -m pytest tests/test_dependencies.py
	@echo "known vulnerabilities: pipx run pip-audit --requirement constraints.txt --no-deps --disable-pip"

# The sdist and the wheel, in dist/.
dist: $(VENV)/dev
	rm -rf dist build
	$(BIN)/python -c "from setuptools import build_meta as b; b.build_sdist('dist'); b.build_wheel('dist')"

bench: $(VENV)/run
	$(BIN)/python -m benchmarks.training
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

$(VENV)/extras: $(VENV)/dev
	$(INSTALL) '.[dev,hf,ray,tensorboard]'
	@touch $@

$(VENV)/docs: $(VENV)/run
	$(INSTALL) '.[docs]'
	@touch $@
