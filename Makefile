# make demo: the main job on embedded data, with a page to read. make test: the tests. Both set themselves up.
# make docs: the guide as pages. make results: all quick studies once more, into the committed results/, from a clean
# commit. PYTHON=python3.12 chooses the interpreter.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/pip install --disable-pip-version-check --constraint constraints.txt --editable

PYTEST := $(BIN)/python -m pytest -n auto --dist worksteal --durations 15
COMMIT = $(shell git rev-parse --short HEAD)

.PHONY: demo test test-all test-faults lint audit dist results clean-commit bench docs clean

demo: $(VENV)/run
	@echo "==> Training 30 small networks on the digits: about 3 minutes on 2 cores"
	$(BIN)/resnetlab study run degradation --scale quick --runs runs --results reports
	@echo
	$(BIN)/resnetlab study essay --results reports --also results
	@echo "The command is $(BIN)/resnetlab, or resnetlab after: source $(BIN)/activate"

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
	@echo
	@echo "The guide is in site/. To read it, give: $(BIN)/python -m http.server --directory site 8001"
	@echo "and open http://localhost:8001/ in a browser; Ctrl-C stops it."

clean:
	rm -rf $(VENV) site

$(VENV)/run: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if (3, 11) <= v < (3, 14) else \
		"resnetlab needs Python 3.11 to 3.13; $(PYTHON) is %d.%d. Give another: make PYTHON=python3.12" % v[:2])'
	@echo "==> Setting up an environment in $(VENV) with $(PYTHON)"
	$(PYTHON) -m venv $(VENV)
	@echo "==> Installing resnetlab and what it needs; torch is the largest part, which may take some minutes"
	$(INSTALL) .
	@touch $@

$(VENV)/dev: $(VENV)/run
	@echo "==> Installing what the tests need: export, server, linters"
	$(INSTALL) '.[dev]'
	@touch $@

$(VENV)/extras: $(VENV)/dev
	@echo "==> Installing what the tests of Ray, Hugging Face's datasets and TensorBoard need"
	$(INSTALL) '.[dev,hf,ray,tensorboard]'
	@touch $@

$(VENV)/docs: $(VENV)/run
	@echo "==> Installing what builds the guide"
	$(INSTALL) '.[docs]'
	@touch $@
