# PYTHON=... chooses the interpreter of the environment, .venv.
PYTHON ?= python3
BIN = .venv/bin
GPU_CHECK = .venv/gpu-check/bin
# What `make gpu` takes: it installs nothing. GPU_OPTIONS are of python -m utilities.gpu_day.
GPU_PYTHON ?= $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))

.PHONY: help demo test soak gpu-check gpu lint clean

help:  ## this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

demo: .venv/run  ## train a first network and draw its learning curve, about a minute
	$(BIN)/python -m utilities.demo

test: .venv/dev  ## the tests, about five minutes
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

soak: .venv/dev .venv/ray gpu-check  ## the tests that take minutes each
	$(BIN)/python -m pytest -m soak

gpu-check: .venv/gpu-check  ## what XLA makes for GPUs, without one: checks and a table, 20 minutes
	$(GPU_CHECK)/python -m pytest -m soak tests/test_gpu_code.py
	$(GPU_CHECK)/python -m utilities.gpu_report --device h100
	$(GPU_CHECK)/python -m utilities.gpu_report --device a100

gpu:  ## where a GPU is: tests on it, the benchmark, the paper's table, a report
	$(GPU_PYTHON) -m utilities.gpu_day $(GPU_OPTIONS)

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

# An environment of its own: with XLA's compiler for GPUs JAX looks for one.
.venv/gpu-check: requirements-gpu-check.txt requirements-dev.txt
	$(PYTHON) -m venv $@
	$(GPU_CHECK)/python -m pip install --quiet -r requirements-gpu-check.txt -r requirements-dev.txt
	touch $@

clean:  ## remove the environment
	rm -rf .venv
