# PYTHON=... chooses the interpreter of the environment, .venv.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: help demo test soak lint clean

help:  ## this list
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 8

demo: .venv/run  ## train a first network and draw its learning curve, about a minute
	$(BIN)/python -m utilities.demo

test: .venv/dev  ## the tests, about five minutes
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

soak: .venv/dev .venv/ray  ## the tests that take minutes each
	$(BIN)/python -m pytest -m soak

lint: .venv/dev  ## style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

.venv/run: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

.venv/dev: .venv/run requirements-dev.txt
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@

.venv/ray: .venv/run requirements-ray.txt
	$(BIN)/python -m pip install --quiet -r requirements-ray.txt
	touch $@

clean:  ## remove the environment
	rm -rf .venv
