# make demo, make test, make soak, make lint; PYTHON=... chooses the interpreter of the environment.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: demo test soak lint clean

demo: .venv/run
	$(BIN)/python -m utilities.demo

test: .venv/dev
	$(BIN)/python -m pytest

soak: .venv/dev .venv/ray
	$(BIN)/python -m pytest -m soak

lint: .venv/dev
	$(BIN)/ruff check

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

clean:
	rm -rf .venv
