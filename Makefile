# `make demo` and `make test` do all the set-up on a fresh machine; PYTHON names another interpreter (3.11+).
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help install demo test lint bench clean

help:            ## list what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

install: .venv/installed   ## make .venv and install genray in it

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $@

test: .venv/installed      ## run the tests
	$(BIN)/python -m pytest

lint: .venv/installed      ## check style (ruff) and types (mypy, strict)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
