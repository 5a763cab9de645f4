PYTHON ?= python3

BIN := .venv/bin
INSTALLED := .venv/.installed
EXTRAS := .venv/.extras
DOCS := .venv/.docs
SECONDS ?= 600

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-slow test-extras docs notebooks fuzz coverage bench figures zoo processors lint format
.PHONY: wheel clean

help:  ## print this list
	@awk -F ':.*## ' '/^[.a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

.venv: $(INSTALLED)  ## create .venv with everything for development (PYTHON=python3 chooses the interpreter)

# Done again only when a requirement changed. The stamp is written last, so that a failed installation is repeated.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]' --constraint constraints.txt
	touch $@

$(EXTRAS): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable '.[dev,consumers,hub,tflite,ray,peers,docs]' --constraint constraints.txt
	$(BIN)/python -m pip install --quiet --no-deps tosa-tools --constraint constraints.txt  # the extra `tosa`
	touch $@

$(DOCS): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable '.[dev,docs]' --constraint constraints.txt
	touch $@

demo: $(INSTALLED)  ## digits, from a float model to integer ONNX
	$(BIN)/python examples/quickstart.py

test: lint  ## lint, then the quick tests
	$(BIN)/python -m pytest -m "not slow $(ALSO)"

test-slow: $(INSTALLED)  ## the slow tests alone
	$(BIN)/python -m pytest -m "slow $(ALSO)"

test-extras: $(EXTRAS)  ## install the tools that read our files, Ray and Brevitas, and run the tests that need them
	$(BIN)/python -m pytest -m extra --no-skips

docs: $(DOCS)  ## the site, into build/site; a warning or a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

notebooks: $(DOCS)  ## every page with code as a notebook, into build/notebooks
	$(BIN)/python -m tests.docs.notebooks build/notebooks

fuzz: $(INSTALLED)  ## random models for SECONDS=600: lossless, or refused, else into tests/fuzz/corpus
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS)

coverage: $(INSTALLED)  ## the quick tests with the lines they do not reach
	$(BIN)/python -m pytest -m "not slow" --cov --cov-report=term-missing:skip-covered

bench: $(INSTALLED)  ## the benchmarks
	$(BIN)/python -m benchmarks

figures: $(INSTALLED)  ## figures 1 to 7 of the paper from the stored results, into docs/paper
	$(BIN)/python -m examples.paper figures --results examples/paper/results.jsonl --out docs/paper

zoo: $(INSTALLED)  ## every torchvision model, into docs/zoo.md (hours; goes on where it stopped)
	$(BIN)/python -m benchmarks.zoo

processors: $(INSTALLED)  ## the files on other processors, emulated, into docs/processors.md (minutes)
	$(BIN)/python -m benchmarks.processors

lint: $(INSTALLED)  ## format, lint and types, changing nothing
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(INSTALLED)  ## sort imports, mend what ruff can mend, format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

wheel: $(INSTALLED)  ## build the wheel into dist/
	rm -rf build
	$(BIN)/python -m build --wheel --no-isolation

clean:  ## remove caches and build outputs, keep .venv
	rm -rf build dist *.egg-info .coverage htmlcov .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -path ./.venv -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf
