# Everything runs in .venv, made on first use from the versions in constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: setup demo test lint release-check fuzz soak clean
.DEFAULT_GOAL := test

setup: $(VENV)/.done

# torch comes first and alone: with it installed, nothing else asks for another build of it.
$(VENV)/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --upgrade pip
	$(INSTALL) "$$(grep '^torch==' constraints.txt)"
	$(INSTALL) --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup
	$(BIN)/python -m tests.demo

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# What shares a fixture that takes time is marked as a group, and a group is not parted.
test: lint
	$(BIN)/pytest --numprocesses auto --dist loadgroup

# Before a release: a second type checker, and the tests that take minutes.
release-check: test
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/pytest --numprocesses auto --dist loadgroup -m slow

# Without atheris, which not every machine can install, the changes are random.
FUZZ_S ?= 60
fuzz: setup
	-$(INSTALL) atheris
	for target in header index config manifest; do $(BIN)/python -m tests.fuzz $$target $(FUZZ_S) || exit 1; done

# kill -9, full disks, faults of the Hub and odd folders, drawn at random. A failure prints the seed.
SOAK_S ?= 600
soak: setup
	SOAK_S=$(SOAK_S) $(BIN)/pytest -m soak tests/test_soak.py

clean:
	rm -rf $(VENV) build dist demo-out demo-trained *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
